"""Telling customers what happened to their rentals, by e-mail and by text message.

An e-mail goes out at least once: a worker that dies between the mail server's yes and our note of it leaves a letter that is
sent again. A customer is better off with a confirmation twice than without; both carry one Message-ID, the id of the promise,
so that mail programs and people can tell that they are the same. A text message goes out at most once, unless the provider
honours idempotency keys (docs/decisions/0009-delivery-guarantees.md).

The first attempt of a letter decides, in one transaction, whether it goes by e-mail and whether a text message is promised
beside it. The server is asked between transactions: a `sending` row before, its outcome after. Nothing waits inside.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import peewee
import phonenumbers

from fleet import clock, config, metrics
from fleet.auth import Actor
from fleet.db import db, transaction
from fleet.gateways.mail import Attachment, Mail, Session
from fleet.gateways.sms import Sms, SmsGateway, SmsUncertain
from fleet.models import notifications as models
from fleet.models.base import Condition
from fleet.models.notifications import NOTIFICATIONS, Notification
from fleet.outages import database_is_away
from fleet.rules import letters
from fleet.rules.languages import Language, offered
from fleet.rules.letters import Letter, PaymentTold, RefundTold, RentalTold
from fleet.rules.notices import KINDS, is_wanted
from fleet.services import invoice_documents, outbox, preferences
from fleet.services.outbox import Message

# Longer than a worker may take for one task, so that a claim as old as this has lost its worker.
CLAIM_S = 90
# For so long whoever knows what the server said tries to write it down while PostgreSQL is away: a restart is shorter.
INSIST_S, INSIST_PAUSE_S = 10.0, 0.3
SMS_TOPIC = "notifications.sms"


class NothingToTell(Exception):
    """A letter is promised about something that does not exist: no repetition helps."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is to be told, to whom, and in which ways they want to be told."""

    kind: str
    customer_id: UUID
    email: str
    phone: str
    erased: bool
    chosen: dict[str, Sequence[str] | None]
    outdated: bool
    letter: Letter
    attachments: tuple[Attachment, ...] = ()

    def reason_against(self, channel: str) -> str | None:
        """Why it is not sent this way; None when it is."""
        if self.erased:
            return "erased"
        if self.outdated:
            return "outdated"
        if not is_wanted(self.kind, channel, self.chosen[channel]):
            return "not_wanted"
        return "no_number" if channel == "sms" and self.number is None else None

    @property
    def number(self) -> str | None:
        """The telephone number as E.164 writes it; None for one that cannot be called from everywhere."""
        try:
            parsed = phonenumbers.parse(self.phone, None)
        except phonenumbers.NumberParseException:
            return None
        return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def listed(
    actor: Actor, *, after: UUID | None, limit: int, **filters: UUID | str | None
) -> list[dict[str, Any]]:
    """A page of what was told to customers, newest first, without what it said. For staff: the route asks who may."""
    conditions = [Condition(f"notification.{name} = %s", (value,)) for name, value in filters.items() if value is not None]
    return NOTIFICATIONS.page(conditions, after=after, limit=limit)


def send(message: Message, session: Session) -> bool:
    """Send the letter that the message asks for and confirm it; False when another worker is sending it right now.

    Raises NothingToTell, and what the session raises, after noting that the attempt failed.
    """
    notice = _notice(message, message.topic.partition(".")[2])
    return _attempt(message, notice, "email", lambda: session.send(_mail(message, notice)))


def send_sms(message: Message, gateway: SmsGateway) -> bool:
    """Send the text message that a letter's first attempt promised, and confirm it; False as `send`.

    One whose worker was lost, or that nobody answered to, may have gone out: it is not sent again unless the provider can
    tell that it is the same. Raises NothingToTell, and what the gateway raises but SmsUncertain.
    """
    if not config.current().sms_key_honoured:
        db.execute_sql(models.GIVE_UP_LOST, {"id": message.id, "claim_s": CLAIM_S})
    notice = _notice(message, message.payload["kind"])
    return _attempt(
        message, notice, "sms", lambda: gateway.send(Sms(message.id, notice.number or "", notice.letter.sms))
    )


def _attempt(message: Message, notice: Notice, channel: str, hand_over: Callable[[], None]) -> bool:
    against = notice.reason_against(channel)
    if not _claim(message, notice, channel, against):
        if _ended_already(message):
            return True
        db.execute_sql(models.WAIT_FOR_CLAIM, {"id": message.id, "claim_s": CLAIM_S})
        return False
    if against is not None:
        _finish(message, notice.kind, channel, "skipped")
        return True
    try:
        hand_over()
    except SmsUncertain:
        if config.current().sms_key_honoured:
            _note(message, notice.kind, channel, "failed")
            raise
        _finish(message, notice.kind, channel, "unknown")
        return True
    except Exception:
        _note(message, notice.kind, channel, "failed")
        raise
    _finish(message, notice.kind, channel, "sent")
    return True


def _claim(message: Message, notice: Notice, channel: str, against: str | None) -> bool:
    """Make the letter ours, or nobody's where something speaks against it; False when it is another's or has ended."""
    nothing = dict.fromkeys(("rental_id", "invoice_id", "payment_id", "refund_id"))
    values = {
        "id": message.id,
        "kind": notice.kind,
        "channel": channel,
        "customer_id": notice.customer_id,
        "status": "skipped" if against else "sending",
        "reason": against,
        "claim_s": CLAIM_S,
        **nothing,
        f"{message.aggregate_type}_id": message.aggregate_id,
    }
    if channel == "sms" or not _goes_by_sms(notice):
        return db.one(models.CLAIM_LETTER, values) is not None
    with transaction():
        claimed = db.one(models.CLAIM_LETTER, values)
        if claimed == (True,):
            # In the transaction of the first claim: promised with it, and never again.
            said = {**message.payload, "kind": notice.kind}
            outbox.promise(SMS_TOPIC, message.aggregate_type, message.aggregate_id, said)
    return claimed is not None


