"""/v1/payments and /v1/refunds"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Blueprint, current_app, g
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fleet import deadline
from fleet.http import Answer, answer, if_match, made, operation, page_answer, shape, told
from fleet.idempotency import Claim, StoredAnswer
from fleet.paging import page
from fleet.parsing import Amount, Currency, Id, Input, Line, PageQuery, View
from fleet.rules.cards import holds_card_number
from fleet.rules.priorities import Priority
from fleet.services import card_payments, payments, refunds
from fleet.services.payments import Wish

bp = Blueprint("payments", __name__)

Method = Literal["cash", "bank_transfer", "wallet", "card"]
PaymentStatus = Literal["pending", "captured", "failed", "disputed", "lost"]
RefundStatus = Literal["requested", "approved", "rejected", "sent", "settled", "failed"]


def _no_card_number(text: str) -> str:
    if holds_card_number(text):
        raise PydanticCustomError("card_number", "must not hold a card number")
    return text


Words = Annotated[Line, AfterValidator(_no_card_number)]


class PaymentView(View):
    """Amounts are in minor units of the currency. `refundable_amount` is what can still be given back."""

    id: UUID
    status: PaymentStatus
    invoice_id: UUID
    customer_id: UUID
    currency: str
    amount: int
    refunded_amount: int
    refundable_amount: int
    method: Method
    reference: str | None
    failure_code: str | None
    captured_at: datetime | None
    failed_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class PaymentBegun(PaymentView):
    """`client_secret` is there while the payer has to confirm; it is told once and kept nowhere."""

    client_secret: str | None


class PaymentQuery(PageQuery):
    invoice_id: Id | None = None
    customer_id: Id | None = None
    status: PaymentStatus | None = None
    method: Method | None = None


class CreatePayment(Input):
    invoice_id: Id
    amount: Amount
    currency: Currency
    method: Method
    reference: Annotated[
        Words | None, Field(description="What the payer or the bank calls it; for a card, the gateway's token of it (`pm_...`)")
    ] = None

    def as_wish(self) -> Wish:
        return Wish(self.invoice_id, self.amount, self.currency, self.method, self.reference)


class RefundView(View):
    """Money that goes back the way it came. The staff's words, `reason` and `rejection_reason`, are shown to staff only."""

    id: UUID
    status: RefundStatus
    payment_id: UUID
    amount: int
    currency: str
    method: Method
    reason: str | None
    needs_approval: bool
    failure_code: str | None
    approved_at: datetime | None
    rejected_at: datetime | None
    rejection_reason: str | None
    sent_at: datetime | None
    settled_at: datetime | None
    failed_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class RefundQuery(PageQuery):
    status: RefundStatus | None = None
    customer_id: Id | None = None


class RequestRefund(Input):
    amount: Annotated[Amount | None, Field(description="All that is left, unless given")] = None
    currency: Annotated[Currency | None, Field(description="The payment's, if given")] = None
    reason: Words | None = None


class RejectRefund(Input):
    reason: Words


@bp.get("/v1/payments")
@operation("payments.read", query=PaymentQuery, answer=PaymentView, listed=True)
def index(query: PaymentQuery) -> Answer:
    """List payments, newest first."""
    asked = {"invoice_id": query.invoice_id, "customer_id": query.customer_id, "status": query.status, "method": query.method}
    return page_answer(page(query, payments.listed, lambda row: shape(PaymentView, row), actor=g.actor, **asked))


@bp.post("/v1/payments")
@operation(
    "payments.create",
    body=CreatePayment,
    answer=PaymentBegun,
    status=201,
    idempotent=True,
    key_required=True,
    claimed_by_service=True,
    problems=("not_found", "invalid_state", "overpayment", "payment_declined", "card_payments_disabled"),
    priority=Priority.URGENT,
)
def create(body: CreatePayment, claim: Claim) -> Answer:
    """Pay an open invoice, all of it or in part.

    Money in cash, by bank transfer or wallet is recorded by staff. The invoice is paid when nothing is left. A card is charged
    through the gateway. With its token as `reference` at once: captured, or 402 payment_declined. Without one, or when the
    payer has to prove who they are, the payment is pending and `client_secret` lets their browser confirm it. A 503 means that
    the outcome is not known: the same request with the same key asks again and never charges twice.
    """
    if body.method == "card":
        deadline.allow(current_app.extensions["fleet"].settings.card_deadline_ms / 1000)
        cards = current_app.extensions["fleet"].cards
        return told(card_payments.pay(g.actor, body.as_wish(), claim=claim, answer_of=_created, cards=cards))
    return told(payments.record(g.actor, body.as_wish(), claim=claim, answer_of=_created))


