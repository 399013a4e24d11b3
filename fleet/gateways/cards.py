"""What the house knows of card payments: what is asked of a gateway, what it tells, and how it fails."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

_RETRY_AFTER_S = 5

State = Literal["captured", "failed", "waiting"]


class CardsUnavailable(Exception):
    """Nobody knows whether the call had its effect: it is repeated with the same key, or looked up later."""

    def __init__(self, cause: str, *, retry_after_s: float = _RETRY_AFTER_S) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


class CardsResting(CardsUnavailable):
    """The gateway was not asked: its breaker is open, or too many are asking. Whoever comes again later has lost nothing."""


class NotShown(CardsUnavailable):
    """The gateway is not away, and does not show this one. What became of others it may tell."""


class CardsNotConfigured(Exception):
    """There is no STRIPE_API_KEY. It takes somebody to set it: no repetition helps."""


class BadSignature(Exception):
    """The event is not signed by who knows the secret, or too long ago."""


@dataclass(frozen=True, slots=True)
class Charge:
    """What is asked of a card. `token` is the gateway's name of the card; without one the payer's browser confirms."""

    payment_id: UUID
    amount: int
    currency: str
    token: str | None
    asked_at: datetime
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a charge stands. `client_secret` lets the payer's browser confirm; it is shown to the payer and kept nowhere."""

    state: State
    reference: str | None
    amount: int = 0
    currency: str = ""
    failure_code: str | None = None
    client_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class RefundOrder:
    refund_id: UUID
    payment_reference: str
    amount: int
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class RefundOutcome:
    state: Literal["settled", "failed", "waiting"]
    reference: str | None
    failure_code: str | None = None


@dataclass(frozen=True, slots=True)
class IntentTold:
    """An event about a charge."""

    payment_id: UUID | None
    outcome: Outcome
    canceled: bool


@dataclass(frozen=True, slots=True)
class RefundTold:
    """An event about a refund that we had asked for."""

    refund_id: UUID
    outcome: RefundOutcome


@dataclass(frozen=True, slots=True)
class DisputeTold:
    """An event about money that the cardholder's bank has taken back."""

    reference: str
    payment_reference: str
    amount: int
    fee_amount: int
    reason: str | None
    state: Literal["open", "won", "lost"]


@dataclass(frozen=True, slots=True)
class CardEvent:
    """A signed event; `told` is None for one that is not about what we keep. `id` is the same at every delivery of it."""

    id: UUID
    type: str
    told: IntentTold | RefundTold | DisputeTold | None


class CardGateway(Protocol):
    def place(self) -> AbstractContextManager[None]:
        """A place among those who may ask from the web at once. Raises CardsResting: then nothing need be begun."""

    def wait_s(self) -> float:
        """Seconds until the gateway may be asked, because it is away; else 0."""

    def charge(self, charge: Charge) -> Outcome:
        """Charge the card once, however often it is called for one payment. Raises CardsUnavailable."""

    def find(self, charge: Charge) -> Outcome | None:
        """How the payment's charge stands; None when there is none (yet). Raises CardsUnavailable, NotShown."""

    def void(self, charge: Charge) -> Outcome | None:
        """See to it that the payment is never charged, or tell that it was; None: look again. Raises CardsUnavailable."""

    def refund(self, order: RefundOrder) -> RefundOutcome:
        """Give back once, however often it is called for one refund. Raises CardsUnavailable."""

    def find_refund(self, order: RefundOrder) -> RefundOutcome:
        """How a refund stands that was accepted. Raises CardsUnavailable, NotShown."""

    def event(self, payload: bytes, signature: str) -> CardEvent:
        """What a webhook says. Raises BadSignature, and ValueError for what is no event."""
