"""Taking money for invoices. How a card payment goes is told in fleet.services.card_payments."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Conflict, Invalid, InvalidState, NotFound
from fleet.idempotency import Claim, Given, StoredAnswer
from fleet.models.base import Condition, in_state
from fleet.models.invoices import Invoice, invoice_for_update, invoices_seen_by
from fleet.models.payments import CARD, PAYMENTS, Payment, payments_seen_by
from fleet.services import events, outbox

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be paid, as it was asked for; the amount is in minor units of the currency."""

    invoice_id: UUID
    amount: int
    currency: str
    method: str
    reference: str | None


def listed(
    actor: Actor,
    *,
    after: UUID | None,
    limit: int,
    invoice_id: UUID | None = None,
    customer_id: UUID | None = None,
    status: str | None = None,
    method: str | None = None,
) -> list[Document]:
    """A page of the payments that the actor may see, newest first."""
    conditions = [payments_seen_by(actor)]
    asked = {"invoice_id": invoice_id, "customer_id": customer_id, "method": method}
    conditions += [Condition(f"payment.{name} = %s", (value,)) for name, value in asked.items() if value is not None]
    if status is not None:
        conditions.append(in_state("payment.status", status))
    return PAYMENTS.page(conditions, after=after, limit=limit)


def shown(actor: Actor, payment_id: UUID) -> Document:
    """One payment. Raises NotFound, also for one that is not the actor's."""
    found = PAYMENTS.first([payments_seen_by(actor), Condition("payment.id = %s", (payment_id,))])
    if found is None:
        raise NotFound()
    return found


def of_customer(customer_id: UUID, *, limit: int) -> list[Document]:
    """The customer's payments, newest first; one more than `limit` where there are more."""
    return PAYMENTS.page([Condition("payment.customer_id = %s", (customer_id,))], after=None, limit=limit)


@atomic
def record(actor: Actor, wish: Wish, *, claim: Claim, answer_of: Callable[[Document], StoredAnswer]) -> Given:
    """Note money that somebody took, exactly once for one key: it settles the invoice, and its entry is promised.

    Raises NotFound, Forbidden, Conflict `overpayment`, InvalidState, Invalid for another currency, InProgress.
    """
    actor.must("payments.record")
    first = claim.take()
    if first is not None:
        return Given(first, replayed=True)
    invoice = payable_for_update(actor, wish)
    payment = payment_of(actor, invoice, wish, status="captured", captured_at=clock.now())
    settle_invoice(invoice, payment)
    answer = answer_of(shown(actor, payment.id))
    claim.keep(answer)
    return Given(answer, replayed=False)


def payable_for_update(actor: Actor, wish: Wish) -> Invoice:
    """The invoice, locked, once it is known that this can be paid on it: of two payments at once the second one looks
    at what the first one left. Raises NotFound, Invalid, InvalidState, Conflict `overpayment`.
    """
    invoice = invoice_for_update(wish.invoice_id, invoices_seen_by(actor))
    if wish.currency != invoice.currency:
        raise Invalid.field("currency", "other_currency", f"the invoice is in {invoice.currency}")
    if invoice.status not in ("open", "paid"):
        raise InvalidState(f"A {invoice.status} invoice takes no payments")
    if wish.amount > invoice.balance:
        raise Conflict(
            f"{invoice.balance} is left to pay", code="overpayment", extra={"balance_amount": max(0, invoice.balance)}
        )
    return invoice


def payment_of(actor: Actor, invoice: Invoice, wish: Wish, **state: Any) -> Payment:
    """Write the payment's row."""
    payment: Payment = Payment.create(
        invoice_id=invoice.id,
        customer_id=invoice.customer_id,
        currency=invoice.currency,
        amount=wish.amount,
        method=wish.method,
        reference=wish.reference,
        recorded_by=actor.user_id,
        **state,
    )
    return payment


def settle_invoice(invoice: Invoice, payment: Payment) -> None:
    """Count what was captured on its locked invoice, which is paid when nothing is left; promise its entry and its receipt."""
    pending = invoice.pending_amount - (payment.amount if payment.method == CARD else 0)
    settled = invoice.settled_amount + payment.amount
    status = "paid" if settled + invoice.credited_amount == invoice.total_amount else invoice.status
    invoice.change(settled_amount=settled, pending_amount=pending, status=status)
    outbox.promise("accounting.post_payment", "payment", payment.id)
    outbox.promise("notifications.payment_received", "payment", payment.id)
    events.of_payment(payment.id)