@bp.get("/v1/payments/<uuid:payment_id>")
@operation("payments.read", answer=PaymentView)
def show(payment_id: UUID) -> Answer:
    """Show a payment."""
    payment = payments.shown(g.actor, payment_id)
    return answer(shape(PaymentView, payment), version=payment["version"])


@bp.get("/v1/payments/<uuid:payment_id>/refunds")
@operation("payments.read", query=PageQuery, answer=RefundView, listed=True)
def refunds_of_payment(payment_id: UUID, query: PageQuery) -> Answer:
    """List a payment's refunds, newest first."""
    shaped = page(query, refunds.of_payment, _shape_refund, actor=g.actor, payment_id=payment_id)
    return page_answer(shaped)


@bp.post("/v1/payments/<uuid:payment_id>/refunds")
@operation(
    "refunds.request",
    body=RequestRefund,
    answer=RefundView,
    status=201,
    idempotent=True,
    key_required=True,
    problems=("invalid_state", "refund_exceeds_payment"),
    priority=Priority.URGENT,
)
def request_refund(payment_id: UUID, body: RequestRefund) -> Answer:
    """Give a payment back, all that is left of it or a part.

    When the payment's refunds come to more than the house's limit, a second person has to approve.
    """
    refund = refunds.request(g.actor, payment_id, amount=body.amount, currency=body.currency, reason=body.reason)
    return _refund(refund.id, 201, location=f"/v1/refunds/{refund.id}")


@bp.get("/v1/refunds")
@operation("payments.read", query=RefundQuery, answer=RefundView, listed=True)
def index_refunds(query: RefundQuery) -> Answer:
    """List refunds, newest first: with `status=requested` those that wait for a second person."""
    asked = {"status": query.status, "customer_id": query.customer_id}
    return page_answer(page(query, refunds.listed, _shape_refund, actor=g.actor, **asked))


@bp.get("/v1/refunds/<uuid:refund_id>")
@operation("payments.read", answer=RefundView)
def show_refund(refund_id: UUID) -> Answer:
    """Show a refund."""
    return _refund(refund_id)


@bp.post("/v1/refunds/<uuid:refund_id>/approve")
@operation(
    "refunds.approve",
    answer=RefundView,
    if_match=True,
    idempotent=True,
    problems=("invalid_state", "second_person_required"),
)
def approve_refund(refund_id: UUID) -> Answer:
    """Approve a refund that somebody else asked for."""
    refunds.approve(g.actor, refund_id, expected_version=if_match(required=False))
    return _refund(refund_id)


@bp.post("/v1/refunds/<uuid:refund_id>/reject")
@operation(
    "refunds.approve",
    body=RejectRefund,
    answer=RefundView,
    if_match=True,
    idempotent=True,
    problems=("invalid_state",),
)
def reject_refund(refund_id: UUID, body: RejectRefund) -> Answer:
    """Reject a refund that nobody has approved yet. Its amount can be given back again."""
    refunds.reject(g.actor, refund_id, reason=body.reason, expected_version=if_match(required=False))
    return _refund(refund_id)


def _refund(refund_id: UUID, status: int = 200, *, location: str | None = None) -> Answer:
    found = refunds.shown(g.actor, refund_id)
    return answer(_shape_refund(found), status, version=found["version"], location=location)


def _shape_refund(row: dict[str, Any]) -> dict[str, Any]:
    shaped = shape(RefundView, row)
    return shaped if g.actor.can("payments.read_all") else {**shaped, "reason": None, "rejection_reason": None}


def _created(payment: dict[str, Any], client_secret: str | None = None) -> StoredAnswer:
    location = f"/v1/payments/{payment['id']}"
    begun = {**shape(PaymentView, payment), "client_secret": client_secret}
    return made(begun, version=payment["version"], location=location)