def _goes_by_sms(notice: Notice) -> bool:
    settings = config.current()
    return bool(settings.sms_url or not settings.production) and notice.reason_against("sms") is None


def _ended_already(message: Message) -> bool:
    found = Notification.get_or_none((Notification.id == message.id) & (Notification.status << ("sent", "unknown", "skipped")))
    if found is None:
        return False
    _confirm(message)
    return True


def _finish(message: Message, kind: str, channel: str, status: str) -> None:
    if status == "skipped":
        _confirm(message)
    else:
        said = {"id": message.id, "status": status, "consumer": message.topic, "ids": f"{{{message.id}}}"}
        _insist(models.FINISH_LETTER, said)
    metrics.NOTIFICATIONS.labels(kind, channel, status).inc()


def _note(message: Message, kind: str, channel: str, status: str) -> None:
    _insist(models.END_LETTER, {"id": message.id, "status": status})
    metrics.NOTIFICATIONS.labels(kind, channel, status).inc()


def _insist(statement: str, values: dict[str, Any]) -> None:
    """Write what the server said, also when PostgreSQL is away for a moment: nobody else knows it, and until the claim is over
    nobody may ask again. Written twice it says the same: a connection may be lost after the commit.
    """
    deadline = time.monotonic() + INSIST_S
    while True:
        try:
            db.execute_sql(statement, values)
            return
        except peewee.PeeweeException as error:
            if not database_is_away(error) or time.monotonic() > deadline:
                raise
            time.sleep(INSIST_PAUSE_S)


def _confirm(message: Message) -> None:
    with transaction():
        outbox.receive(message.topic, [message.id])
        outbox.confirm([message.id])


def _mail(message: Message, notice: Notice) -> Mail:
    link = None
    if not KINDS[notice.kind].required:
        link = preferences.unsubscribe_url(notice.customer_id, notice.kind)
    letter = notice.letter
    return Mail(
        message.id, notice.email, letter.subject, letter.text(link), letter.html(link),
        unsubscribe_url=link, attachments=notice.attachments,
    )  # fmt: skip


# --- what is told -----------------------------------------------------------------------------------------------------


def _notice(message: Message, kind: str) -> Notice:
    of = {"invoice": _of_invoice, "payment": _of_payment, "refund": _of_refund}.get(message.aggregate_type, _of_rental)
    return of(kind, message)


def _of_rental(kind: str, message: Message) -> Notice:
    rows = db.recurring(models.RENTAL_TOLD, (message.aggregate_id,))
    if not rows:
        raise NothingToTell("no such rental")
    customer_id, first_name, email, phone, tag, erased, by_email, by_sms, status, *facts = rows[0]
    told = RentalTold(first_name, *facts)
    chosen = {"email": by_email, "sms": by_sms}
    letter = letters.of_rental(kind, told, _language(tag))
    return Notice(kind, customer_id, email, phone, erased, chosen, _is_outdated(kind, status, told, message), letter)


def _is_outdated(kind: str, status: str, told: RentalTold, message: Message) -> bool:
    """Whether the rental has gone on so that the letter would no longer tell the truth."""
    true_in = KINDS[kind].true_in
    if true_in is not None and status not in true_in:
        return True
    about, now = message.payload.get("about_at"), clock.now()
    if kind == "rental_held":
        return told.hold_expires_at is not None and told.hold_expires_at <= now
    if kind == "rental_reminder":
        return told.start_at <= now or told.start_at.isoformat() != about
    return kind == "rental_overdue" and told.end_at.isoformat() != about


def _of_invoice(kind: str, message: Message) -> Notice:
    found = invoice_documents.told(message.aggregate_id)
    if found is None:
        raise NothingToTell("no such invoice")
    letter = letters.of_invoice(found.told, found.language)
    paper = Attachment(f"{found.told.number}.pdf", "pdf", invoice_documents.drawn(found.sheet))
    chosen = {"email": found.by_email, "sms": found.by_sms}
    return Notice(kind, found.customer_id, found.email, found.phone, found.erased, chosen, False, letter, (paper,))


def _of_payment(kind: str, message: Message) -> Notice:
    rows = db.recurring(models.PAYMENT_TOLD, (message.aggregate_id,))
    if not rows:
        raise NothingToTell("no such payment is captured")
    customer_id, first_name, email, phone, tag, erased, by_email, by_sms, *facts = rows[0]
    chosen = {"email": by_email, "sms": by_sms}
    letter = letters.of_payment(PaymentTold(first_name, *facts), _language(tag))
    return Notice(kind, customer_id, email, phone, erased, chosen, False, letter)


def _of_refund(kind: str, message: Message) -> Notice:
    rows = db.recurring(models.REFUND_TOLD, (message.aggregate_id,))
    if not rows:
        raise NothingToTell("no such refund is settled")
    customer_id, first_name, email, phone, tag, erased, by_email, by_sms, *facts = rows[0]
    chosen = {"email": by_email, "sms": by_sms}
    letter = letters.of_refund(RefundTold(first_name, *facts), _language(tag))
    return Notice(kind, customer_id, email, phone, erased, chosen, False, letter)


def _language(tag: str) -> Language:
    return offered(tag, config.current().default_language)
