"""/v1/invoices"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from flask import Blueprint, g, request

from fleet.http import Answer, answer, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import DocumentNumber, Id, PageQuery, View
from fleet.rules.priorities import Priority
from fleet.services import invoice_documents, invoices

bp = Blueprint("invoices", __name__, url_prefix="/v1/invoices")

Status = Literal["draft", "open", "paid", "void", "written_off"]


class InvoiceLineView(View):
    type: str
    rule: str
    description: str
    quantity: int
    unit_amount: int
    net_amount: int
    tax_code: str
    tax_bps: int
    tax_amount: int
    gross_amount: int


class InvoiceSummary(View):
    """Amounts are in minor units of the currency; the balance is what is neither settled nor credited.

    `pending_amount` is the part of the balance that card payments under way have asked for.
    """

    id: UUID
    number: str | None
    status: Status
    overdue: bool
    customer_id: UUID
    rental_id: UUID | None
    currency: str
    net_amount: int
    tax_amount: int
    total_amount: int
    settled_amount: int
    credited_amount: int
    pending_amount: int
    balance_amount: int
    issued_at: datetime | None
    due_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class InvoiceView(InvoiceSummary):
    lines: list[InvoiceLineView]


class InvoiceQuery(PageQuery):
    status: Status | None = None
    customer_id: Id | None = None
    rental_id: Id | None = None
    number: DocumentNumber | None = None


@bp.get("")
@operation("invoices.read", query=InvoiceQuery, answer=InvoiceSummary, listed=True)
def index(query: InvoiceQuery) -> Answer:
    """List invoices, without their lines."""
    asked = {"status": query.status, "customer_id": query.customer_id, "rental_id": query.rental_id, "number": query.number}
    return page_answer(page(query, invoices.listed, lambda row: shape(InvoiceSummary, row), actor=g.actor, **asked))


@bp.get("/<uuid:invoice_id>")
@operation("invoices.read", answer=InvoiceView)
def show(invoice_id: UUID) -> Answer:
    """Show an invoice with its lines."""
    invoice = invoices.shown(g.actor, invoice_id)
    return answer(shape(InvoiceView, invoice), version=invoice["version"])


@bp.get("/<uuid:invoice_id>.pdf")
@operation("invoices.read", media=("application/pdf",), cost=20, problems=("invalid_state",), priority=Priority.DEFERRABLE)
def document(invoice_id: UUID) -> Answer:
    """Show an issued invoice on paper, as PDF."""
    sheet = invoice_documents.sheet_seen(g.actor, invoice_id)
    known = request.if_none_match.contains(sheet.tag)
    response = Answer(b"" if known else invoice_documents.drawn(sheet), 304 if known else 200, mimetype="application/pdf")
    response.set_etag(sheet.tag)
    response.headers["Content-Disposition"] = f'inline; filename="{sheet.number}.pdf"'
    return response
