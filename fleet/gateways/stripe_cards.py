"""Card payments through Stripe, by its library: each call with its deadlines, a breaker and an idempotency key.

The key of a charge is the payment's id and that of a refund the refund's, so that a call may be repeated after a time-out
and never charges or pays twice. Nothing of what Stripe says reaches a log or a client but ids and its codes.
"""

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPException
from typing import Any, TypeVar

import stripe

from fleet import breakers, deadline
from fleet.breakers import Breaker
from fleet.bulkheads import Bulkhead, Full
from fleet.config import Settings
from fleet.gateways.cards import (
    BadSignature,
    CardEvent,
    CardGateway,
    CardsResting,
    CardsUnavailable,
    Charge,
    NotShown,
    Outcome,
    RefundOrder,
    RefundOutcome,
)
from fleet.gateways.stripe_events import code_of, declined, event_of, metadata_of, outcome_of, refund_outcome
from fleet.gateways.wire import Caller, Limits, NotConnected
from fleet.idempotency import KEPT_HOURS

T = TypeVar("T")

CONNECT_S, READ_S, TOTAL_S = 2.0, 8.0, 10.0
MAX_ANSWER_BYTES = 1024 * 1024
SIGNATURE_AGE_S = 300
# How far Stripe's clock may be from ours.
CLOCKS_APART = timedelta(minutes=5)
MOST_LOOKED_AT = 5000
# No request repeats a charge any more, and the last that did has arrived or is lost.
NOBODY_ASKS_AFTER = timedelta(hours=KEPT_HOURS + 1)


def gateway(settings: Settings) -> CardGateway | None:
    """The gateway of these settings; None without an API key."""
    if not settings.stripe_api_key:
        return None
    return StripeCards(
        settings.stripe_api_key,
        settings.stripe_api_base,
        settings.stripe_webhook_secret,
        bulkhead=Bulkhead(breakers.STRIPE, settings.card_calls_at_once),
    )


