"""Sending refunds of card payments. However often it is asked for, the gateway gives each back once."""

from fleet.gateways.cards import CardsNotConfigured
from fleet.services import card_refunds
from fleet.services.outbox import Message
from tasks import consumer, delivery
from tasks.wiring import cards

SEND_REFUND = "payments.send_refund"


@consumer(SEND_REFUND)
def send_refund(ids: list[str]) -> None:
    """Send approved refunds to the gateway."""
    delivery.one_by_one(ids, _attempt, topic=SEND_REFUND, hopeless=(CardsNotConfigured,))


def _attempt(message: Message) -> bool:
    return card_refunds.send(message, cards())
