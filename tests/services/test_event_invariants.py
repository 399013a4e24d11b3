"""What must never be false of the stream of events, tried by hand in SQL."""

from typing import Any
from uuid import UUID

import peewee
import psycopg2
import pytest

from fleet import clock, errors
from fleet.db import db, patience
from fleet.embedded import Databases
from fleet.services import events
from tests.cast import insert

pytestmark = pytest.mark.usefixtures("fresh_database")


def told(**values: Any) -> UUID:
    """An event, as a service would write it."""
    about = {"type": "rental.held", "occurred_at": clock.now(), "aggregate_type": "rental", "aggregate_id": clock.new_id()}
    return insert("event", **{**about, "data": {"a": 1}, **values})


def refused(sql: str, *params: Any) -> str:
    """The constraint that refuses the statement."""
    with pytest.raises(peewee.PeeweeException) as error:
        db.execute_sql(sql, params)
    return errors.constraint_of(error.value)


@pytest.mark.parametrize(
    ("values", "constraint"),
    [
        ({"type": "Rental Held"}, "event_named"),
        ({"position": 0}, "event_position_counts"),
        ({"schema_version": 0}, "event_version_counts"),
    ],
)
def test_an_event_that_says_nothing_is_refused(values: dict[str, Any], constraint: str) -> None:
    with pytest.raises(peewee.IntegrityError) as error:
        told(**values)
    assert errors.constraint_of(error.value) == constraint


def test_the_data_of_an_event_is_an_object() -> None:
    assert refused(
        """INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
        VALUES (%s, 'rental.held', now(), 'rental', %s, '[]')""",
        clock.new_id(),
        clock.new_id(),
    ) == "event_data_object"  # fmt: skip


def test_a_place_is_taken_once() -> None:
    told(position=7)
    with pytest.raises(peewee.IntegrityError) as error:
        told(position=7)
    assert errors.constraint_of(error.value) == "event_position_key"


@pytest.mark.parametrize(
    "change", ["type = 'rental.reserved'", "data = '{}'", "occurred_at = now() - interval '1 day'", "aggregate_id = id"]
)
def test_an_event_is_not_rewritten_with_or_without_a_place(change: str) -> None:
    told()
    assert refused(f"UPDATE event SET {change}") == "event_kept"
    events.put_in_order()
    assert refused(f"UPDATE event SET {change}") == "event_kept"


def test_a_place_is_not_moved() -> None:
    told()
    events.put_in_order()
    assert refused("UPDATE event SET position = 2") == "event_kept"
    assert refused("UPDATE event SET position = NULL") == "event_kept"


def test_an_event_is_not_deleted_before_its_time(databases: Databases) -> None:
    told(position=1)
    told(occurred_at="2026-01-01T00:00Z")
    assert refused("DELETE FROM event WHERE position = 1") == "event_kept"
    assert refused("DELETE FROM event WHERE position IS NULL") == "event_kept", "nobody has read it yet"
    assert refused("TRUNCATE event CASCADE") == "event_kept"
    told(occurred_at="2026-01-01T00:00Z", position=2)
    db.execute_sql("DELETE FROM event WHERE position = 2")


def test_the_counter_of_places_does_not_go_back() -> None:
    told()
    events.put_in_order()
    assert refused("UPDATE document_counter SET last_number = 0 WHERE series = 'event'") == "document_counter_kept"
    assert refused("DELETE FROM document_counter WHERE series = 'event'") == "document_counter_kept"


def test_the_sequencer_reads_by_indexes_however_much_there_is() -> None:
    """A plan over a table as it will be: 60,000 events, five of them new."""
    with patience(60):
        db.execute_sql(
            """INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data, position)
            SELECT gen_random_uuid(), 'rental.held', now(), 'rental', gen_random_uuid(), '{}', nullif(greatest(n - 5, 0), 0)
            FROM generate_series(1, 60000) n"""
        )
        db.execute_sql("ANALYZE event")
    placing = events.models.PLACE % {"limit": events.PLACED_AT_ONCE}
    for sql in (placing, events.models.ANY_UNPLACED):
        plan = "\n".join(line for (line,) in db.rows(f"EXPLAIN {sql}"))
        assert "Seq Scan on event" not in plan, plan


def test_reading_takes_no_longer_at_the_end_of_the_stream(databases: Databases) -> None:
    with patience(60):
        db.execute_sql(
            """INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data, position)
            SELECT gen_random_uuid(), CASE WHEN n %% 10000 = 0 THEN 'rental.expired' ELSE 'rental.held' END, now(), 'rental',
                gen_random_uuid(), '{}', n FROM generate_series(1, 60000) n"""
        )
        db.execute_sql("ANALYZE event")
    with psycopg2.connect(databases.superuser_url) as connection, connection.cursor() as cursor:
        for condition in ("position > 59990", "position > 5 AND type = 'rental.expired'"):
            read = f"SELECT data FROM event WHERE {condition} ORDER BY position LIMIT 51"
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {read}")
            plan = cursor.fetchone()[0][0]["Plan"]
            assert plan["Plans"][0]["Node Type"].startswith("Index"), plan
            assert plan["Plans"][0].get("Rows Removed by Filter", 0) == 0, plan
    connection.close()
