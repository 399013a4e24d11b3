"""Sending events to endpoints, at least once, over days if it takes days.

The relay claims what is due, for the length of a lease, and rings for it. A worker counts the attempt and commits that, posts
between transactions, and notes what came of it. Killed anywhere in between, it leaves a lease that ends: the delivery is due
again, with the same `webhook-id`, and its receiver can tell that it is the same.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

import orjson

from fleet import breakers, clock
from fleet.auth import Actor
from fleet.db import atomic, db, transaction
from fleet.errors import InvalidState, NotFound
from fleet.gateways.webhooks import NotDelivered, Reply
from fleet.models import events as event_models
from fleet.models import webhooks as models
from fleet.models.base import Condition, in_state
from fleet.outages import database_is_away
from fleet.rules import lifecycles
from fleet.rules import webhooks as rules
from fleet.sealing import SealBroken
from fleet.services import audit, events, outbox, webhooks

log = logging.getLogger("fleet.webhook_deliveries")

TOPIC = "webhooks.deliver"

# Any fixed number does, as long as every release of the service asks for the same one.
CLAIMING_LOCK = 7_305_419
# Under way at once for one endpoint; a message rings for at most BATCH of them, and one worker sends them one by one.
MOST_UNDER_WAY, BATCH = 20, 10
# From the claim to the attempt, and from the attempt to its note: longer than either can take.
LEASE_S, ATTEMPT_LEASE_S = 120, 30
NO_WORD, BROKEN = "no_word", "internal"


class Sender(Protocol):
    def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """Raises NotDelivered, breakers.Open."""


class Ticket(NamedTuple):
    """The right to one attempt. As text, `id:attempts`, it travels in a message."""

    id: str
    attempts: int

    @classmethod
    def read(cls, text: str) -> "Ticket":
        delivery_id, _, attempts = text.partition(":")
        return cls(delivery_id, int(attempts))

    def __str__(self) -> str:
        return f"{self.id}:{self.attempts}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that is counted, with what it sends."""

    id: str
    endpoint_id: UUID
    attempts: int
    tries: int
    url: str
    secret: bytes
    previous_secret: bytes | None
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt. `status` is the new state, or `postponed` when nothing was tried.

    `disabled` is why the endpoint was switched off by it.
    """

    attempt: Attempt
    status: str
    answered: int | None
    error: str | None
    duration_ms: int
    disabled: str | None = None


# --- the relay's side -------------------------------------------------------------------------------------------------


def claim_due(*, limit: int) -> list[list[str]]:
    """Take what is due, at most `limit`, within what each endpoint may have under way: batches, each of one endpoint.

    While another relay claims, there is nothing to take.
    """
    if db.one(models.ANY_DUE) is None:
        return []
    with transaction():
        if db.one(models.CLAIMING, (CLAIMING_LOCK,)) != (True,):
            return []
        rows = db.rows(models.CLAIM, {"most": MOST_UNDER_WAY, "lease_s": LEASE_S, "limit": limit})
    by_endpoint: dict[str, list[str]] = defaultdict(list)
    for endpoint_id, delivery_id, attempts in sorted(rows):
        by_endpoint[endpoint_id].append(str(Ticket(delivery_id, attempts)))
    return [mine[start : start + BATCH] for mine in by_endpoint.values() for start in range(0, len(mine), BATCH)]


def release(tickets: Sequence[str]) -> None:
    """Give back what was claimed and is not going to be tried: it is due again at once. What was tried is left as it is."""
    read = [Ticket.read(text) for text in tickets]
    db.execute_sql(models.RELEASE, {"ids": [one.id for one in read], "attempts": [one.attempts for one in read]})


# --- the worker's side ------------------------------------------------------------------------------------------------


def attempt(ticket: str, sender: Sender) -> Outcome | None:
    """Try one delivery; None when there is nothing to try: another worker has it, or its endpoint rests or is disabled."""
    begun = _begin(Ticket.read(ticket))
    if begun is None:
        return None
    if begun.tries > rules.MOST_ATTEMPTS:
        return _note_failure(begun, NO_WORD, None, None, 0)
    started = time.monotonic()
    try:
        return _tried(begun, sender, started)
    except breakers.Open as resting:
        return _postpone(begun, resting.retry_after_s)
    except Exception as error:
        if database_is_away(error):
            raise
        # Unnoted, it would come back when its lease ends, at once and not after the pause that its failures have earned.
        log.error("webhook attempt broke", extra={"delivery_id": begun.id, "cause": type(error).__name__})
        return _note_failure(begun, BROKEN, None, None, int((time.monotonic() - started) * 1000))


def _tried(begun: Attempt, sender: Sender, started: float) -> Outcome:
    reply, error = _post(begun, sender)
    duration_ms = int((time.monotonic() - started) * 1000)
    if reply is not None and 200 <= reply.status < 300:
        return _note_success(begun, reply, duration_ms)
    asked_s = rules.asked_wait_s(reply.retry_after, now=clock.now()) if reply else None
    return _note_failure(begun, error or "refused", reply, asked_s, duration_ms)


def _begin(ticket: Ticket) -> Attempt | None:
    """Count the attempt, committed before anything is sent: what kills its worker every time comes to an end too."""
    rows = db.rows(models.BEGIN, {**ticket._asdict(), "lease_s": ATTEMPT_LEASE_S})
    if not rows:
        return None
    endpoint_id, attempts, tries, url, secret, previous_secret, *event = rows[0]
    return Attempt(ticket.id, endpoint_id, attempts, tries, url, secret, previous_secret, event_models.named(event))


def _post(begun: Attempt, sender: Sender) -> tuple[Reply | None, str | None]:
    body = orjson.dumps(begun.event, option=orjson.OPT_UTC_Z)
    try:
        secrets = webhooks.secrets_of(begun.endpoint_id, begun.secret, begun.previous_secret)
        reply = sender.post(begun.url, rules.signed(begun.event["id"], clock.now(), body, secrets), body)
    except SealBroken:
        return None, "secret_unreadable"
    except NotDelivered as error:
        return None, error.cause
    return reply, "redirect" if 300 <= reply.status < 400 else None


@atomic
def _note_success(begun: Attempt, reply: Reply, duration_ms: int) -> Outcome:
    db.execute_sql(models.DELIVERED, {"id": begun.id, "status": reply.status, "duration_ms": duration_ms})
    about, took_s = {"endpoint_id": begun.endpoint_id}, duration_ms / 1000
    slow = took_s >= rules.SLOW_S
    db.execute_sql(models.WELL, {**about, "slow": slow})
    if slow:
        db.execute_sql(models.REST, {**about, "rest_s": took_s})
    return Outcome(begun, "delivered", reply.status, None, duration_ms)


@atomic
def _note_failure(
    begun: Attempt, error: str, reply: Reply | None, asked_s: float | None, duration_ms: int
) -> Outcome:
    status = reply.status if reply else None
    delay_s = None if status == rules.GONE else rules.retry_in_s(begun.tries, asked_s=asked_s)
    noted = {"id": begun.id, "attempts": begun.attempts, "error": error, "status": status, "duration_ms": duration_ms}
    db.execute_sql(models.FAILED, {**noted, "delay_s": delay_s})
    about = {"endpoint_id": begun.endpoint_id}
    failing_since, failures, now = db.rows(models.UNWELL, about)[0]
    db.execute_sql(models.REST, {**about, "rest_s": rules.rest_s(failures, asked_s=asked_s)})
    disabled = None
    if status == rules.GONE:
        disabled = _disable(begun.endpoint_id, "gone")
    elif rules.is_hopeless(failing_since, failures, now=now):
        disabled = _disable(begun.endpoint_id, "failing")
    return Outcome(begun, "dead" if delay_s is None else "retrying", status, error, duration_ms, disabled)


@atomic
def _postpone(begun: Attempt, delay_s: float) -> Outcome:
    """Its host is away, and was not asked: that is no failure of the delivery, and brings its end no nearer.

    The endpoint rests, or the relay would ring for each of its deliveries in turn.
    """
    db.execute_sql(models.POSTPONED, {"id": begun.id, "attempts": begun.attempts, "delay_s": delay_s})
    db.execute_sql(models.REST, {"endpoint_id": begun.endpoint_id, "rest_s": delay_s})
    return Outcome(begun, "postponed", None, None, 0)


def _disable(endpoint_id: UUID, reason: str) -> str | None:
    """Switch the endpoint off, and tell of it: in the stream, and to who made it. None when it is off already."""
    row = db.one(models.DISABLE, {"id": endpoint_id, "reason": reason})
    if row is None:
        return None
    # Without its address: whoever reads the stream need not know what other receivers are called.
    told = {"id": endpoint_id, "disabled_reason": reason, "disabled_at": row[0]}
    events.record("webhook_endpoint.disabled", "webhook_endpoint", endpoint_id, told)
    audit.record("system:webhooks", "webhooks.disable", "webhook_endpoint", endpoint_id, after={"reason": reason})
    outbox.promise("notifications.webhook_disabled", "webhook_endpoint", endpoint_id)
    return reason


# --- by hand ----------------------------------------------------------------------------------------------------------


def listed(
    actor: Actor, endpoint_id: UUID, *, status: str | None, after: UUID | None, limit: int
) -> list[dict[str, Any]]:
    """A page of an endpoint's deliveries, newest first. Raises NotFound."""
    webhooks.shown(actor, endpoint_id)
    conditions = [Condition("d.endpoint_id = %s", (endpoint_id,))]
    if status is not None:
        conditions.append(in_state("d.status", status))
    return models.DELIVERIES.page(conditions, after=after, limit=limit)


def shown(actor: Actor, delivery_id: UUID) -> dict[str, Any]:
    """One delivery. Raises NotFound."""
    found = models.delivery_shown(Condition("d.id = %s", (delivery_id,)))
    if found is None:
        raise NotFound()
    return found


@atomic
def redeliver(actor: Actor, delivery_id: UUID) -> dict[str, Any]:
    """Queue a dead delivery again, with the same message and as many attempts as at first.

    Compare and set: of two at once one gets it. Raises NotFound, InvalidState (also while the endpoint is disabled).
    """
    found = shown(actor, delivery_id)
    lifecycles.webhook_delivery.check(found["status"], "queued")
    if not webhooks.shown(actor, found["endpoint_id"])["enabled"]:
        raise InvalidState("The endpoint is disabled; enable it first")
    if db.one(models.REDELIVER, {"id": delivery_id}) is None:
        raise InvalidState("Another request has just queued it")
    audit.record(actor, "webhooks.redeliver", "webhook_delivery", delivery_id)
    return shown(actor, delivery_id)

