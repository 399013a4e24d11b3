"""How Stripe's objects and events are read: intents, declines, refunds and disputes, in the house's terms."""

import hashlib
import re
from typing import Any, Literal
from uuid import UUID

import stripe

from fleet.gateways.cards import CardEvent, Charge, DisputeTold, IntentTold, Outcome, RefundOutcome, RefundTold

_INTENT_EVENTS = {"payment_intent.succeeded", "payment_intent.canceled", "payment_intent.payment_failed"}
_REFUND_EVENTS = {"refund.created", "refund.updated", "refund.failed", "charge.refund.updated"}
_DISPUTE_STATES: dict[str, Literal["open", "won", "lost"]] = {
    "needs_response": "open",
    "under_review": "open",
    "won": "won",
    "lost": "lost",
}


def event_of(event: Any) -> CardEvent:
    """A signed event. What it lacks, or has of another kind, comes up as AttributeError, TypeError and their like."""
    return CardEvent(_event_id(event.id, event.created), event.type, _told(event.type, event.data.object))


def outcome_of(intent: Any, charge: Charge) -> Outcome:
    said = _told_outcome(intent)
    # With a token we confirm, once; in the payer's browser they may try another card until the payment expires.
    return said if said.state != "failed" or charge.token or intent.status == "canceled" else _waiting(intent)


def _told_outcome(intent: Any) -> Outcome:
    if intent.status == "succeeded":
        return Outcome("captured", str(intent.id), int(intent.amount_received), str(intent.currency).upper())
    if intent.status == "canceled":
        return Outcome("failed", str(intent.id), failure_code=code_of(_field(intent, "cancellation_reason") or "canceled"))
    error = _field(intent, "last_payment_error")
    if intent.status == "requires_payment_method" and error:
        return Outcome("failed", str(intent.id), failure_code=code_of(_field(error, "decline_code") or _field(error, "code")))
    return _waiting(intent)


def _waiting(intent: Any) -> Outcome:
    return Outcome("waiting", str(intent.id), client_secret=_field(intent, "client_secret"))


def declined(error: stripe.CardError) -> Outcome:
    body = error.json_body if isinstance(error.json_body, dict) else {}
    said = body.get("error", {})
    intent = said.get("payment_intent") or {}
    return Outcome("failed", intent.get("id"), failure_code=code_of(said.get("decline_code") or error.code))


def refund_outcome(refund: Any) -> RefundOutcome:
    if refund.status == "succeeded":
        return RefundOutcome("settled", str(refund.id))
    if refund.status in ("failed", "canceled"):
        return RefundOutcome("failed", str(refund.id), code_of(_field(refund, "failure_reason") or refund.status))
    return RefundOutcome("waiting", str(refund.id))


def _told(kind: str, thing: Any) -> IntentTold | RefundTold | DisputeTold | None:
    if kind in _INTENT_EVENTS:
        return IntentTold(_uuid(metadata_of(thing).get("payment_id")), _told_outcome(thing), thing.status == "canceled")
    if kind in _REFUND_EVENTS:
        refund_id = _uuid(metadata_of(thing).get("refund_id"))
        return None if refund_id is None else RefundTold(refund_id, refund_outcome(thing))
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
        reason=code_of(reason) if reason else None,
        state=_DISPUTE_STATES[thing.status],
    )


def _event_id(name: str, created: int) -> UUID:
    """The event's name as an id of its time, so that the inbox forgets it when its time comes (RFC 9562, version 7)."""
    digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:10], "big")
    milliseconds = int(created) * 1000 & (2**48 - 1)
    return UUID(int=milliseconds << 80 | 7 << 76 | (digest >> 66 & 0xFFF) << 64 | 2 << 62 | digest & (2**62 - 1))


def _field(thing: Any, name: str) -> Any:
    return getattr(thing, name, None)


def metadata_of(thing: Any) -> dict[str, Any]:
    found = _field(thing, "metadata")
    return {} if found is None else dict(found.to_dict() if hasattr(found, "to_dict") else found)


def _uuid(text: Any) -> UUID | None:
    try:
        return UUID(text)
    except (ValueError, TypeError, AttributeError):
        return None


def code_of(said: str | None) -> str:
    """Stripe's code as it is kept: a word, whatever came."""
    return re.sub(r"[^a-z0-9_]", "_", (said or "refused").lower())[:64]
