"""The one wiring of worker, beat and relay: the settings and logs of the web, and a database that waits longer."""

from functools import cache

from fleet import config, logs
from fleet.config import Settings
from fleet.db import db, refuse_superuser
from fleet.gateways import mail, sms, stripe_cards, webhooks
from fleet.gateways.board import Board
from fleet.gateways.cards import CardGateway
from fleet.gateways.mail import Mailer
from fleet.gateways.sms import SmsGateway
from fleet.services.circuit_breakers import Kind, Sharing

# A batch may take longer than anything that a person waits for.
STATEMENT_TIMEOUT_MS = 20_000


@cache
def settings() -> Settings:
    """The settings of this process. Raises ConfigError when they are incomplete or unsafe."""
    return Settings.load()


@cache
def mailer() -> Mailer:
    """The way that mails go."""
    return mail.mailer(settings())


@cache
def webhook_sender() -> webhooks.Sender:
    """The way that webhooks go."""
    return webhooks.Sender(allow_private=settings().webhook_allow_private)


@cache
def sms_gateway() -> SmsGateway:
    """The way that text messages go."""
    return sms.gateway(settings())


@cache
def cards() -> CardGateway | None:
    """The way that card payments go; None where there is none."""
    return stripe_cards.gateway(settings())


def share_breakers(kind: Kind) -> None:
    """Let this process hear what operators say of circuit breakers, and tell how its own stand. It must fork no more."""
    Sharing(Board(settings().redis_url), kind).start()


def wire() -> None:
    """Prepare the process. Leaves no connection open: the pool's children fork after this, and each opens its own."""
    config.use(settings())
    logs.configure(settings().log_level)
    db.configure(settings(), statement_timeout_ms=STATEMENT_TIMEOUT_MS)
    if settings().production:
        refuse_superuser()
