"""Giving money back. Whoever changes a refund has locked its payment first, so that refunds of one payment come in turn."""

from typing import Any
from uuid import UUID

from fleet import clock, config
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Conflict, Forbidden, Invalid, InvalidState, NotFound
from fleet.models.base import Condition, in_state
from fleet.models.payments import CARD, REFUNDS, Payment, Refund, payment_for_update, payments_seen_by
from fleet.rules import lifecycles
from fleet.services import audit, events, outbox, payments

Document = dict[str, Any]


def listed(
    actor: Actor, *, after: UUID | None, limit: int, status: str | None = None, customer_id: UUID | None = None
) -> list[Document]:
    """A page of the refunds whose payments the actor may see, newest first."""
    conditions = [payments_seen_by(actor)]
    if status is not None:
        conditions.append(in_state("refund.status", status))
    if customer_id is not None:
        conditions.append(Condition("payment.customer_id = %s", (customer_id,)))
    return REFUNDS.page(conditions, after=after, limit=limit)


def of_payment(actor: Actor, *, after: UUID | None, limit: int, payment_id: UUID) -> list[Document]:
    """A page of a payment's refunds, newest first. Raises NotFound."""
    payments.shown(actor, payment_id)
    return REFUNDS.page([Condition("refund.payment_id = %s", (payment_id,))], after=after, limit=limit)


def shown(actor: Actor, refund_id: UUID) -> Document:
    """One refund. Raises NotFound, also for one whose payment is not the actor's."""
    found = REFUNDS.first([payments_seen_by(actor), Condition("refund.id = %s", (refund_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def request(actor: Actor, payment_id: UUID, *, amount: int | None, currency: str | None, reason: str | None) -> Refund:
    """Ask for money to go back: so much, or all that is left.

    It goes at once, unless the payment's refunds come to more than the limit with it: then a second person has to approve.
    Raises NotFound, InvalidState, Conflict `refund_exceeds_payment`, Invalid for another currency.
    """
    payment = payment_for_update(payment_id, payments_seen_by(actor))
    wanted = _refundable(payment, amount, currency)
    refunded = payment.refunded_amount + wanted
    refund: Refund = Refund.create(
        status="requested",
        payment_id=payment.id,
        amount=wanted,
        reason=reason,
        # All refunds of a payment together: the limit is not passed in small steps.
        needs_approval=refunded > config.current().refund_approval_limit,
        requested_by=actor.user_id,
        created_at=clock.now(),
    )
    payment.change(refunded_amount=refunded)
    outbox.promise("accounting.post_refund", "refund", refund.id)
    if not refund.needs_approval:
        _approve(payment, refund, by=None)
    return refund


@atomic
def approve(actor: Actor, refund_id: UUID, *, expected_version: int | None) -> Refund:
    """Let a refund go that somebody else asked for. Raises NotFound, Forbidden `second_person_required`, InvalidState,
    VersionConflict.
    """
    payment = payment_for_update(shown(actor, refund_id)["payment_id"])
    refund: Refund = Refund.get_by_id(refund_id)
    lifecycles.refund.check(refund.status, "approved")
    if refund.requested_by == actor.user_id:
        raise Forbidden("Somebody else than who asked for it has to approve it", code="second_person_required")
    if payment.status != "captured":
        raise InvalidState(f"The payment is {payment.status}")
    _approve(payment, refund, by=actor.user_id, expected_version=expected_version)
    _note(actor, "refunds.approve", refund, "approved")
    return refund


@atomic
def reject(actor: Actor, refund_id: UUID, *, reason: str, expected_version: int | None) -> Refund:
    """Refuse a refund that nobody has approved yet: what it would have given back can be given back again.

    Whoever asked for it may do so too, for no money moves. The payment's lock decides between this and an approval at the
    same moment. Raises NotFound, InvalidState, VersionConflict.
    """
    payment = payment_for_update(shown(actor, refund_id)["payment_id"])
    refund: Refund = Refund.get_by_id(refund_id)
    lifecycles.refund.check(refund.status, "rejected")
    refund.change(
        status="rejected",
        rejected_by=actor.user_id,
        rejected_at=clock.now(),
        rejection_reason=reason,
        expected_version=expected_version,
    )
    payment.change(refunded_amount=payment.refunded_amount - refund.amount)
    outbox.promise("accounting.post_rejection", "refund", refund.id)
    _note(actor, "refunds.reject", refund, "rejected", reason=reason)
    return refund


def settle(refund: Refund) -> None:
    """The money is back with the customer, who is told: once, for the payment is locked and `settled` is an end."""
    refund.change(status="settled", settled_at=clock.now(), attempt_ends_at=None)
    outbox.promise("accounting.post_refund", "refund", refund.id)
    outbox.promise("notifications.payment_refunded", "refund", refund.id)
    events.of_refund(refund.id)


def _note(actor: Actor, action: str, refund: Refund, decided: str, **said: Any) -> None:
    """Into the audit log: who decided about how much."""
    about = {"payment_id": refund.payment_id, "amount": refund.amount}
    audit.record(actor, action, "refund", refund.id, before={"status": "requested"}, after={"status": decided, **about, **said})


def _approve(payment: Payment, refund: Refund, *, by: UUID | None, expected_version: int | None = None) -> None:
    """What a card brought goes back through the gateway, by a worker. All else was handed over by whoever approved it."""
    refund.change(status="approved", approved_by=by, approved_at=clock.now(), expected_version=expected_version)
    if payment.method == CARD:
        outbox.promise("payments.send_refund", "refund", refund.id)
    else:
        refund.change(status="sent", sent_at=clock.now())
        settle(refund)


def _refundable(payment: Payment, amount: int | None, currency: str | None) -> int:
    left = payment.amount - payment.refunded_amount
    if currency not in (None, payment.currency):
        raise Invalid.field("currency", "other_currency", f"the payment is in {payment.currency}")
    if payment.status != "captured":
        raise InvalidState(f"The payment is {payment.status}")
    wanted = left if amount is None else amount
    if wanted > left or not wanted:
        raise Conflict(f"{left} is left to refund", code="refund_exceeds_payment", extra={"refundable_amount": left})
    return wanted
