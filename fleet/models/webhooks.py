"""Webhook endpoints, how they are doing, and the deliveries to them, which are their own clock.

A delivery is due when its time has come and nobody holds its lease. `attempts` is counted, and committed, before each call; it
is also the ticket: whoever comes with an older count comes too late. All times are the database's.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any
from uuid import UUID

import peewee
from playhouse.postgres_ext import ArrayField, DateTimeTZField

from fleet import clock
from fleet.db import db
from fleet.models import events
from fleet.models.base import Condition, Listing, Model, Versioned
from fleet.rules.events import TEST


class WebhookEndpoint(Versioned):
    """Where events are sent. `event_types` None: all of them. Secrets are sealed (fleet.sealing)."""

    url = peewee.TextField()
    event_types = ArrayField(peewee.TextField, index=False, null=True)
    description = peewee.TextField(null=True)
    enabled = peewee.BooleanField(default=True)
    disabled_reason = peewee.TextField(null=True)
    disabled_at = DateTimeTZField(null=True)
    secret = peewee.BlobField(null=True)
    previous_secret = peewee.BlobField(null=True)
    previous_secret_until = DateTimeTZField(null=True)
    created_by = peewee.UUIDField(null=True)
    deleted_at = DateTimeTZField(null=True)


class WebhookHealth(Model):
    """How an endpoint is doing: since when nothing got through, how often in a row, until when it is left alone, and
    whether it takes its time even when it is well."""

    endpoint_id = peewee.UUIDField(primary_key=True)
    failing_since = DateTimeTZField(null=True)
    failures = peewee.IntegerField(default=0)
    rest_until = DateTimeTZField(null=True)
    last_success_at = DateTimeTZField(null=True)
    last_failure_at = DateTimeTZField(null=True)
    slow = peewee.BooleanField(default=False)


class WebhookDelivery(Model):
    """The telling of one event to one endpoint."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    endpoint_id = peewee.UUIDField()
    event_id = peewee.UUIDField()
    status = peewee.TextField(default="queued")
    attempts = peewee.IntegerField(default=0)
    attempts_before = peewee.IntegerField(default=0)
    next_attempt_at = DateTimeTZField(default=clock.now)
    leased_until = DateTimeTZField(null=True)
    last_attempt_at = DateTimeTZField(null=True)
    delivered_at = DateTimeTZField(null=True)
    dead_at = DateTimeTZField(null=True)
    response_status = peewee.IntegerField(null=True)
    last_error = peewee.TextField(null=True)
    duration_ms = peewee.IntegerField(null=True)
    created_at = DateTimeTZField(default=clock.now)


ENDPOINTS = Listing(
    columns={
        name: f"webhook_endpoint.{name}"
        for name in (
            "id", "url", "event_types", "description", "enabled", "disabled_reason", "disabled_at", "previous_secret_until",
            "created_by", "version", "created_at", "updated_at",
        )
    },
    source="webhook_endpoint",
    key="webhook_endpoint.id",
)  # fmt: skip
STANDING = Condition("webhook_endpoint.deleted_at IS NULL")

_WAITING = "d.status IN ('queued','retrying')"
DELIVERIES = Listing(
    columns={
        **{
            name: f"d.{name}"
            for name in (
                "id", "endpoint_id", "event_id", "status", "attempts", "last_attempt_at", "delivered_at", "dead_at",
                "response_status", "last_error", "duration_ms", "created_at",
            )
        },
        "event_type": "v.type",
        "sequence": "v.position",
        "next_attempt_at": f"CASE WHEN {_WAITING} THEN d.next_attempt_at END",
    },
    source="webhook_delivery d JOIN event v ON v.id = d.event_id",
    key="d.id",
)  # fmt: skip

# --- the sequencer's part ---------------------------------------------------------------------------------------------

