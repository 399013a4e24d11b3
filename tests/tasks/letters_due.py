"""A rental, an invoice, a payment or a refund that a letter of each kind is about, and the promise of that letter."""

from typing import Any
from uuid import UUID

from fleet.models.payments import Payment, Refund
from fleet.services import notifications, outbox
from tests.books import issued, rental_to_bill
from tests.cast import Cast, at
from tests.money import given_back, id_of, paid

# The state in which a rental is when the letter is promised.
STATE_OF = {
    "rental_held": "held",
    "rental_reserved": "reserved",
    "rental_changed": "reserved",
    "rental_cancelled": "cancelled",
    "rental_expired": "expired",
    "rental_reminder": "reserved",
    "rental_overdue": "active",
    "rental_no_show": "no_show",
}


def booked_as(cast: Cast, kind: str) -> Any:
    """The row that this kind of letter is about, of Ana's and in the state that it tells of."""
    if kind == "invoice_issued":
        return issued(cast)
    if kind == "payment_received":
        return Payment.get_by_id(id_of(paid(cast, issued(cast))))
    if kind == "payment_refunded":
        return Refund.get_by_id(id_of(given_back(cast, paid(cast, issued(cast)))))
    start, end = (at(-2), at(hours=-2)) if kind == "rental_overdue" else (at(1), at(3))
    status = STATE_OF[kind]
    return rental_to_bill(
        cast, status=status, pickup_branch_id=cast.lisbon, start_at=start, end_at=end, hold_expires_at=at(hours=1),
        actual_start_at=start if status == "active" else None, actual_end_at=None,
    )  # fmt: skip


def promised_about(kind: str, thing: Any, *, sms: bool = False) -> UUID:
    """A promise of this kind, as whoever makes it does; of the text message that goes with it, if asked for."""
    about = {"rental_reminder": "start_at", "rental_overdue": "end_at"}.get(kind)
    payload = {"about_at": getattr(thing, about).isoformat()} if about else {}
    topic = notifications.SMS_TOPIC if sms else f"notifications.{kind}"
    return outbox.promise(topic, thing._meta.table_name, thing.id, {**payload, "kind": kind} if sms else payload)
