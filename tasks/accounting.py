"""Posting to the ledger what was issued, paid, refunded and disputed."""

from collections.abc import Callable
from uuid import UUID

from fleet.services import ledger, postings
from tasks import consumer, delivery

POST_INVOICE = "accounting.post_invoice"
POST_PAYMENT = "accounting.post_payment"
POST_REFUND = "accounting.post_refund"
POST_REJECTION = "accounting.post_rejection"
POST_DISPUTE = "accounting.post_dispute"


@consumer(POST_INVOICE)
def post_invoice(ids: list[str]) -> None:
    """Post the entries of issued invoices, a batch in one transaction. However often it is asked for, an invoice has one."""
    _post(POST_INVOICE, ids, ledger.post_invoices)


@consumer(POST_PAYMENT)
def post_payment(ids: list[str]) -> None:
    """Post captured payments."""
    _post(POST_PAYMENT, ids, postings.post_payments)


@consumer(POST_REFUND)
def post_refund(ids: list[str]) -> None:
    """Post refunds as far as they have come."""
    _post(POST_REFUND, ids, postings.post_refunds)


@consumer(POST_REJECTION)
def post_rejection(ids: list[str]) -> None:
    """Post refunds that were rejected. A topic of its own, for a worker of the release before would leave that out."""
    _post(POST_REJECTION, ids, postings.post_refunds)


@consumer(POST_DISPUTE)
def post_dispute(ids: list[str]) -> None:
    """Post disputes as far as they have come."""
    _post(POST_DISPUTE, ids, postings.post_disputes)


def _post(topic: str, ids: list[str], post: Callable[[list[UUID]], int]) -> None:
    delivery.together(topic, ids, lambda messages: post([message.aggregate_id for message in messages]))