_LISTENING = "SELECT id, event_types FROM webhook_endpoint WHERE enabled"
_QUEUE = """
INSERT INTO webhook_delivery (id, endpoint_id, event_id)
SELECT * FROM unnest(%(ids)s::uuid[], %(endpoint_ids)s::uuid[], %(event_ids)s::uuid[])
"""


def fan_out(placed: Sequence[tuple[UUID, str, UUID, int]]) -> int:
    """Queue each of the events that have just got their place for every endpoint that wants it; returns how many.

    In the sequencer's transaction: an event gets its place once, so it is queued once for each.
    """
    endpoints = db.rows(_LISTENING) if placed else []
    in_order = sorted(placed, key=lambda event: event[3])
    wanted = [
        (endpoint_id, event_id)
        for (event_id, type_, about, _), (endpoint_id, types) in product(in_order, endpoints)
        if (about == endpoint_id if type_ == TEST else types is None or type_ in types)
    ]
    if wanted:
        columns = {
            "ids": [clock.new_id() for _ in wanted],
            "endpoint_ids": [endpoint_id for endpoint_id, _ in wanted],
            "event_ids": [event_id for _, event_id in wanted],
        }
        db.execute_sql(_QUEUE, columns)
    return len(wanted)


# --- the relay's part -------------------------------------------------------------------------------------------------

# An endpoint that fails or is slow gets one attempt at a time, and none while it rests: what waits for it keeps nobody else
# waiting.
_OPEN = """
    FROM webhook_endpoint e JOIN webhook_health h ON h.endpoint_id = e.id
    WHERE e.enabled AND (h.rest_until IS NULL OR h.rest_until <= now())"""
_DUE = f"""d.endpoint_id = e.id AND {_WAITING} AND d.next_attempt_at <= now()
    AND (d.leased_until IS NULL OR d.leased_until <= now())"""

ANY_DUE = f"SELECT 1 {_OPEN} AND EXISTS (SELECT 1 FROM webhook_delivery d WHERE {_DUE}) LIMIT 1"

# One relay at a time counts what is under way: two that count at once would both fill the same room.
CLAIMING = "SELECT pg_try_advisory_xact_lock(%s)"
CLAIM = f"""
WITH open AS MATERIALIZED (
    SELECT e.id, CASE WHEN h.failing_since IS NULL AND NOT h.slow THEN %(most)s ELSE 1 END - (
        SELECT count(*) FROM webhook_delivery u WHERE u.endpoint_id = e.id AND u.leased_until > now()
    ) AS room {_OPEN}
), due AS MATERIALIZED (
    SELECT picked.id FROM open e CROSS JOIN LATERAL (
        SELECT d.id, d.next_attempt_at FROM webhook_delivery d WHERE {_DUE}
        ORDER BY d.next_attempt_at, d.id LIMIT greatest(e.room, 0)
    ) picked
    ORDER BY picked.next_attempt_at LIMIT %(limit)s
)
UPDATE webhook_delivery SET leased_until = now() + interval '1 second' * %(lease_s)s
WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING endpoint_id::text, id::text, attempts
"""
RELEASE = """
UPDATE webhook_delivery d SET leased_until = NULL
FROM unnest(%(ids)s::uuid[], %(attempts)s::int[]) AS ticket (id, attempts)
WHERE d.id = ticket.id AND d.attempts = ticket.attempts
"""

# --- the worker's part ------------------------------------------------------------------------------------------------

