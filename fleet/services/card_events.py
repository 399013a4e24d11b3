"""What the card gateway tells of its own accord. Events come late, twice and in any order: each is taken for what it says of
the present state, once, and what is not the next step from where we are is left alone.
"""

import logging

from fleet import clock
from fleet.db import atomic
from fleet.errors import Unavailable
from fleet.gateways.cards import CardEvent, DisputeTold, IntentTold, RefundTold
from fleet.models.payments import CARD, Dispute, Payment, payment_for_update
from fleet.rules import lifecycles
from fleet.services import card_payments, card_refunds, outbox

log = logging.getLogger("fleet.card_events")

CONSUMER = "stripe.webhook"


@atomic
def take(event: CardEvent) -> bool:
    """Do what follows from an event, in one transaction with its place in the inbox; False when it was taken before.

    Raises Unavailable for one that comes before what it is about: the gateway sends it again.
    """
    if event.told is None or not outbox.receive(CONSUMER, [event.id]):
        return False
    if isinstance(event.told, IntentTold):
        _charge(event.told)
    elif isinstance(event.told, RefundTold):
        card_refunds.settle(event.told.refund_id, event.told.outcome)
    else:
        _dispute(event.told)
    return True


def _charge(told: IntentTold) -> None:
    known = Payment.gateway_reference == told.outcome.reference
    if told.payment_id is not None:
        known |= Payment.id == told.payment_id
    payment = Payment.get_or_none(known & (Payment.method == CARD))
    if payment is None:
        log.info("an event about a charge of somebody else")
    # Without a token the payer confirms in their browser: a card that is declined there may be followed by another.
    elif told.outcome.state == "captured" or payment.reference or told.canceled:
        card_payments.settle(payment.id, told.outcome)


def _dispute(told: DisputeTold) -> None:
    known = Payment.get_or_none(Payment.gateway_reference == told.payment_reference)
    if known is None:
        if Payment.select().where((Payment.status == "pending") & Payment.gateway_reference.is_null()).exists():
            raise Unavailable("It may be about a payment whose charge is not known yet", retry_after_s=60)
        log.info("a dispute about a charge of somebody else")
        return
    payment = payment_for_update(known.id)
    if payment.status == "pending":
        raise Unavailable("The payment is not captured yet", retry_after_s=60)
    dispute = Dispute.get_or_none(Dispute.gateway_reference == told.reference) or _opened(payment, told)
    if dispute is not None and dispute.status == "open" and told.state != "open":
        _close(payment, dispute, won=told.state == "won")


def _opened(payment: Payment, told: DisputeTold) -> Dispute | None:
    if not lifecycles.payment.allows(payment.status, "disputed"):
        log.error("a dispute about a payment that cannot be disputed", extra={"payment_id": payment.id})
        return None
    payment.change(status="disputed")
    dispute: Dispute = Dispute.create(
        status="open",
        payment_id=payment.id,
        amount=told.amount,
        fee_amount=told.fee_amount,
        reason=told.reason,
        gateway_reference=told.reference,
        created_at=clock.now(),
    )
    outbox.promise("accounting.post_dispute", "dispute", dispute.id)
    return dispute


def _close(payment: Payment, dispute: Dispute, *, won: bool) -> None:
    dispute.change(status="won" if won else "lost", closed_at=clock.now())
    payment.change(status="captured" if won else "lost")
    outbox.promise("accounting.post_dispute", "dispute", dispute.id)
