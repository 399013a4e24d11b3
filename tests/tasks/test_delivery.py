"""However often a message rings, and in how many hands it is, its effect happens once."""

import logging
import threading
from functools import partial

import peewee
import pytest

from fleet import clock, metrics
from fleet.db import db
from fleet.embedded.server import HOST, usable_port
from fleet.outages import database_is_away
from fleet.services import outbox
from tasks import delivery
from tests.tasks.consuming import choking_on, counted_effects, deliver, take_effect
from tests.tasks.outboxes import TOPIC, at_once, last_error, promised, row, rows, state

pytestmark = pytest.mark.usefixtures("effects")


def test_a_delivered_batch_takes_effect_and_is_confirmed():
    made = promised(5)
    deliver(made)
    assert counted_effects() == dict.fromkeys(made, 1)
    assert {state(one) for one in made} == {"confirmed"}
    assert {found.deliveries for found in rows(made)} == {1}


def test_the_same_message_a_hundred_times_has_one_effect():
    made = promised(2)
    for _ in range(100):
        deliver(made)
    assert counted_effects() == dict.fromkeys(made, 1)
    assert {found.deliveries for found in rows(made)} == {1}


def test_the_same_message_in_many_hands_at_once_has_one_effect():
    made = promised(3)
    at_once([lambda: deliver(made)] * 8)
    assert counted_effects() == dict.fromkeys(made, 1)
    assert {state(one) for one in made} == {"confirmed"}


def test_overlapping_batches_in_opposite_order_do_not_deadlock():
    made = promised(60)
    halves = [made[:40], made[20:], list(reversed(made))]
    at_once([partial(deliver, half) for half in halves * 2])
    assert counted_effects() == dict.fromkeys(made, 1)


def test_a_replayed_message_that_took_effect_is_confirmed_without_another_effect():
    [made] = promised()
    deliver([made])
    db.execute_sql("UPDATE outbox SET confirmed_at = NULL, deliveries = 0")
    deliver([made])
    assert counted_effects() == {made: 1}
    assert state(made) == "confirmed"


def test_a_message_that_nobody_knows_is_passed_over():
    deliver([f"{clock.new_id()}"])
    assert counted_effects() == {}


def test_without_the_database_nothing_is_noted_and_the_lease_brings_the_message_back(caplog):
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


def test_one_slow_statement_is_no_lost_database():
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


def test_what_does_not_fit_the_time_of_a_task_is_given_back_at_once(monkeypatch):
    made = promised(3)
    outbox.claim_due(dict.fromkeys(outbox.QUEUES, 10))
    monkeypatch.setattr(delivery, "BUDGET_S", -1.0)
    deliver(made, choking_on(made[0]))
    assert {state(one) for one in made} == {"waiting"}
    assert {claim.id for claim in outbox.claim_due(dict.fromkeys(outbox.QUEUES, 10))} == set(made)


def test_a_second_worker_waits_for_the_first_one_and_finds_it_done():
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


def test_deliveries_and_lag_are_measured():
    done = metrics.DELIVERIES.labels(TOPIC, "done")
    failed = metrics.DELIVERIES.labels(TOPIC, "failed")
    before = done._value.get(), failed._value.get()
    made = promised(3)
    deliver(made, choking_on(made[0]))
    assert (done._value.get() - before[0], failed._value.get() - before[1]) == (2, 1)


def test_the_log_leads_from_a_delivery_to_the_request_that_asked_for_it(caplog):
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
