"""Refunds of card payments, sent through the gateway by a worker: row, call, row, as for the charge."""

import logging
import time
from datetime import timedelta
from uuid import UUID

from fleet import clock
from fleet.db import atomic, db, transaction
from fleet.gateways.cards import CardGateway, CardsNotConfigured, CardsUnavailable, NotShown, RefundOrder, RefundOutcome
from fleet.models.payments import CLAIM_SENT_REFUNDS, Payment, Refund, payment_for_update
from fleet.services import outbox, refunds
from fleet.services.outbox import Message

log = logging.getLogger("fleet.card_refunds")

# What the gateway has accepted and not settled tells of itself by a webhook; this is for one that was lost.
LOOK_AGAIN = timedelta(hours=1)
SWEEP_BUDGET_S = 15.0


def send(message: Message, cards: CardGateway | None) -> bool:
    """Send the refund that the message asks for, settle it as the gateway says, and confirm the message.

    Raises CardsNotConfigured, CardsUnavailable: then the refund stays sent, and the next delivery asks with the same key.
    """
    if cards is None:
        raise CardsNotConfigured("STRIPE_API_KEY is not set")
    order = _begin(message.aggregate_id)
    outcome = cards.refund(order) if order else None
    with transaction():
        if outcome:
            settle(message.aggregate_id, outcome)
        outbox.receive(message.topic, [message.id])
        outbox.confirm([message.id])
    return True


@atomic
def settle(refund_id: UUID, outcome: RefundOutcome) -> Refund | None:
    """Write what became of a refund that was sent; None when there is no such refund. Settled or failed, it stays so."""
    known = Refund.get_or_none(Refund.id == refund_id)
    if known is None:
        return None
    payment = payment_for_update(known.payment_id)
    refund: Refund = Refund.get_by_id(refund_id)
    if refund.status != "sent":
        if refund.status == "settled" and outcome.state == "failed":
            log.error("a settled refund has failed after all", extra={"refund_id": refund.id})
        return refund
    if outcome.reference and not refund.gateway_reference:
        refund.change(gateway_reference=outcome.reference)
    if outcome.state == "settled":
        refunds.settle(refund)
    elif outcome.state == "failed":
        _fail(payment, refund, outcome.failure_code or "refused")
    else:
        refund.change(attempt_ends_at=clock.now() + LOOK_AGAIN)
    return refund


def settle_sent(cards: CardGateway, *, limit: int = 50) -> int:
    """Ask about refunds that were accepted long ago; returns how many came to their end. Two sweeps at once share them.

    What SWEEP_BUDGET_S leaves over is looked at an hour later.
    """
    settled, deadline = 0, time.monotonic() + SWEEP_BUDGET_S
    for (refund_id,) in db.rows(CLAIM_SENT_REFUNDS, {"limit": limit, "attempt_s": LOOK_AGAIN.total_seconds()}):
        if time.monotonic() > deadline:
            break
        refund: Refund = Refund.get_by_id(refund_id)
        try:
            outcome = cards.find_refund(_order(refund, Payment.get_by_id(refund.payment_id)))
        except NotShown as lost:
            log.error("refund not shown", extra={"refund_id": refund.id, "cause": f"{lost}"})
            continue
        except CardsUnavailable as away:
            log.warning("card gateway away", extra={"refund_id": refund.id, "cause": f"{away}"})
            break
        ended = settle(refund.id, outcome)
        settled += ended is not None and ended.status != "sent"
    return settled


@atomic
def _begin(refund_id: UUID) -> RefundOrder | None:
    """What to ask for; None when there is nothing left to do. The refund is sent from here on, whatever happens next."""
    payment = payment_for_update(Refund.get_by_id(refund_id).payment_id)
    refund: Refund = Refund.get_by_id(refund_id)
    if refund.status == "approved":
        refund.change(status="sent", sent_at=clock.now())
    return _order(refund, payment) if refund.status == "sent" else None


def _order(refund: Refund, payment: Payment) -> RefundOrder:
    return RefundOrder(refund.id, payment.gateway_reference or "", refund.amount, refund.gateway_reference)


def _fail(payment: Payment, refund: Refund, code: str) -> None:
    """What did not go back can be given back again."""
    refund.change(status="failed", failed_at=clock.now(), failure_code=code, attempt_ends_at=None)
    payment.change(refunded_amount=payment.refunded_amount - refund.amount)
    outbox.promise("accounting.post_refund", "refund", refund.id)
