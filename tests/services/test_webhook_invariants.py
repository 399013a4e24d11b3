"""What must never be false of webhooks, tried by hand in SQL."""

from typing import Any
from uuid import UUID

import peewee
import pytest

from fleet import clock, errors
from fleet.db import db, patience
from fleet.services import webhook_deliveries
from tests.cast import Cast, insert
from tests.endpoints import endpoint, happen

pytestmark = pytest.mark.usefixtures("fresh_database")


def listening(**values: Any) -> UUID:
    return insert("webhook_endpoint", **{"url": "https://example.com/", "secret": b"s", **values})


def waiting(**values: Any) -> UUID:
    """A delivery of an event to an endpoint."""
    event = {"type": "rental.held", "occurred_at": clock.now(), "aggregate_type": "rental", "aggregate_id": clock.new_id()}
    about = {"endpoint_id": listening(), "event_id": insert("event", **event, data={})}
    return insert("webhook_delivery", **{**about, **values})


def constraint(error: pytest.ExceptionInfo[peewee.PeeweeException]) -> str:
    return errors.constraint_of(error.value)


OFF = {"enabled": False, "disabled_at": "2026-01-01T00:00Z", "disabled_reason": "by_hand"}


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"url": "ftp://example.com/"}, "webhook_endpoint_url"),
        ({"url": "https://" + "a" * 2048}, "webhook_endpoint_url"),
        ({"event_types": []}, "webhook_endpoint_some_types"),
        ({**OFF, "enabled": True}, "webhook_endpoint_disabled_wh"),
        ({**OFF, "disabled_at": None}, "webhook_endpoint_disabled_when"),
        ({**OFF, "disabled_reason": None}, "webhook_endpoint_disabled_why"),
        ({**OFF, "disabled_reason": "tired"}, "webhook_endpoint_reason"),
        ({"secret": None}, "webhook_endpoint_secret_while_there"),
        ({**OFF, "deleted_at": "2026-01-01T00:00Z"}, "webhook_endpoint_secret_while_there"),
        ({"deleted_at": "2026-01-01T00:00Z", "secret": None}, "webhook_endpoint_deleted_is_off"),
        ({"previous_secret": b"s"}, "webhook_endpoint_previous_secret"),
    ],
)
def test_an_endpoint_that_contradicts_itself_is_refused(values: dict[str, Any], name: str) -> None:
    with pytest.raises(peewee.IntegrityError) as error:
        listening(**values)
    assert constraint(error).startswith(name)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"status": "lost"}, "webhook_delivery_status"),
        ({"status": "delivered"}, "webhook_delivery_delivered_when"),
        ({"delivered_at": "2026-01-01T00:00Z"}, "webhook_delivery_delivered_when"),
        ({"status": "dead"}, "webhook_delivery_dead_when"),
        ({"dead_at": "2026-01-01T00:00Z"}, "webhook_delivery_dead_when"),
        ({"attempts": 1, "attempts_before": 2}, "webhook_delivery_attempts"),
        ({"attempts": 1, "attempts_before": -1}, "webhook_delivery_attempts"),
        ({"response_status": 99}, "webhook_delivery_answer"),
    ],
)
def test_a_delivery_that_contradicts_itself_is_refused(values: dict[str, Any], name: str) -> None:
    with pytest.raises(peewee.IntegrityError) as error:
        waiting(**values)
    assert constraint(error) == name


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"failures": 1}, "webhook_health_failing"),
        ({"failing_since": "2026-01-01T00:00Z"}, "webhook_health_failing"),
        ({"failing_since": "2026-01-01T00:00Z", "failures": -1}, "webhook_health_counts"),
    ],
)
def test_an_endpoint_fails_since_a_time_or_not_at_all(values: dict[str, Any], name: str) -> None:
    about = {"endpoint_id": listening(), **values}
    with pytest.raises(peewee.IntegrityError) as error:
        db.execute_sql(
            f"INSERT INTO webhook_health ({', '.join(about)}) VALUES ({', '.join(['%s'] * len(about))})", tuple(about.values())
        )
    assert constraint(error) == name


def test_an_event_is_told_to_an_endpoint_once() -> None:
    waiting()
    with pytest.raises(peewee.IntegrityError) as error:
        db.execute_sql(
            "INSERT INTO webhook_delivery (id, endpoint_id, event_id) SELECT gen_random_uuid(), endpoint_id, event_id "
            "FROM webhook_delivery"
        )
    assert constraint(error) == "webhook_delivery_once"


@pytest.mark.parametrize(
    ("old", "new"),
    [("delivered", "queued"), ("delivered", "dead"), ("dead", "retrying"), ("dead", "delivered"), ("retrying", "queued")],
)
def test_a_delivery_goes_only_where_its_lifecycle_leads(old: str, new: str) -> None:
    at = {"delivered": "delivered_at", "dead": "dead_at"}
    waiting(status=old, **({at[old]: clock.now()} if old in at else {}))
    ends = ", ".join(f"{column} = {'now()' if at.get(new) == column else 'NULL'}" for column in at.values())
    with pytest.raises(peewee.IntegrityError) as error:
        db.execute_sql(f"UPDATE webhook_delivery SET status = %s, {ends}", (new,))
    assert constraint(error) == "webhook_delivery_transition"


def test_an_endpoint_is_not_deleted() -> None:
    listening()
    with pytest.raises(peewee.IntegrityError) as error:
        db.execute_sql("DELETE FROM webhook_endpoint")
    assert constraint(error) == "webhook_endpoint_kept"


def test_claiming_reads_by_indexes_however_much_waits_or_was_sent(cast: Cast) -> None:
    endpoint(cast, "http://127.0.0.1:1/")
    happen(5)
    with patience(60):
        db.execute_sql(
            """INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data, position)
            SELECT gen_random_uuid(), 'rental.held', now(), 'rental', gen_random_uuid(), '{}', n
            FROM generate_series(6, 40000) n"""
        )
        # The foreign key looks up each event by a plan that the session has made before: one for few rows reads all each time.
        db.execute_sql("ANALYZE event")
        db.execute_sql(
            """INSERT INTO webhook_delivery (id, endpoint_id, event_id, status, delivered_at, next_attempt_at)
            SELECT gen_random_uuid(), e.id, v.id, CASE WHEN position < 30000 THEN 'delivered' ELSE 'retrying' END,
                CASE WHEN position < 30000 THEN now() END, now() + interval '1 hour'
            FROM webhook_endpoint e, event v WHERE position > 5"""
        )
        db.execute_sql("ANALYZE webhook_delivery")
    values = {"most": 20, "lease_s": 60, "limit": 500}
    for sql in (webhook_deliveries.models.ANY_DUE, webhook_deliveries.models.CLAIM % values):
        plan = "\n".join(line for (line,) in db.rows(f"EXPLAIN {sql}"))
        assert "Seq Scan on webhook_delivery" not in plan, plan
