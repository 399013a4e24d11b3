"""Promises of work: the outbox that a transaction fills, and the inbox of what was done about it.

A promise is unfinished while it is neither confirmed nor dead. Statements that change many of them lock them by id first:
two workers whose batches overlap then wait for each other instead of deadlocking. They find them again by
`= ANY (ARRAY(...))`, which is planned as a look-up by key however large the table is, and they ask for the unfinished by
`coalesce(...) IS NULL`, which keeps the planner from reading a whole backlog through the index of what is due. Ids come out
as text, as messages carry them: to make objects of them would cost more than all the rest.
"""

import peewee
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from fleet import clock
from fleet.db import Statement
from fleet.models.base import Model


class Outbox(Model):
    """One promise of work, kept from the commit of its fact until a consumer confirms it or it is dead."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    topic = peewee.TextField()
    queue = peewee.TextField()
    aggregate_type = peewee.TextField()
    aggregate_id = peewee.UUIDField()
    payload = BinaryJSONField(default=dict)
    request_id = peewee.TextField(null=True)
    traceparent = peewee.TextField(null=True)
    created_at = DateTimeTZField(default=clock.now)
    next_attempt_at = DateTimeTZField(default=clock.now)
    publishes = peewee.IntegerField(default=0)
    deliveries = peewee.IntegerField(default=0)
    confirmed_at = DateTimeTZField(null=True)
    dead_at = DateTimeTZField(null=True)
    last_error = peewee.TextField(null=True)
    last_error_at = DateTimeTZField(null=True)
    first_error_at = DateTimeTZField(null=True)
    replays = peewee.IntegerField(default=0)
    replayed_at = DateTimeTZField(null=True)
    discarded_at = DateTimeTZField(null=True)
    discarded_by = peewee.TextField(null=True)
    discard_reason = peewee.TextField(null=True)


class Inbox(Model):
    """A message that a consumer has dealt with, written in the transaction of its effect."""

    consumer = peewee.TextField()
    message_id = peewee.UUIDField()
    processed_at = DateTimeTZField(default=clock.now)

    class Meta:
        primary_key = peewee.CompositeKey("message_id", "consumer")


PROMISE = Statement(
    "promise",
    ("uuid", "text", "text", "text", "uuid", "jsonb", "text", "text"),
    """INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, payload, request_id, traceparent)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    RETURNING id""",
)

# Each open queue gets rows of its own, so that the backlog of one does not keep the others waiting. The lease doubles with
# every publish; the jitter keeps those that were lost together from coming back together.
CLAIM_DUE = """
WITH due AS MATERIALIZED (
    SELECT picked.id
    FROM unnest(%(queues)s::text[], %(limits)s::integer[]) AS open (queue, room)
    CROSS JOIN LATERAL (
        SELECT id FROM outbox
        WHERE queue = open.queue AND confirmed_at IS NULL AND dead_at IS NULL
            AND next_attempt_at <= now() AND deliveries < %(most_deliveries)s
        ORDER BY next_attempt_at
        LIMIT open.room
        FOR UPDATE SKIP LOCKED
    ) picked
)
UPDATE outbox
SET publishes = publishes + 1,
    next_attempt_at = now() + interval '1 second' * (0.9 + 0.2 * random())
        * least(%(lease_s)s * power(2, least(publishes, 20)), %(longest_lease_s)s)
WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING id::text, topic, queue, request_id
"""

_LOCKED = """
WITH mine AS MATERIALIZED (
    SELECT id FROM outbox
    WHERE id = ANY (%(ids)s::uuid[]) AND coalesce(confirmed_at, dead_at) IS NULL {also}
    ORDER BY id
    FOR UPDATE
)
UPDATE outbox SET {change}
WHERE id = ANY (ARRAY(SELECT id FROM mine))
RETURNING {answer}
"""
_MESSAGE = "id::text, topic, aggregate_type, aggregate_id, payload, request_id, created_at, deliveries"

UNFINISHED = """
SELECT id::text FROM outbox
WHERE id = ANY (%(ids)s::uuid[]) AND coalesce(confirmed_at, dead_at) IS NULL
ORDER BY deliveries, id
"""
COUNT_FIRST_DELIVERIES = _LOCKED.format(also="AND deliveries = 0", change="deliveries = 1", answer=_MESSAGE)
COUNT_DELIVERIES = _LOCKED.format(also="", change="deliveries = deliveries + 1", answer=_MESSAGE)
RELEASE = _LOCKED.format(
    also="",
    change="""publishes = greatest(publishes - 1, 0),
    next_attempt_at = now() + interval '1 second' * %(delay_s)s * (0.9 + 0.2 * random())""",
    answer="id",
)
POSTPONE = _LOCKED.format(
    also="",
    change="""publishes = greatest(publishes - 1, 0), deliveries = greatest(deliveries - 1, 0),
    next_attempt_at = now() + interval '1 second' * %(delay_s)s * (0.9 + 0.2 * random())""",
    answer="id",
)
FAIL = _LOCKED.format(
    also="",
    change="""last_error = %(error)s, last_error_at = now(), first_error_at = coalesce(first_error_at, now()),
    next_attempt_at = now() + interval '1 second' * %(delay_s)s,
    dead_at = CASE WHEN deliveries >= %(most_deliveries)s THEN now() END""",
    answer="dead_at IS NOT NULL",
)
# Claims are what counts the looks here: nothing else ever happens to such a promise.
PUT_ASIDE = _LOCKED.format(
    also="",
    change="""last_error = %(error)s, last_error_at = now(), first_error_at = coalesce(first_error_at, now()),
    next_attempt_at = now() + interval '1 second' * %(pause_s)s * (0.9 + 0.2 * random()),
    dead_at = CASE WHEN publishes >= %(most_looks)s THEN now() END""",
    answer="topic, dead_at IS NOT NULL",
)
BURY = _LOCKED.format(
    also="",
    change="""dead_at = now(), last_error = %(error)s, last_error_at = now(),
    first_error_at = coalesce(first_error_at, now())""",
    answer="id",
)

# The queue is named outright, for the partial index outbox_accounting_open: it is small, and no other queue pays for it. The
# look for an elder is a subquery with a LIMIT, which the planner cannot turn into a join with the whole backlog.
OUT_OF_TURN = """
SELECT mine.id::text FROM outbox mine
WHERE mine.id = ANY (%(ids)s::uuid[]) AND mine.queue = 'accounting' AND (
    SELECT 1 FROM outbox older
    WHERE older.queue = 'accounting' AND coalesce(older.confirmed_at, older.dead_at) IS NULL
        AND older.aggregate_id = mine.aggregate_id AND older.id < mine.id AND older.id <> ALL (%(ids)s::uuid[])
    ORDER BY older.id LIMIT 1) IS NOT NULL
"""

RECEIVE = """
INSERT INTO inbox (consumer, message_id)
SELECT %(consumer)s, id FROM unnest(%(ids)s::uuid[]) AS id ORDER BY id
ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING
RETURNING message_id::text
"""

# What is done is done: a confirmation also ends the death of a message whose worker was taken for lost, discarded or not.
CONFIRM = """
WITH mine AS MATERIALIZED (
    SELECT id FROM outbox WHERE id = ANY (%(ids)s::uuid[]) AND confirmed_at IS NULL ORDER BY id FOR UPDATE
)
UPDATE outbox
SET confirmed_at = now(), dead_at = NULL, discarded_at = NULL, discarded_by = NULL, discard_reason = NULL
WHERE id = ANY (ARRAY(SELECT id FROM mine))
"""

BURY_EXHAUSTED = """
WITH exhausted AS MATERIALIZED (
    SELECT id FROM outbox
    WHERE confirmed_at IS NULL AND dead_at IS NULL AND deliveries >= %(most_deliveries)s AND next_attempt_at <= now()
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
UPDATE outbox
SET dead_at = now(), last_error = coalesce(last_error, %(error)s), last_error_at = coalesce(last_error_at, now()),
    first_error_at = coalesce(first_error_at, now())
WHERE id = ANY (ARRAY(SELECT id FROM exhausted))
RETURNING id, topic
"""

FORGET_CONFIRMED = """
DELETE FROM outbox WHERE id = ANY (ARRAY(
    SELECT id FROM outbox WHERE confirmed_at < %(before)s ORDER BY confirmed_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
# By the id, which carries its time, so that the old ones are found at once; and by the time of the deed, because a dead letter
# may be replayed at any age: forgotten right after it, a second worker with the same message would do it again.
FORGET_RECEIVED = """
DELETE FROM inbox WHERE message_id = ANY (ARRAY(
    SELECT message_id FROM inbox WHERE message_id < %(first_id)s AND processed_at < %(before)s
    ORDER BY message_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
# The lock is what a replay waits for, or keeps: without it the sweep would delete what has just been replayed.
FORGET_DISCARDED = """
DELETE FROM outbox WHERE id = ANY (ARRAY(
    SELECT id FROM outbox WHERE dead_at IS NOT NULL AND discarded_at < %(before)s
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
