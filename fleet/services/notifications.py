"""Telling customers what happened to their rentals, by e-mail.

Every kind is sent at least once: a worker that dies between the mail server's yes and our note of it leaves a letter that is
sent again. A customer is better off with a confirmation twice than without; both carry one Message-ID, the id of the promise,
so that mail programs and people can tell that they are the same.

The mail server is asked between transactions: a `sending` row before, a `sent` or `failed` row after. Nothing waits inside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from fleet.db import db, transaction
from fleet.gateways.mail import Mail, Mailer
from fleet.models import notifications as models
from fleet.models.notifications import Notification
from fleet.rules import letters
from fleet.rules.letters import InvoiceTold, Letter, RentalTold
from fleet.services import outbox
from fleet.services.outbox import Message

# Longer than a worker may take for one task, so that a claim as old as this has lost its worker.
CLAIM_S = 90


class NothingToTell(Exception):
    """A letter is promised about something that does not exist: no repetition helps."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """A letter with the customer whom it goes to; `erased` customers get none."""

    customer_id: UUID
    email: str
    erased: bool
    letter: Letter


def send(message: Message, mailer: Mailer) -> bool:
    """Send the letter that the message asks for and confirm it; False when another worker is sending it right now.

    Raises NothingToTell, and what the mailer raises, after noting that the attempt failed.
    """
    kind = message.topic.partition(".")[2]
    addressed = WRITERS[kind](message.aggregate_id)
    if addressed.erased:
        _finish(message)
        return True
    if not _claim(message, kind, addressed.customer_id):
        return _sent_already(message)
    letter = addressed.letter
    try:
        mailer.send(Mail(message.id, addressed.email, letter.subject, letter.text(), letter.html()))
    except Exception:
        db.execute_sql(models.END_LETTER, {"id": message.id, "status": "failed"})
        raise
    _finish(message)
    return True


def _claim(message: Message, kind: str, customer_id: UUID) -> bool:
    about = {"rental_id": None, "invoice_id": None, f"{message.aggregate_type}_id": message.aggregate_id}
    values = {"id": message.id, "kind": kind, "customer_id": customer_id, "claim_s": CLAIM_S, **about}
    return db.one(models.CLAIM_LETTER, values) is not None


def _sent_already(message: Message) -> bool:
    found = Notification.get_or_none((Notification.id == message.id) & (Notification.status == "sent"))
    if found is None:
        return False
    _finish(message)
    return True


def _finish(message: Message) -> None:
    with transaction():
        db.execute_sql(models.END_LETTER, {"id": message.id, "status": "sent"})
        outbox.receive(message.topic, [message.id])
        outbox.confirm([message.id])


def _of_rental(write: Callable[[RentalTold], Letter]) -> Callable[[UUID], Addressed]:
    def written(rental_id: UUID) -> Addressed:
        row = db.one(models.RENTAL_TOLD, (rental_id,))
        if row is None:
            raise NothingToTell("no such rental")
        customer_id, first_name, email, erased, *told = row
        return Addressed(customer_id, email, erased, write(RentalTold(first_name, *told)))

    return written


def _of_invoice(invoice_id: UUID) -> Addressed:
    row = db.one(models.INVOICE_TOLD, (invoice_id,))
    if row is None:
        raise NothingToTell("no such invoice")
    customer_id, first_name, email, erased, *told = row
    told = [first_name, *told, tuple(db.rows(models.INVOICE_LINES_TOLD, (invoice_id,)))]
    return Addressed(customer_id, email, erased, letters.invoice_issued(InvoiceTold(*told)))


# Every kind of letter, by the second word of its topic.
WRITERS: dict[str, Callable[[UUID], Addressed]] = {
    "rental_held": _of_rental(letters.rental_held),
    "rental_reserved": _of_rental(letters.rental_reserved),
    "rental_changed": _of_rental(letters.rental_changed),
    "rental_cancelled": _of_rental(letters.rental_cancelled),
    "invoice_issued": _of_invoice,
}
