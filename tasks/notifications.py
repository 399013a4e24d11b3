"""Sending letters to customers. At least once, with one Message-ID: see fleet.services.notifications."""

from fleet.gateways.mail import MailNotConfigured, MailRefused
from fleet.services import notifications
from fleet.services.notifications import NothingToTell
from fleet.services.outbox import Message
from tasks import consumer, delivery
from tasks.wiring import mailer

HOPELESS = (MailNotConfigured, MailRefused, NothingToTell)


@consumer("notifications.rental_held")
def rental_held(ids: list[str]) -> None:
    """Tell customers that a vehicle is held for them, and until when."""
    _send("notifications.rental_held", ids)


@consumer("notifications.rental_reserved")
def rental_reserved(ids: list[str]) -> None:
    """Tell customers that their reservation stands."""
    _send("notifications.rental_reserved", ids)


@consumer("notifications.rental_changed")
def rental_changed(ids: list[str]) -> None:
    """Tell customers how their booking stands now."""
    _send("notifications.rental_changed", ids)


@consumer("notifications.rental_cancelled")
def rental_cancelled(ids: list[str]) -> None:
    """Tell customers that their booking is cancelled."""
    _send("notifications.rental_cancelled", ids)


@consumer("notifications.invoice_issued")
def invoice_issued(ids: list[str]) -> None:
    """Send customers the receipt of what they owe."""
    _send("notifications.invoice_issued", ids)


def _send(topic: str, ids: list[str]) -> None:
    delivery.one_by_one(ids, _attempt, topic=topic, hopeless=HOPELESS)


def _attempt(message: Message) -> bool:
    return notifications.send(message, mailer())
