"""The parts that one process shares, made once from the settings; reached as `current_app.extensions["fleet"]`."""

import hashlib
import hmac
from dataclasses import dataclass
from functools import cached_property

from fleet.auth import Tokens
from fleet.config import Settings
from fleet.gateways import stripe_cards
from fleet.gateways.board import Board
from fleet.gateways.broker import BrokerGauge
from fleet.gateways.cards import CardGateway
from fleet.limits import Limits
from fleet.services.circuit_breakers import Sharing
from fleet.services.queues import Watch


@dataclass
class Wiring:
    settings: Settings
    tokens: Tokens
    limits: Limits

    @cached_property
    def watch(self) -> Watch:
        """Looks at the queues, for the operators' page and for metrics."""
        return Watch(BrokerGauge(self.settings.broker_url))

    @cached_property
    def breakers(self) -> Sharing:
        """This process's part in what all processes know of their circuit breakers; gunicorn's settings start it."""
        return Sharing(Board(self.settings.redis_url), "web")

    @cached_property
    def cards(self) -> CardGateway | None:
        """The way that card payments go; None where there is none."""
        return stripe_cards.gateway(self.settings)

    @cached_property
    def cursor_keys(self) -> tuple[bytes, ...]:
        """The first one signs list cursors; derived, so that a cursor never speaks for another secret of ours."""
        return self._derived(b"fleet cursors")

    @cached_property
    def fingerprint_keys(self) -> tuple[bytes, ...]:
        """Make stored fingerprints of requests worthless to a guesser: some of those requests carry a password."""
        return self._derived(b"fleet request fingerprints")

    def _derived(self, purpose: bytes) -> tuple[bytes, ...]:
        return tuple(hmac.digest(key.encode(), purpose, hashlib.sha256) for key in self.settings.secret_keys)