class StripeCards:
    """Stripe's payment intents, refunds and events."""

    def __init__(
        self,
        api_key: str,
        api_base: str,
        webhook_secret: str,
        *,
        breaker: Breaker | None = None,
        bulkhead: Bulkhead | None = None,
        timeouts: tuple[float, float, float] = (CONNECT_S, READ_S, TOTAL_S),
    ) -> None:
        http = _Http(Limits(*timeouts))
        # Repeating is ours to decide: the outbox and the sweep do, with the same key.
        self._client = stripe.StripeClient(
            api_key, base_addresses={"api": api_base.rstrip("/")}, max_network_retries=0, http_client=http
        )
        self._breaker = breaker or breakers.breaker(breakers.STRIPE, is_failure=is_outage)
        self._bulkhead = bulkhead
        self._webhook_secret = webhook_secret

    @contextmanager
    def place(self) -> Iterator[None]:
        if (wait_s := self._breaker.wait_s()) > 0:
            raise CardsResting("breaker open", retry_after_s=wait_s)
        if self._bulkhead is None:
            yield
            return
        try:
            self._bulkhead.enter()
        except Full:
            raise CardsResting("too many at once", retry_after_s=1) from None
        try:
            yield
        finally:
            self._bulkhead.leave()

    def wait_s(self) -> float:
        return self._breaker.wait_s()

    def charge(self, charge: Charge) -> Outcome:
        if charge.reference:
            return self._retrieved(charge, charge.reference)
        confirmed = {"payment_method": charge.token, "confirm": True} if charge.token else {}
        try:
            intent = self._create_intent(charge, **confirmed)
        except stripe.CardError as refused:
            return declined(refused)
        except stripe.InvalidRequestError as refused:
            return Outcome("failed", None, failure_code=code_of(refused.code))
        except stripe.IdempotencyError:
            raise CardsUnavailable("the key was spent") from None
        return outcome_of(intent, charge)

    def find(self, charge: Charge) -> Outcome | None:
        if charge.reference:
            return self._retrieved(charge, charge.reference)
        # The list is up to date at once; Stripe's search is not, and what it does not show yet would be taken for uncharged.
        since, until = charge.asked_at - CLOCKS_APART, datetime.now(UTC) + CLOCKS_APART
        created: Any = {"gte": int(since.timestamp()), "lte": int(until.timestamp())}
        wanted = str(charge.payment_id)
        page: Any = {"created": created, "limit": 100}
        for _ in range(MOST_LOOKED_AT // 100):
            intents = self._look(partial(self._client.v1.payment_intents.list, page))
            for intent in intents.data:
                if metadata_of(intent).get("payment_id") == wanted:
                    return outcome_of(intent, charge)
            if not intents.has_more:
                return None
            page = {**page, "starting_after": intents.data[-1].id}
        raise NotShown("too many charges to look through")

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
            except stripe.InvalidRequestError as refused:
                # What validation refuses spends no key (docs.stripe.com/api/idempotent_requests): a charge under way may take.
                if not _is_replay(refused) and datetime.now(UTC) - charge.asked_at < NOBODY_ASKS_AFTER:
                    return None
                return Outcome("failed", None, failure_code=code_of(refused.code))
            except stripe.CardError as refused:
                return Outcome("failed", None, failure_code=code_of(refused.code))
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
            return RefundOutcome("failed", None, code_of(refused.code))
        return refund_outcome(refund)

    def find_refund(self, order: RefundOrder) -> RefundOutcome:
        if order.reference is None:
            return self.refund(order)
        reference = order.reference
        return refund_outcome(self._look(lambda: self._client.v1.refunds.retrieve(reference)))

    def event(self, payload: bytes, signature: str) -> CardEvent:
        try:
            stripe.WebhookSignature.verify_header(payload, signature, self._webhook_secret, SIGNATURE_AGE_S)
        except (stripe.SignatureVerificationError, UnicodeError):
            raise BadSignature from None
        try:
            event = self._client.construct_event(payload, signature, self._webhook_secret)
            return event_of(event)
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
        return outcome_of(self._look(lambda: self._client.v1.payment_intents.retrieve(reference)), charge)

    def _look(self, call: Callable[[], T]) -> T:
        """Raises CardsUnavailable; NotShown for what Stripe does not know, as after a change of the account."""
        try:
            return self._call(call)
        except stripe.InvalidRequestError as refused:
            raise NotShown(f"not shown: {code_of(refused.code)}") from None

    def _call(self, call: Callable[[], T]) -> T:
        """Raises CardsUnavailable, and those errors of Stripe's that are answers."""
        try:
            return self._breaker.call(call)
        except breakers.Open as refusal:
            raise CardsResting("breaker open", retry_after_s=refusal.retry_after_s) from None
        except (stripe.CardError, stripe.InvalidRequestError, stripe.IdempotencyError):
            raise
        except stripe.StripeError as error:
            raise CardsUnavailable(f"{type(error).__name__} {error.http_status or ''}".strip()) from None


class _Http(stripe.HTTPClient):
    """What Stripe's library calls with: a connection a call, none of which outlasts its total or the request's deadline."""

    name = "fleet"

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self._total_s = limits.total_s
        context = ssl.create_default_context(cafile=stripe.ca_bundle_path)
        self._caller = Caller(limits, most_bytes=MAX_ANSWER_BYTES, context=context)

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None, *, _usage: Any = None
    ) -> tuple[Any, int, Any]:
        """Raises stripe.APIConnectionError whatever went wrong on the way."""
        body = post_data.encode() if isinstance(post_data, str) else post_data or b""
        try:
            total_s = deadline.for_a_call(self._total_s)
            told = self._caller.call(method.upper(), url, headers or {}, body, total_s=total_s)
        except (deadline.Over, NotConnected, OSError, HTTPException) as error:
            raise stripe.APIConnectionError(type(error).__name__) from error
        return told.body, told.status, told.headers

    def close(self) -> None:
        """There is nothing to close."""


def _is_replay(error: stripe.StripeError) -> bool:
    """Whether Stripe has kept this refusal under its key: then it is spent (docs.stripe.com/error-low-level)."""
    return bool((error.headers or {}).get("Idempotent-Replayed") == "true")


def is_outage(kind: type[BaseException], error: BaseException) -> bool | None:
    """Whether a failed call says that Stripe is away or overwhelmed, and not that it refused this one.

    None for a call that was not made because its request had little time left: it says neither.
    """
    if isinstance(error.__cause__, deadline.Over):
        return None
    if isinstance(error, stripe.APIConnectionError | stripe.RateLimitError):
        return True
    return isinstance(error, stripe.APIError) and (error.http_status or 500) >= 500


# At lower levels it writes what it sends.
logging.getLogger("stripe").setLevel(logging.WARNING)
