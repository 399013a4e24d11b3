"""However often a message rings and whatever it meets, its effect happens once or is seen to be dead."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import peewee
import pytest

from fleet import clock, metrics
from fleet.db import db
from fleet.embedded.server import HOST, usable_port
from fleet.errors import Conflict
from fleet.services import outbox
from tasks import delivery
from tasks.causes import database_is_away
from tests.tasks.outboxes import (
    TOPIC,
    at_once,
    last_error,
    let_leases_end,
    promised,
    received,
    row,
    rows,
    state,
    texts,
)

pytestmark = pytest.mark.usefixtures("fresh_database")


class Poison(Exception):
    """What a consumer raises for a message that it cannot digest."""


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs, no handler sees it."""


@pytest.fixture
def effects():
    """A table of effects: what a transaction undoes is not in it."""
    db.execute_sql("CREATE TABLE IF NOT EXISTS effect_of_test (message_id uuid)")
    db.execute_sql("TRUNCATE effect_of_test")
    yield
    db.execute_sql("DROP TABLE effect_of_test")


def take_effect(messages):
    for message in messages:
        db.execute_sql("INSERT INTO effect_of_test VALUES (%s)", (message.id,))


def counted_effects():
    return Counter(message_id for (message_id,) in db.rows("SELECT message_id FROM effect_of_test"))


def choking_on(poison, error: Callable[[str], BaseException] = Poison):
    """An effect that raises as soon as this message is among those it gets."""

    def effect(messages):
        take_effect(messages)
        if poison in {message.id for message in messages}:
            raise error("for Ana Silva, ana@example.com")

    return effect


def deliver(ids, effect=take_effect):
    delivery.together(TOPIC, texts(ids), effect)


def deliver_killed(ids, effect):
    """A delivery whose worker is killed in the middle: its transaction is rolled back by the server."""
    with pytest.raises(Killed):
        deliver(ids, effect)


def test_a_delivered_batch_takes_effect_and_is_confirmed(effects):
    made = promised(5)
    deliver(made)
    assert counted_effects() == dict.fromkeys(made, 1)
    assert {state(one) for one in made} == {"confirmed"}
    assert {found.deliveries for found in rows(made)} == {1}


def test_the_same_message_a_hundred_times_has_one_effect(effects):
    made = promised(2)
    for _ in range(100):
        deliver(made)
    assert counted_effects() == dict.fromkeys(made, 1)
    assert {found.deliveries for found in rows(made)} == {1}


def test_the_same_message_in_many_hands_at_once_has_one_effect(effects):
    made = promised(3)
    at_once([lambda: deliver(made)] * 8)
    assert counted_effects() == dict.fromkeys(made, 1)
    assert {state(one) for one in made} == {"confirmed"}


def test_overlapping_batches_in_opposite_order_do_not_deadlock(effects):
    made = promised(60)
    halves = [made[:40], made[20:], list(reversed(made))]
    at_once([partial(deliver, half) for half in halves * 2])
    assert counted_effects() == dict.fromkeys(made, 1)


def test_a_replayed_message_that_took_effect_is_confirmed_without_another_effect(effects):
    [made] = promised()
    deliver([made])
    db.execute_sql("UPDATE outbox SET confirmed_at = NULL, deliveries = 0")
    deliver([made])
    assert counted_effects() == {made: 1}
    assert state(made) == "confirmed"


def test_a_message_that_nobody_knows_is_passed_over(effects):
    deliver([clock.new_id()])
    assert counted_effects() == {}


def test_poison_does_not_hold_its_batch_mates(effects):
    made = promised(10)
    poison = made[4]
    deliver(made, choking_on(poison))
    healthy = [one for one in made if one != poison]
    assert counted_effects() == dict.fromkeys(healthy, 1)
    assert {state(one) for one in healthy} == {"confirmed"}
    assert state(poison) == "waiting"
    assert received(poison) == 0
    assert row(poison).next_attempt_at > clock.now()


def test_poison_is_dead_after_the_last_delivery_and_never_before(effects):
    [poison] = promised()
    for delivered in range(1, outbox.MAX_DELIVERIES + 1):
        assert state(poison) == "waiting"
        deliver([poison], choking_on(poison))
        assert row(poison).deliveries == delivered
    assert state(poison) == "dead"
    deliver([poison])
    assert counted_effects() == {}


def test_what_healed_takes_effect_at_its_next_delivery(effects):
    [made] = promised()
    deliver([made], choking_on(made))
    deliver([made])
    assert counted_effects() == {made: 1}
    assert state(made) == "confirmed"


def test_an_error_is_kept_with_its_place_and_without_what_it_says_of_people(effects, caplog):
    [poison] = promised()
    with caplog.at_level(logging.INFO, logger="tasks"):
        deliver([poison], choking_on(poison))
    assert last_error(poison).startswith("Poison")
    assert "tasks.delivery:" in last_error(poison)
    assert "Ana" not in last_error(poison)
    assert row(poison).last_error_at is not None
    assert "Ana" not in json.dumps([vars(record) for record in caplog.records], default=str)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (Conflict(code="journal_period_closed"), "Conflict journal_period_closed"),
        (peewee.IntegrityError("Key (email)=(ana@example.com)"), "IntegrityError"),
    ],
)
def test_an_error_keeps_its_code(effects, error, kept):
    [poison] = promised()
    deliver([poison], choking_on(poison, lambda _: error))
    assert last_error(poison).startswith(kept)
    assert "ana" not in last_error(poison)


