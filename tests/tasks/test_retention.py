"""What served its purpose is forgotten in time, what waits for a person is not, and two sweeps do not mind each other."""

import itertools
from datetime import timedelta
from types import SimpleNamespace
from uuid import UUID

import peewee
import pytest

from fleet import clock
from fleet.db import db
from fleet.models.events import FORGET_EVENTS
from fleet.models.promises import Inbox, Outbox
from fleet.services import retention
from tasks import maintenance
from tests.cast import insert
from tests.tasks.outboxes import TOPIC, at_once

pytestmark = pytest.mark.usefixtures("fresh_database")


_numbers = itertools.count()


def promised(days_ago: float, **values) -> UUID:
    """A promise of so many days ago, with its inbox row of the same time."""
    then = clock.now() - timedelta(days=days_ago)
    made = UUID(int=retention.first_id_of(then).int + next(_numbers))
    about = {"aggregate_type": "invoice", "aggregate_id": made, "topic": TOPIC, "queue": "accounting"}
    Outbox.create(id=made, **about, **values)
    Inbox.create(consumer=TOPIC, message_id=made, processed_at=then)
    return made


def done(days_ago: float) -> UUID:
    """A promise of so many days ago that was confirmed at once."""
    return promised(days_ago, confirmed_at=clock.now() - timedelta(days=days_ago))


def answered(hours_ago: float, key: str) -> None:
    db.execute_sql(
        """INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body, created_at)
        VALUES ('user:1', 'POST', '/v1/x', %s, 'f', 201, '{}', '', now() - interval '1 hour' * %s)""",
        (key, hours_ago),
    )


def test_confirmed_promises_are_kept_for_a_week():
    done(6.9)
    done(7.1)
    assert retention.forget_old()["outbox"] == 1
    assert Outbox.select().count() == 1


def test_promises_that_wait_or_are_dead_are_kept_for_ever():
    promised(400)
    promised(400, dead_at=clock.now())
    assert retention.forget_old()["outbox"] == 0


def test_what_was_replayed_late_is_remembered_from_then_on():
    """Or a second worker that has the same message in hand would find nobody who knows that it was done."""
    late = promised(400, confirmed_at=clock.now())
    Inbox.update(processed_at=clock.now()).where(Inbox.message_id == late).execute()
    forgotten = retention.forget_old()
    assert (forgotten["outbox"], forgotten["inbox"]) == (0, 0)


def test_a_discarded_letter_is_kept_for_half_a_year():
    for days in (179, 181):
        then = clock.now() - timedelta(days=days)
        promised(400, dead_at=then, discarded_at=then, discarded_by="cli:root", discard_reason="of no use")
    assert retention.forget_old()["discarded"] == 1
    assert Outbox.select().count() == 1


def test_the_inbox_remembers_longer_than_the_outbox():
    done(7.5)
    done(8.1)
    forgotten = retention.forget_old()
    assert (forgotten["outbox"], forgotten["inbox"]) == (2, 1)


def test_stored_answers_are_kept_for_a_day():
    answered(23.9, "young")
    answered(24.1, "old")
    assert retention.forget_old()["idempotency_record"] == 1
    assert db.rows("SELECT key FROM idempotency_record") == [("young",)]


