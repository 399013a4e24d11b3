"""The events: what happened, in the order in which it was committed.

A row is written with its fact, without a position. The sequencer gives positions to what is committed, one sequencer at a
time, and commits them together. So whoever reads up to a position has seen everything before it, and nothing can still
appear there: an identity or a timestamp, both drawn before the commit, could not promise that.
"""

from typing import Any

import peewee
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from fleet import clock
from fleet.db import db
from fleet.models.base import Model


class Event(Model):
    """Something that happened to one thing. `data` is the thing as it was then."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    position = peewee.BigIntegerField(null=True)
    type = peewee.TextField()
    occurred_at = DateTimeTZField(default=clock.now)
    aggregate_type = peewee.TextField()
    aggregate_id = peewee.UUIDField()
    schema_version = peewee.IntegerField(default=1)
    data = BinaryJSONField()


RECORD = """
INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
SELECT told.id, %(type)s, %(occurred_at)s, %(aggregate_type)s, told.aggregate_id, told.data::jsonb
FROM unnest(%(ids)s::uuid[], %(aggregate_ids)s::uuid[], %(data)s::text[])
    WITH ORDINALITY AS told (id, aggregate_id, data, nth)
ORDER BY told.nth
"""

ANY_UNPLACED = "SELECT 1 FROM event WHERE position IS NULL LIMIT 1"

# Whoever does not get it leaves the work to whoever has it. It is taken by a statement of its own: what the next one sees
# of the table is then what the sequencer before it left.
SEQUENCER = "SELECT pg_try_advisory_xact_lock(%s)"

# The counter counts what has a position, so there are no gaps. Of one thing the events come in the order of its commits:
# the later transaction waited for the earlier one's lock on it before it wrote, so it drew the higher insert_order.
PLACE = """
WITH unplaced AS MATERIALIZED (
    SELECT id, row_number() OVER (ORDER BY insert_order) AS nth FROM (
        SELECT id, insert_order FROM event WHERE position IS NULL ORDER BY insert_order LIMIT %(limit)s
    ) AS next
), counter AS (
    INSERT INTO document_counter (series, last_number)
    SELECT 'event', count(*) FROM unplaced HAVING count(*) > 0
    ON CONFLICT ON CONSTRAINT document_counter_pkey
        DO UPDATE SET last_number = document_counter.last_number + EXCLUDED.last_number
    RETURNING last_number - (SELECT count(*) FROM unplaced) AS before
)
UPDATE event SET position = counter.before + unplaced.nth
FROM unplaced, counter
WHERE event.id = unplaced.id
RETURNING event.id, event.type, event.aggregate_id, event.position
"""

_COLUMNS = {
    "id": "id::text",
    "type": "type",
    "occurred_at": "occurred_at",
    "aggregate_type": "aggregate_type",
    "aggregate_id": "aggregate_id::text",
    "sequence": "position",
    "schema_version": "schema_version",
    "data": "data",
}
COLUMNS = ", ".join(_COLUMNS.values())


def events_after(position: int, *, type_: str | None, limit: int) -> list[dict[str, Any]]:
    """At most `limit` events after a position, in order; of one type where one is asked for."""
    of_type = "" if type_ is None else "AND type = %s"
    asked = [position, *([] if type_ is None else [type_])]
    rows = db.rows(f"SELECT {COLUMNS} FROM event WHERE position > %s {of_type} ORDER BY position LIMIT {limit:d}", asked)
    return [named(row) for row in rows]


def named(row: Any) -> dict[str, Any]:
    """The columns of COLUMNS by their names."""
    return dict(zip(_COLUMNS, row, strict=True))


# The oldest have the least ids. What a delivery still refers to is younger than this ever asks for.
# What a delivery still refers to is left: it goes after the delivery. No delivery of an event is made after its place.
FORGET_EVENTS = """
DELETE FROM event WHERE id = ANY (ARRAY(
    SELECT id FROM event WHERE id < %(before)s AND position IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.event_id = event.id)
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
