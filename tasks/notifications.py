"""Sending letters and text messages to customers, and letters about their accounts to users.

E-mail at least once with one Message-ID, text messages at most once: see fleet.services.notifications.
"""

from collections.abc import Callable
from functools import partial

from fleet.gateways.mail import MailNotConfigured, MailRefused
from fleet.gateways.sms import SmsNotConfigured, SmsRefused
from fleet.services import account_letters, notifications
from fleet.services.notifications import NothingToTell
from fleet.services.outbox import Message
from tasks import consumer, delivery
from tasks.wiring import mailer, sms_gateway

HOPELESS = (MailNotConfigured, MailRefused, SmsNotConfigured, SmsRefused, NothingToTell)


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


@consumer("notifications.rental_expired")
def rental_expired(ids: list[str]) -> None:
    """Tell customers that nothing is held for them any more."""
    _send("notifications.rental_expired", ids)


@consumer("notifications.rental_reminder")
def rental_reminder(ids: list[str]) -> None:
    """Remind customers of a rental that begins soon."""
    _send("notifications.rental_reminder", ids)


@consumer("notifications.rental_overdue")
def rental_overdue(ids: list[str]) -> None:
    """Ask customers to bring a vehicle back whose time is over."""
    _send("notifications.rental_overdue", ids)


@consumer("notifications.rental_no_show")
def rental_no_show(ids: list[str]) -> None:
    """Tell customers that their booking is closed, because they did not come."""
    _send("notifications.rental_no_show", ids)


@consumer("notifications.invoice_issued")
def invoice_issued(ids: list[str]) -> None:
    """Send customers the receipt of what they owe."""
    _send("notifications.invoice_issued", ids)


@consumer("notifications.payment_received")
def payment_received(ids: list[str]) -> None:
    """Send customers the receipt of what they paid."""
    _send("notifications.payment_received", ids)


@consumer("notifications.payment_refunded")
def payment_refunded(ids: list[str]) -> None:
    """Tell customers that they got money back."""
    _send("notifications.payment_refunded", ids)


@consumer("notifications.password_reset")
def password_reset(ids: list[str]) -> None:
    """Send users the link with which they set a new password."""
    _send("notifications.password_reset", ids, account_letters.send)


@consumer("notifications.email_verification")
def email_verification(ids: list[str]) -> None:
    """Send users the link with which they show that the address is theirs."""
    _send("notifications.email_verification", ids, account_letters.send)


@consumer("notifications.password_changed")
def password_changed(ids: list[str]) -> None:
    """Tell users that their password was changed."""
    _send("notifications.password_changed", ids, account_letters.send)


@consumer("notifications.session_breached")
def session_breached(ids: list[str]) -> None:
    """Tell users that a refresh token of theirs was used twice."""
    _send("notifications.session_breached", ids, account_letters.send)


@consumer("notifications.second_factor_enabled")
def second_factor_enabled(ids: list[str]) -> None:
    """Tell users that they are asked for a code from now on."""
    _send("notifications.second_factor_enabled", ids, account_letters.send)


@consumer("notifications.second_factor_removed")
def second_factor_removed(ids: list[str]) -> None:
    """Tell users that they are asked for no code any more."""
    _send("notifications.second_factor_removed", ids, account_letters.send)


@consumer("notifications.second_factor_locked")
def second_factor_locked(ids: list[str]) -> None:
    """Tell users that somebody who knows their password tried codes."""
    _send("notifications.second_factor_locked", ids, account_letters.send)


@consumer("notifications.sms")
def sms(ids: list[str]) -> None:
    """Send the text messages that letters promised beside themselves."""
    delivery.one_by_one(ids, _attempt_sms, topic="notifications.sms", hopeless=HOPELESS, wait_s=sms_gateway().wait_s)


def _send(topic: str, ids: list[str], send: Callable[..., bool] = notifications.send) -> None:
    """Letters share one session with the mail server; what happens to one of them does not touch the others."""
    with mailer().session() as session:
        attempt = partial(send, session=session)
        delivery.one_by_one(ids, attempt, topic=topic, hopeless=HOPELESS, wait_s=session.wait_s)


def _attempt_sms(message: Message) -> bool:
    return notifications.send_sms(message, sms_gateway())
