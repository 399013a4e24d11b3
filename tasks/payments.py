"""What is asked of the card gateway later. It talks to the outside, so it has the lane of `default`, and holds up no sweep.

However often it is asked for, the gateway charges or gives back once.
"""

import logging

from fleet.gateways.cards import CardsNotConfigured
from fleet.services import card_payments, card_refunds
from fleet.services.outbox import Message
from tasks import consumer, delivery, sweep
from tasks.wiring import cards

log = logging.getLogger("tasks.payments")

SEND_REFUND = "payments.send_refund"


@consumer(SEND_REFUND)
def send_refund(ids: list[str]) -> None:
    """Send approved refunds to the gateway."""
    gateway = cards()
    wait_s = gateway.wait_s if gateway else _at_once
    delivery.one_by_one(ids, _attempt, topic=SEND_REFUND, hopeless=(CardsNotConfigured,), wait_s=wait_s)


def _at_once() -> float:
    """There is no gateway to wait for: it is told at once that there is none."""
    return 0.0


def _attempt(message: Message) -> bool:
    return card_refunds.send(message, cards())


@sweep("payments.settle_pending")
def settle_pending() -> None:
    """Ask the card gateway what became of payments and refunds that nobody has heard of."""
    gateway = cards()
    if gateway is not None:
        settled = {"payments": card_payments.settle_pending(gateway), "refunds": card_refunds.settle_sent(gateway)}
        log.info("settled by looking", extra=settled)
