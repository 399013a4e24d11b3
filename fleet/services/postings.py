"""The ledger's entries of payments, refunds and disputes, each written once however often it is asked for."""

from collections.abc import Iterable
from datetime import date
from uuid import UUID

from fleet import clock
from fleet.db import atomic, db
from fleet.models.ledger import Entry, EntryLine, write_entries
from fleet.models.payments import DISPUTES_TO_POST, PAYMENTS_TO_POST, REFUNDS_TO_POST
from fleet.rules import postings
from fleet.rules.postings import PostingLine
from fleet.services import events

Told = tuple[str, date, str, list[PostingLine]]
"""An event of a fact: its name, its day, the memo and the lines."""


@atomic
def post_payments(payment_ids: list[UUID]) -> int:
    """Post what was captured, in the caller's transaction; returns how many entries were new."""
    entries: list[Entry] = []
    for payment_id, number, currency, method, amount, day in db.rows(PAYMENTS_TO_POST, (list(payment_ids),)):
        told = ("captured", day, f"Payment of {number}", postings.payment_captured(method, amount))
        entries += _entries("payment", payment_id, currency, [told])
    return _written(entries)


@atomic
def post_refunds(refund_ids: list[UUID]) -> int:
    """Post as much of each refund as has happened by now: requested, and then settled, failed or rejected."""
    entries: list[Entry] = []
    for refund_id, number, currency, method, amount, asked, *ended in db.rows(REFUNDS_TO_POST, (list(refund_ids),)):
        settled, failed, rejected = ended
        memo = f"Refund on {number}"
        told = [("requested", asked, memo, postings.refund_requested(amount))]
        if settled:
            told.append(("settled", settled, memo, postings.refund_settled(method, amount)))
        if failed:
            told.append(("failed", failed, f"Failed: {memo}", postings.refund_failed(amount)))
        if rejected:
            told.append(("rejected", rejected, f"Rejected: {memo}", postings.refund_rejected(amount)))
        entries += _entries("refund", refund_id, currency, told)
    return _written(entries)


@atomic
def post_disputes(dispute_ids: list[UUID]) -> int:
    """Post as much of each dispute as has happened by now: opened, and then won or lost."""
    entries: list[Entry] = []
    for dispute_id, number, currency, amount, fee, status, opened, closed in db.rows(DISPUTES_TO_POST, (list(dispute_ids),)):
        memo = f"Dispute on {number}"
        told = [("opened", opened, memo, postings.dispute_opened(amount, fee))]
        if status != "open":
            ended = postings.dispute_won if status == "won" else postings.dispute_lost
            told.append((status, closed, memo, ended(amount)))
        entries += _entries("dispute", dispute_id, currency, told)
    return _written(entries)


def _written(entries: list[Entry]) -> int:
    written = write_entries(entries)
    if written:
        events.of_entries(written)
    return len(written)


def _entries(source_type: str, source_id: UUID, currency: str, told: Iterable[Told]) -> list[Entry]:
    return [
        Entry(
            id=clock.new_id(),
            booked_on=day,
            memo=memo,
            source_type=source_type,
            source_id=source_id,
            event=event,
            lines=tuple(EntryLine(line.account, line.side, line.amount, currency) for line in lines),
        )
        for event, day, memo, lines in told
    ]
