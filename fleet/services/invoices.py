"""Issuing invoices and reading them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from fleet import clock, config
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import NotFound
from fleet.models.base import Condition, in_state
from fleet.models.invoices import INVOICES, INVOICES_WITH_LINES, ISSUE, Invoice, invoices_seen_by
from fleet.rules import events as told
from fleet.rules import money
from fleet.rules.pricing import Line, TaxedLine, Terms, taxed
from fleet.services import events, outbox


class Billed(Protocol):
    """What an invoice needs to know of its rental."""

    @property
    def id(self) -> UUID: ...
    @property
    def customer_id(self) -> UUID: ...
    @property
    def terms(self) -> Mapping[str, Any]: ...


@atomic
def issue(actor: Actor, rental: Billed, lines: Sequence[Line]) -> Invoice | None:
    """Issue the invoice over what a rental costs, in the caller's transaction; None when there is nothing to bill.

    Its ledger entry and its mail are promised with it. Call it last: it ends with locking the number's counter, and
    every other issue waits for that until the transaction is over. Raises AmountTooLarge.
    """
    terms = Terms.from_json(rental.terms)
    billed = [taxed(line, terms.tax_code, terms.tax_bps) for line in lines if line.net_amount]
    if not billed:
        return None
    invoice_id = clock.new_id()
    outbox.promise("accounting.post_invoice", "invoice", invoice_id, {})
    outbox.promise("notifications.invoice_issued", "invoice", invoice_id, {})
    return _insert(invoice_id, rental, terms.currency, billed)


def listed(
    actor: Actor,
    *,
    after: UUID | None,
    limit: int,
    status: str | None = None,
    customer_id: UUID | None = None,
    rental_id: UUID | None = None,
    number: str | None = None,
) -> list[dict[str, Any]]:
    """A page of the invoices that the actor may see, newest first."""
    conditions = [invoices_seen_by(actor)]
    asked = {"customer_id": customer_id, "rental_id": rental_id, "number": number}
    conditions += [Condition(f"invoice.{name} = %s", (value,)) for name, value in asked.items() if value is not None]
    if status is not None:
        conditions.append(in_state("invoice.status", status))
    return [_with_overdue(row) for row in INVOICES.page(conditions, after=after, limit=limit)]


def shown(actor: Actor, invoice_id: UUID) -> dict[str, Any]:
    """One invoice with its lines. Raises NotFound."""
    found = INVOICES_WITH_LINES.first([invoices_seen_by(actor), Condition("invoice.id = %s", (invoice_id,))])
    if found is None:
        raise NotFound()
    return _with_overdue(found)


def of_customer(customer_id: UUID, *, limit: int) -> list[dict[str, Any]]:
    """The customer's invoices with their lines, newest first; one more than `limit` where there are more."""
    conditions = [Condition("invoice.customer_id = %s", (customer_id,))]
    return [_with_overdue(row) for row in INVOICES_WITH_LINES.page(conditions, after=None, limit=limit)]


def _insert(invoice_id: UUID, rental: Billed, currency: str, billed: list[TaxedLine]) -> Invoice:
    issued_at = clock.now()
    net, tax = sum(item.line.net_amount for item in billed), sum(item.tax_amount for item in billed)
    values = {
        "id": invoice_id,
        "customer_id": rental.customer_id,
        "rental_id": rental.id,
        "currency": currency,
        "net_amount": net,
        "tax_amount": tax,
        "total_amount": money.amount(net + tax),
        "issued_at": issued_at,
        "due_at": issued_at + timedelta(days=config.current().payment_terms_days),
    }
    made = {"status": "open", "created_at": issued_at, "updated_at": issued_at}
    data = told.of_invoice({**values, **made, "version": 1}, [_shown(item) for item in billed])
    event = {"event_id": clock.new_id(), "data": events.as_json(data)}
    row = db.one(ISSUE, {**values, **_columns(billed), **event})
    assert row is not None  # noqa: S101 - an insert answers with its row or raises
    return Invoice(**values, **made, number=row[0])


def _shown(item: TaxedLine) -> dict[str, Any]:
    """A line as `shown` reads it."""
    return {
        "type": item.line.type,
        "rule": item.line.rule,
        "description": item.line.description,
        "quantity": item.line.quantity,
        "unit_amount": item.line.unit_amount,
        "net_amount": item.line.net_amount,
        "tax_code": item.tax_code,
        "tax_bps": item.tax_bps,
        "tax_amount": item.tax_amount,
        "gross_amount": item.gross_amount,
    }


def _columns(billed: list[TaxedLine]) -> dict[str, list[Any]]:
    """The lines turned on their side: one array a column, so that one statement writes them all."""
    return {
        "position": list(range(1, len(billed) + 1)),
        "type": [item.line.type for item in billed],
        "rule": [item.line.rule for item in billed],
        "description": [item.line.description for item in billed],
        "quantity": [item.line.quantity for item in billed],
        "unit_amount": [item.line.unit_amount for item in billed],
        "line_net": [item.line.net_amount for item in billed],
        "tax_code": [item.tax_code for item in billed],
        "tax_bps": [item.tax_bps for item in billed],
        "line_tax": [item.tax_amount for item in billed],
    }


def _with_overdue(row: dict[str, Any]) -> dict[str, Any]:
    """Overdue is read off the clock and never stored."""
    row["overdue"] = row["status"] == "open" and row["due_at"] < clock.now()
    return row
