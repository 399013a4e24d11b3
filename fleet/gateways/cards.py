"""Card payments through Stripe, by its library: each call with its deadlines, a breaker and an idempotency key.

The key of a charge is the payment's id and that of a refund the refund's, so that a call may be repeated after a time-out
and never charges or pays twice. Nothing of what Stripe says reaches a log or a client but ids and its codes.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Protocol, TypeVar
from uuid import UUID

import requests
import stripe

from fleet import breakers
from fleet.breakers import Breaker
from fleet.config import Settings

T = TypeVar("T")

CONNECT_S, READ_S, TOTAL_S = 2.0, 8.0, 10.0
MAX_ANSWER_BYTES = 1024 * 1024
SIGNATURE_AGE_S = 300
# How far Stripe's clock may be from ours.
CLOCKS_APART = timedelta(minutes=5)
MOST_LOOKED_AT = 5000
_RETRY_AFTER_S = 5

State = Literal["captured", "failed", "waiting"]


class CardsUnavailable(Exception):
    """Nobody knows whether the call had its effect: it is repeated with the same key, or looked up later."""

    def __init__(self, cause: str, *, retry_after_s: float = _RETRY_AFTER_S) -> None:
        super().__init__(cause)
        self.retry_after_s = retry_after_s


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
    def check(self) -> None:
        """Raises CardsUnavailable while the breaker is open: nothing need be begun."""

    def charge(self, charge: Charge) -> Outcome:
        """Charge the card once, however often it is called for one payment. Raises CardsUnavailable."""

    def find(self, charge: Charge) -> Outcome | None:
        """How the payment's charge stands; None when there is none (yet). Raises CardsUnavailable."""

    def void(self, charge: Charge) -> Outcome | None:
        """See to it that the payment is never charged, or tell that it was; None: look again. Raises CardsUnavailable."""

    def refund(self, order: RefundOrder) -> RefundOutcome:
        """Give back once, however often it is called for one refund. Raises CardsUnavailable."""

    def find_refund(self, order: RefundOrder) -> RefundOutcome:
        """How a refund stands that was accepted. Raises CardsUnavailable."""

    def event(self, payload: bytes, signature: str) -> CardEvent:
        """What a webhook says. Raises BadSignature, and ValueError for what is no event."""


def gateway(settings: Settings) -> CardGateway | None:
    """The gateway of these settings; None without an API key."""
    if not settings.stripe_api_key:
        return None
    return StripeCards(settings.stripe_api_key, settings.stripe_api_base, settings.stripe_webhook_secret)


