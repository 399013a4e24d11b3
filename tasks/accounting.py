"""Posting to the ledger what was issued."""

from fleet.services import ledger
from tasks import consumer, delivery

POST_INVOICE = "accounting.post_invoice"


@consumer(POST_INVOICE)
def post_invoice(ids: list[str]) -> None:
    """Post the entries of issued invoices, a batch in one transaction. However often it is asked for, an invoice has one."""
    delivery.together(POST_INVOICE, ids, lambda messages: ledger.post_invoices([message.aggregate_id for message in messages]))