def test_a_refused_constraint_is_named(effects):
    [poison] = promised()

    def doubled(messages):
        db.execute_sql("INSERT INTO tax_code (code, name, rate_bps) VALUES ('NONE', 'No tax', 0)")

    deliver([poison], doubled)
    assert last_error(poison).startswith("IntegrityError 23505 tax_code_pkey")


def test_a_kill_leaves_nothing_but_the_count(effects):
    made = promised(3)
    deliver_killed(made, choking_on(made[1], Killed))
    assert counted_effects() == {}
    assert {state(one) for one in made} == {"waiting"}
    assert {found.deliveries for found in rows(made)} == {1}
    assert [received(one) for one in made] == [0, 0, 0]


def test_a_message_that_kills_its_worker_does_not_take_its_neighbours_along(effects):
    made = promised(6)
    killer = made[2]
    kills = 0
    while state(killer) == "waiting" and kills < 20:
        try:
            deliver(made, choking_on(killer, Killed))
        except Killed:
            kills += 1
            let_leases_end()
    neighbours = [one for one in made if one != killer]
    assert kills == outbox.MAX_DELIVERIES
    assert state(killer) == "dead"
    assert "without a word" in last_error(killer)
    assert {state(one) for one in neighbours} == {"confirmed"}
    assert counted_effects() == dict.fromkeys(neighbours, 1)


def test_after_two_kills_the_neighbours_of_a_killer_are_through(effects):
    made = promised(20)
    killer = made[0]
    for _ in range(3):
        deliver_killed(made, choking_on(killer, Killed))
    assert {state(one) for one in made[1:]} == {"confirmed"}


def test_the_sweep_buries_what_kills_its_worker_even_if_it_is_never_delivered_again(effects):
    [killer] = promised()
    for _ in range(outbox.MAX_DELIVERIES):
        deliver_killed([killer], choking_on(killer, Killed))
    assert state(killer) == "waiting"
    outbox.bury_exhausted()
    assert state(killer) == "dead"


def test_an_effect_that_outlives_its_burial_still_counts(effects):
    [slow] = promised()

    def buried_meanwhile(messages):
        take_effect(messages)
        at_once([lambda: outbox.bury([slow], "taken for lost")])

    deliver([slow], buried_meanwhile)
    assert state(slow) == "confirmed"
    assert counted_effects() == {slow: 1}


def test_without_the_database_nothing_is_noted_and_the_lease_brings_the_message_back(effects, caplog):
    [made] = promised()

    def lose_connection(messages):
        db.connection().close()
        raise peewee.OperationalError("server closed the connection unexpectedly")

    with caplog.at_level(logging.WARNING, logger="tasks"):
        deliver([made], lose_connection)
    assert "left to its lease" in caplog.messages
    assert (state(made), row(made).last_error, row(made).deliveries) == ("waiting", None, 1)
    deliver([made])
    assert counted_effects() == {made: 1}


def test_one_slow_statement_is_no_lost_database(effects):
    made = promised(3)
    slow = made[1]

    def effect(messages):
        take_effect(messages)
        if slow in {message.id for message in messages}:
            db.execute_sql("SET LOCAL statement_timeout = 20")
            db.execute_sql("SELECT pg_sleep(1)")

    deliver(made, effect)
    assert [state(one) for one in made] == ["confirmed", "waiting", "confirmed"]
    assert last_error(slow).startswith("OperationalError 57014")


def test_what_does_not_fit_the_time_of_a_task_is_given_back_at_once(effects, monkeypatch):
    made = promised(3)
    outbox.claim_due(outbox.QUEUES, limit=10)
    monkeypatch.setattr(delivery, "BUDGET_S", -1.0)
    deliver(made, choking_on(made[0]))
    assert {state(one) for one in made} == {"waiting"}
    assert {claim.id for claim in outbox.claim_due(outbox.QUEUES, limit=10)} == set(made)


def test_a_second_worker_waits_for_the_first_one_and_finds_it_done(effects):
    [made] = promised()
    inside, go_on = threading.Event(), threading.Event()

    def slowly(messages):
        inside.set()
        go_on.wait(5)
        take_effect(messages)

    def second():
        inside.wait(5)
        threading.Timer(0.3, go_on.set).start()
        deliver([made])

    at_once([lambda: deliver([made], slowly), second])
    assert counted_effects() == {made: 1}


def test_deliveries_and_lag_are_measured(effects):
    done = metrics.DELIVERIES.labels(TOPIC, "done")
    failed = metrics.DELIVERIES.labels(TOPIC, "failed")
    before = done._value.get(), failed._value.get()
    made = promised(3)
    deliver(made, choking_on(made[0]))
    assert (done._value.get() - before[0], failed._value.get() - before[1]) == (2, 1)


def test_the_log_leads_from_a_delivery_to_the_request_that_asked_for_it(effects, caplog):
    made = promised(2)
    db.execute_sql("UPDATE outbox SET request_id = 'req-' || topic")
    with caplog.at_level(logging.INFO, logger="tasks"):
        deliver(made)
    [line] = [record for record in caplog.records if record.message == "handled"]
    assert vars(line)["request_ids"] == [f"req-{TOPIC}"]
    assert vars(line)["count"] == 2


def test_the_drivers_own_words_for_a_lost_server_count_as_a_lost_server():
    with pytest.raises(peewee.OperationalError) as lost:
        peewee.PostgresqlDatabase("fleet", host=HOST, port=usable_port(None)).connect()
    assert database_is_away(lost.value)
