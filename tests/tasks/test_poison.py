"""A message that raises or kills its worker is tried so often and no oftener, ends visibly dead, and harms no other."""

import json
import logging

import peewee
import pytest

from fleet import clock
from fleet.db import db
from fleet.errors import Conflict
from fleet.services import outbox
from tests.tasks.consuming import Killed, choking_on, counted_effects, deliver, deliver_killed, take_effect
from tests.tasks.outboxes import at_once, last_error, let_leases_end, promised, received, row, rows, state

pytestmark = pytest.mark.usefixtures("effects")


def test_poison_does_not_hold_its_batch_mates():
    made = promised(10)
    poison = made[4]
    deliver(made, choking_on(poison))
    healthy = [one for one in made if one != poison]
    assert counted_effects() == dict.fromkeys(healthy, 1)
    assert {state(one) for one in healthy} == {"confirmed"}
    assert state(poison) == "waiting"
    assert received(poison) == 0
    assert row(poison).next_attempt_at > clock.now()


def test_poison_is_dead_after_the_last_delivery_and_never_before():
    [poison] = promised()
    for delivered in range(1, outbox.MAX_DELIVERIES + 1):
        assert state(poison) == "waiting"
        deliver([poison], choking_on(poison))
        assert row(poison).deliveries == delivered
    assert state(poison) == "dead"
    deliver([poison])
    assert counted_effects() == {}


def test_what_healed_takes_effect_at_its_next_delivery():
    [made] = promised()
    deliver([made], choking_on(made))
    deliver([made])
    assert counted_effects() == {made: 1}
    assert state(made) == "confirmed"


def test_an_error_is_kept_with_its_place_and_without_what_it_says_of_people(caplog):
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
def test_an_error_keeps_its_code(error, kept):
    [poison] = promised()
    deliver([poison], choking_on(poison, lambda _: error))
    assert last_error(poison).startswith(kept)
    assert "ana" not in last_error(poison)


def test_a_refused_constraint_is_named():
    [poison] = promised()

    def doubled(messages):
        db.execute_sql("INSERT INTO tax_code (code, name, rate_bps) VALUES ('NONE', 'No tax', 0)")

    deliver([poison], doubled)
    assert last_error(poison).startswith("IntegrityError 23505 tax_code_pkey")


def test_a_kill_leaves_nothing_but_the_count():
    made = promised(3)
    deliver_killed(made, choking_on(made[1], Killed))
    assert counted_effects() == {}
    assert {state(one) for one in made} == {"waiting"}
    assert {found.deliveries for found in rows(made)} == {1}
    assert [received(one) for one in made] == [0, 0, 0]


def test_a_message_that_kills_its_worker_does_not_take_its_neighbours_along():
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


def test_after_two_kills_the_neighbours_of_a_killer_are_through():
    made = promised(20)
    killer = made[0]
    for _ in range(3):
        deliver_killed(made, choking_on(killer, Killed))
    assert {state(one) for one in made[1:]} == {"confirmed"}


def test_the_sweep_buries_what_kills_its_worker_even_if_it_is_never_delivered_again():
    [killer] = promised()
    for _ in range(outbox.MAX_DELIVERIES):
        deliver_killed([killer], choking_on(killer, Killed))
    assert state(killer) == "waiting"
    outbox.bury_exhausted()
    assert state(killer) == "dead"


def test_an_effect_that_outlives_its_burial_still_counts():
    [slow] = promised()

    def buried_meanwhile(messages):
        take_effect(messages)
        at_once([lambda: outbox.bury([slow], "taken for lost")])

    deliver([slow], buried_meanwhile)
    assert state(slow) == "confirmed"
    assert counted_effects() == {slow: 1}