class StripeCards:
    """Stripe's payment intents, refunds and events."""

    def __init__(
        self,
        api_key: str,
        api_base: str,
        webhook_secret: str,
        *,
        breaker: Breaker | None = None,
        timeouts: tuple[float, float, float] = (CONNECT_S, READ_S, TOTAL_S),
    ) -> None:
        connect_s, read_s, total_s = timeouts
        http = stripe.RequestsClient(timeout=(connect_s, read_s), session=BoundedSession(total_s))
        # Repeating is ours to decide: the outbox and the sweep do, with the same key.
        self._client = stripe.StripeClient(
            api_key, base_addresses={"api": api_base.rstrip("/")}, max_network_retries=0, http_client=http
        )
        self._breaker = breaker or breakers.breaker("stripe", is_failure=is_outage)
        self._webhook_secret = webhook_secret

    def check(self) -> None:
        try:
            self._breaker.check()
        except breakers.Open as refusal:
            raise CardsUnavailable("breaker open", retry_after_s=refusal.retry_after_s) from None

    def charge(self, charge: Charge) -> Outcome:
        if charge.reference:
            return self._retrieved(charge, charge.reference)
        confirmed = {"payment_method": charge.token, "confirm": True} if charge.token else {}
        try:
            intent = self._create_intent(charge, **confirmed)
        except stripe.CardError as declined:
            return _declined(declined)
        except stripe.InvalidRequestError as refused:
            return Outcome("failed", None, failure_code=_code(refused.code))
        except stripe.IdempotencyError:
            raise CardsUnavailable("the key was spent") from None
        return _outcome(intent, charge)

    def find(self, charge: Charge) -> Outcome | None:
        if charge.reference:
            return self._retrieved(charge, charge.reference)
        # The list is up to date at once; Stripe's search is not, and what it does not show yet would be taken for uncharged.
        since, until = charge.asked_at - CLOCKS_APART, datetime.now(UTC) + CLOCKS_APART
        created: Any = {"gte": int(since.timestamp()), "lte": int(until.timestamp())}
        wanted = str(charge.payment_id)
        intents = self._call(lambda: self._client.v1.payment_intents.list({"created": created, "limit": 100}))
        for _ in range(MOST_LOOKED_AT // 100):
            for intent in intents.data:
                if _metadata(intent).get("payment_id") == wanted:
                    return _outcome(intent, charge)
            if not intents.has_more:
                return None
            last = intents.data[-1].id
            intents = self._call(
                lambda last=last: self._client.v1.payment_intents.list(  # type: ignore[misc]  # a lambda's default
                    {"created": created, "limit": 100, "starting_after": last}
                )
            )
        raise CardsUnavailable("too many charges to look through")

    def void(self, charge: Charge) -> Outcome | None:
        """Without a charge there is nothing to cancel, but one may still be on its way: its key is spent on a charge that
        nobody confirms. Stripe refuses a key that was used for another request, so whichever comes second has no effect.
        """
        reference = charge.reference
        if reference is None:
            try:
                intent = self._create_intent(charge, capture_method="manual")
            except stripe.IdempotencyError:
                return None
            except stripe.StripeError as refused:
                return Outcome("failed", None, failure_code=_code(refused.code))
            reference = str(intent.id)
        with suppress(stripe.InvalidRequestError):  # it was charged, or canceled before: what it is now is asked next
            self._call(lambda: self._client.v1.payment_intents.cancel(reference, {"cancellation_reason": "abandoned"}))
        return self._retrieved(charge, reference)

    def refund(self, order: RefundOrder) -> RefundOutcome:
        params: Any = {
            "payment_intent": order.payment_reference,
            "amount": order.amount,
            "metadata": {"refund_id": str(order.refund_id)},
        }
        options: Any = {"idempotency_key": f"refund-{order.refund_id}"}
        try:
            refund = self._call(lambda: self._client.v1.refunds.create(params, options))
        except (stripe.InvalidRequestError, stripe.CardError) as refused:
            return RefundOutcome("failed", None, _code(refused.code))
        return _refund_outcome(refund)

    def find_refund(self, order: RefundOrder) -> RefundOutcome:
        if order.reference is None:
            return self.refund(order)
        reference = order.reference
        return _refund_outcome(self._call(lambda: self._client.v1.refunds.retrieve(reference)))

    def event(self, payload: bytes, signature: str) -> CardEvent:
        try:
            stripe.WebhookSignature.verify_header(payload, signature, self._webhook_secret, SIGNATURE_AGE_S)
        except (stripe.SignatureVerificationError, UnicodeError):
            raise BadSignature from None
        try:
            event = self._client.construct_event(payload, signature, self._webhook_secret)
            return CardEvent(_event_id(event.id, event.created), event.type, _told(event.type, event.data.object))
        except (AttributeError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError("not an event of ours") from error

    def _create_intent(self, charge: Charge, **more: Any) -> stripe.PaymentIntent:
        params: Any = {
            "amount": charge.amount,
            "currency": charge.currency.lower(),
            "payment_method_types": ["card"],
            "metadata": {"payment_id": str(charge.payment_id)},
            **more,
        }
        options: Any = {"idempotency_key": str(charge.payment_id)}
        return self._call(lambda: self._client.v1.payment_intents.create(params, options))

    def _retrieved(self, charge: Charge, reference: str) -> Outcome:
        return _outcome(self._call(lambda: self._client.v1.payment_intents.retrieve(reference)), charge)

    def _call(self, call: Callable[[], T]) -> T:
        """Raises CardsUnavailable, and those errors of Stripe's that are answers."""
        try:
            return self._breaker.call(call)
        except breakers.Open as refusal:
            raise CardsUnavailable("breaker open", retry_after_s=refusal.retry_after_s) from None
        except (stripe.CardError, stripe.InvalidRequestError, stripe.IdempotencyError):
            raise
        except stripe.StripeError as error:
            raise CardsUnavailable(f"{type(error).__name__} {error.http_status or ''}".strip()) from None


class BoundedSession(requests.Session):
    """Follows no redirect, reads no proxy from the environment, and takes neither more time nor more bytes than allowed."""

    def __init__(self, total_s: float) -> None:
        super().__init__()
        self.trust_env = False
        self._total_s = total_s

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        deadline = time.monotonic() + self._total_s
        response = super().request(*args, **{**kwargs, "allow_redirects": False, "stream": True})
        parts, size = [], 0
        with response:
            for part in response.iter_content(16_384):
                size += len(part)
                if size > MAX_ANSWER_BYTES or time.monotonic() > deadline:
                    raise requests.exceptions.ReadTimeout("the answer is too long, or takes too long")
                parts.append(part)
        response._content = b"".join(parts)  # where requests itself keeps what it has read
        return response


def is_outage(kind: type[BaseException], error: BaseException) -> bool:
    """Whether a failed call says that Stripe is away or overwhelmed, and not that it refused this one."""
    if isinstance(error, stripe.APIConnectionError | stripe.RateLimitError):
        return True
    return isinstance(error, stripe.APIError) and (error.http_status or 500) >= 500


def _outcome(intent: Any, charge: Charge) -> Outcome:
    said = _told_outcome(intent)
    # With a token we confirm, once; in the payer's browser they may try another card until the payment expires.
    return said if said.state != "failed" or charge.token or intent.status == "canceled" else _waiting(intent)


def _told_outcome(intent: Any) -> Outcome:
    if intent.status == "succeeded":
        return Outcome("captured", str(intent.id), int(intent.amount_received), str(intent.currency).upper())
    if intent.status == "canceled":
        return Outcome("failed", str(intent.id), failure_code=_code(_field(intent, "cancellation_reason") or "canceled"))
    error = _field(intent, "last_payment_error")
    if intent.status == "requires_payment_method" and error:
        return Outcome("failed", str(intent.id), failure_code=_code(_field(error, "decline_code") or _field(error, "code")))
    return _waiting(intent)


def _waiting(intent: Any) -> Outcome:
    return Outcome("waiting", str(intent.id), client_secret=_field(intent, "client_secret"))


def _declined(error: stripe.CardError) -> Outcome:
    body = error.json_body if isinstance(error.json_body, dict) else {}
    said = body.get("error", {})
    intent = said.get("payment_intent") or {}
    return Outcome("failed", intent.get("id"), failure_code=_code(said.get("decline_code") or error.code))


def _refund_outcome(refund: Any) -> RefundOutcome:
    if refund.status == "succeeded":
        return RefundOutcome("settled", str(refund.id))
    if refund.status in ("failed", "canceled"):
        return RefundOutcome("failed", str(refund.id), _code(_field(refund, "failure_reason") or refund.status))
    return RefundOutcome("waiting", str(refund.id))


_INTENT_EVENTS = {"payment_intent.succeeded", "payment_intent.canceled", "payment_intent.payment_failed"}
_REFUND_EVENTS = {"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"}
_DISPUTE_STATES: dict[str, Literal["open", "won", "lost"]] = {
    "needs_response": "open",
    "under_review": "open",
    "won": "won",
    "lost": "lost",
}


def _told(kind: str, thing: Any) -> IntentTold | RefundTold | DisputeTold | None:
    if kind in _INTENT_EVENTS:
        return IntentTold(_uuid(_metadata(thing).get("payment_id")), _told_outcome(thing), thing.status == "canceled")
    if kind in _REFUND_EVENTS:
        refund_id = _uuid(_metadata(thing).get("refund_id"))
        return None if refund_id is None else RefundTold(refund_id, _refund_outcome(thing))
    # Inquiries (warning_...) move no money.
    if kind.startswith("charge.dispute.") and thing.status in _DISPUTE_STATES and _field(thing, "payment_intent"):
        return _dispute(thing)
    return None


def _dispute(thing: Any) -> DisputeTold:
    fees = sum(int(_field(move, "fee") or 0) for move in _field(thing, "balance_transactions") or [])
    reason = _field(thing, "reason")
    return DisputeTold(
        reference=str(thing.id),
        payment_reference=str(thing.payment_intent),
        amount=int(thing.amount),
        fee_amount=max(0, fees),
        reason=_code(reason) if reason else None,
        state=_DISPUTE_STATES[thing.status],
    )


def _event_id(name: str, created: int) -> UUID:
    """The event's name as an id of its time, so that the inbox forgets it when its time comes (RFC 9562, version 7)."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10], "big")
    milliseconds = int(created) * 1000 & (2**48 - 1)
    return UUID(int=milliseconds << 80 | 7 << 76 | (digest >> 66 & 0xFFF) << 64 | 2 << 62 | digest & (2**62 - 1))


def _field(thing: Any, name: str) -> Any:
    return getattr(thing, name, None)


def _metadata(thing: Any) -> dict[str, Any]:
    found = _field(thing, "metadata")
    return {} if found is None else dict(found.to_dict() if hasattr(found, "to_dict") else found)


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        return None


def _code(said: str | None) -> str:
    """Stripe's code as it is kept: a word, whatever came."""
    return re.sub(r"[^a-z0-9_]", "_", (said or "refused").lower())[:64]


# At lower levels it writes what it sends.
logging.getLogger("stripe").setLevel(logging.WARNING)