def test_a_run_forgets_in_batches_and_the_next_one_goes_on(monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    for _ in range(5):
        done(9)
    assert retention.forget_old()["outbox"] == 5
    tables = len(retention.forget_old())
    for _ in range(5):
        done(9)
    # One look at the clock at the start and one before each statement: each table's first and the second of the outbox.
    ticks = itertools.chain([0.0] * (1 + tables + 1), itertools.repeat(9.0))
    with monkeypatch.context() as patch:
        patch.setattr(retention, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
        forgotten = retention.forget_old()
    assert (forgotten["outbox"], forgotten["inbox"]) == (4, 2)
    assert [retention.forget_old()["outbox"] for _ in range(2)] == [1, 0]


def test_a_table_that_fails_keeps_no_other_from_its_turn(monkeypatch, caplog):
    monkeypatch.setattr(retention, "FORGET_CONFIRMED", "DELETE FROM outbox WHERE 1 / (%(limit)s - %(limit)s) = 0")
    done(9)
    forgotten = retention.forget_old()
    assert (forgotten["outbox"], forgotten["inbox"]) == (0, 1)
    assert caplog.messages == ["not forgotten"]


def test_without_the_database_a_run_ends(monkeypatch):
    def away(*_):
        raise peewee.OperationalError("server closed the connection")

    monkeypatch.setattr(db, "execute_sql", away)
    with pytest.raises(peewee.OperationalError):
        retention.forget_old()


def test_an_event_waits_for_its_deliveries_and_for_no_others(monkeypatch):
    monkeypatch.setattr(retention, "FORGET_DELIVERIES", "DELETE FROM webhook_delivery WHERE %(limit)s < 0")
    insert("webhook_endpoint", url="https://example.com/", secret=b"s")
    [(endpoint_id,)] = db.rows("SELECT id FROM webhook_endpoint")
    told, untold = (retention.first_id_of(clock.now() - timedelta(days=days)) for days in (92, 91))
    for position, event_id in enumerate((told, untold), 1):
        about = {"type": "rental.held", "aggregate_type": "rental", "aggregate_id": event_id, "data": {}}
        insert("event", id=event_id, occurred_at=clock.now() - timedelta(days=91), position=position, **about)
    insert("webhook_delivery", id=told, endpoint_id=endpoint_id, event_id=told)
    assert retention.forget_old()["event"] == 1
    assert db.rows("SELECT id FROM event") == [(told,)]


def test_whether_a_delivery_refers_to_an_event_is_found_by_its_index():
    db.execute_sql("SET enable_seqscan = off")
    try:
        values = {"before": retention.first_id_of(clock.now()), "limit": 10}
        plan = "\n".join(line for (line,) in db.rows(f"EXPLAIN {FORGET_EVENTS}", values))
    finally:
        db.execute_sql("RESET enable_seqscan")
    assert "using webhook_delivery_once" in plan


def test_two_sweeps_at_once_share_the_work():
    for number in range(60):
        done(9)
        answered(30, f"{number}")
    swept = at_once([retention.forget_old] * 3)
    assert sum(counts["outbox"] for counts in swept) == 60
    assert sum(counts["idempotency_record"] for counts in swept) == 60


def test_ids_below_the_first_id_of_an_instant_are_older():
    bound = retention.first_id_of(clock.now() - timedelta(milliseconds=5))
    assert bound < clock.new_id() < retention.first_id_of(clock.now() + timedelta(milliseconds=5))


@pytest.mark.parametrize(
    "name", ["expire_holds", "extend_overdue", "give_up_no_shows", "bury_exhausted", "forget_old", "promise_notices"]
)
def test_every_sweep_is_harmless_when_there_is_nothing_to_do(name):
    for _ in range(2):
        getattr(maintenance, name)()


def test_a_session_is_remembered_for_a_month_after_its_end(cast):
    for person, days, name in ((cast.ana, 29.9, "young"), (cast.ben, 30.1, "old")):
        db.execute_sql(
            "UPDATE user_session SET ended_at = now() - interval '1 day' * %s, end_reason = %s WHERE id = %s",
            (days, name, person.session_id),
        )
    assert retention.forget_old()["user_session"] == 1
    assert db.rows("SELECT end_reason FROM user_session WHERE ended_at IS NOT NULL") == [("young",)]


def test_a_session_that_expired_counts_as_ended_and_takes_its_tokens_along(cast):
    session_id = cast.ana.session_id
    db.execute_sql("UPDATE user_session SET expires_at = now() - interval '31 days' WHERE id = %s", (session_id,))
    db.execute_sql("INSERT INTO refresh_token (token_hash, session_id) VALUES ('a', %s)", (session_id,))
    assert retention.forget_old()["user_session"] == 1
    assert db.rows("SELECT 1 FROM refresh_token") == []


def test_a_refresh_token_is_remembered_as_long_as_it_could_have_been_used(cast):
    for name, days in (("young", 29.9), ("old", 30.1)):
        db.execute_sql(
            """INSERT INTO refresh_token (token_hash, session_id, issued_at)
            VALUES (%s, %s, now() - interval '1 day' * %s)""",
            (name.encode(), cast.ana.session_id, days),
        )
    assert retention.forget_old()["refresh_token"] == 1
    assert [bytes(token) for (token,) in db.rows("SELECT token_hash FROM refresh_token")] == [b"young"]


def test_failed_sign_ins_are_forgotten_when_they_no_longer_count():
    for name, minutes in ((b"young", 14.9), (b"old", 15.1)):
        db.execute_sql("INSERT INTO login_throttle VALUES (%s, 3, now() - interval '1 minute' * %s)", (name, minutes))
    assert retention.forget_old()["login_throttle"] == 1
    assert [bytes(name) for (name,) in db.rows("SELECT account_hash FROM login_throttle")] == [b"young"]