# Compare and set: of two workers with one ticket the second finds the count changed, and does nothing.
BEGIN = f"""
UPDATE webhook_delivery d
SET attempts = d.attempts + 1, last_attempt_at = now(), leased_until = now() + interval '1 second' * %(lease_s)s
FROM webhook_endpoint e JOIN webhook_health h ON h.endpoint_id = e.id, event v
WHERE d.id = %(id)s AND d.attempts = %(attempts)s AND {_WAITING} AND d.next_attempt_at <= now() AND d.leased_until > now()
    AND e.id = d.endpoint_id AND e.enabled AND (h.rest_until IS NULL OR h.rest_until <= now()) AND v.id = d.event_id
RETURNING d.endpoint_id, d.attempts, d.attempts - d.attempts_before, e.url, e.secret,
    CASE WHEN e.previous_secret_until > now() THEN e.previous_secret END,
    {", ".join(f"v.{column}" for column in events.COLUMNS.split(", "))}
"""
DELIVERED = f"""
UPDATE webhook_delivery d SET status = 'delivered', delivered_at = now(), leased_until = NULL, last_error = NULL,
    response_status = %(status)s, duration_ms = %(duration_ms)s
WHERE d.id = %(id)s AND {_WAITING}
"""
# The attempt stays counted, as the ticket's number has to; it is taken off those that the timetable knows of.
POSTPONED = f"""
UPDATE webhook_delivery d SET leased_until = NULL, attempts_before = d.attempts_before + 1,
    next_attempt_at = now() + interval '1 second' * %(delay_s)s
WHERE d.id = %(id)s AND d.attempts = %(attempts)s AND {_WAITING}
"""
FAILED = f"""
UPDATE webhook_delivery d SET leased_until = NULL, last_error = %(error)s, response_status = %(status)s,
    duration_ms = %(duration_ms)s, status = CASE WHEN %(delay_s)s::float IS NULL THEN 'dead' ELSE 'retrying' END,
    dead_at = CASE WHEN %(delay_s)s::float IS NULL THEN now() END,
    next_attempt_at = now() + interval '1 second' * coalesce(%(delay_s)s::float, 0)
WHERE d.id = %(id)s AND d.attempts = %(attempts)s AND {_WAITING}
"""
# Once in a while is enough to know that all is well: one row that each delivery wrote would be the next queue.
WELL = """
UPDATE webhook_health SET failing_since = NULL, failures = 0, rest_until = NULL, last_success_at = now(), slow = %(slow)s
WHERE endpoint_id = %(endpoint_id)s AND (
    failing_since IS NOT NULL OR slow <> %(slow)s OR coalesce(last_success_at < now() - interval '10 seconds', true)
)
"""
UNWELL = """
UPDATE webhook_health
SET failing_since = coalesce(failing_since, now()), failures = failures + 1, last_failure_at = now()
WHERE endpoint_id = %(endpoint_id)s
RETURNING failing_since, failures, now()
"""
REST = """
UPDATE webhook_health SET rest_until = now() + interval '1 second' * %(rest_s)s WHERE endpoint_id = %(endpoint_id)s
"""
DISABLE = """
UPDATE webhook_endpoint SET enabled = false, disabled_reason = %(reason)s, disabled_at = now()
WHERE id = %(id)s AND enabled
RETURNING disabled_at
"""

# Only the two reasons that are not somebody's doing.
DISABLED_TOLD = """
SELECT u.email, u.first_name, e.url, e.disabled_reason
FROM webhook_endpoint e JOIN user_account u ON u.id = e.created_by AND u.deactivated_at IS NULL
WHERE e.id = %s AND e.disabled_reason IN ('gone','failing')
"""

# --- by hand, and by age ----------------------------------------------------------------------------------------------

REDELIVER = """
UPDATE webhook_delivery SET status = 'queued', dead_at = NULL, attempts_before = attempts, next_attempt_at = now(),
    leased_until = NULL
WHERE id = %(id)s AND status = 'dead'
RETURNING id
"""
FORGET_DELIVERIES = """
DELETE FROM webhook_delivery WHERE id = ANY (ARRAY(
    SELECT id FROM webhook_delivery WHERE id < %(before)s ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""


def delivery_shown(condition: Condition) -> dict[str, Any] | None:
    """One delivery of an endpoint that still stands."""
    standing = "EXISTS (SELECT 1 FROM webhook_endpoint e WHERE e.id = d.endpoint_id AND e.deleted_at IS NULL)"
    return DELIVERIES.first([condition, Condition(standing)])
