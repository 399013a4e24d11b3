"""What accounting does for one aggregate takes effect in the order of the facts, whichever worker has what, and who fails."""

import random
import threading
from functools import partial
from uuid import UUID

import pytest

from fleet import clock
from fleet.services import outbox
from tests.tasks.consuming import Poison, choking_on, counted_effects, deliver, take_effect
from tests.tasks.outboxes import TOPIC, at_once, let_leases_end, row, state, texts

pytestmark = pytest.mark.usefixtures("effects")


def in_this_order(aggregate_id: UUID, count: int = 2) -> list[str]:
    """Promises about one aggregate, the eldest first: an invoice and its credit note, an entry and its reversal."""
    return texts(outbox.promise(TOPIC, "invoice", aggregate_id) for _ in range(count))


def test_the_younger_waits_while_another_worker_has_the_elder():
    elder, younger = in_this_order(clock.new_id())
    in_hand, go_on = threading.Event(), threading.Event()

    def slowly(messages):
        take_effect(messages)
        in_hand.set()
        assert go_on.wait(10)

    def hurry():
        in_hand.wait(10)
        deliver([younger])
        seen = state(younger)
        go_on.set()
        return seen

    assert at_once([lambda: deliver([elder], slowly), hurry])[1] == "waiting"
    assert (state(elder), state(younger)) == ("confirmed", "waiting")
    assert row(younger).deliveries == 0, "to wait for one's turn is no delivery"
    deliver([younger])
    assert counted_effects() == {elder: 1, younger: 1}


def test_the_younger_waits_until_the_elder_that_failed_has_come_again():
    elder, younger = in_this_order(clock.new_id())
    deliver([elder], choking_on(elder))
    deliver([younger])
    assert counted_effects() == {}
    deliver([elder])
    deliver([younger])
    assert counted_effects() == {elder: 1, younger: 1}


def test_in_one_batch_the_elder_that_fails_holds_the_younger_and_nobody_else():
    elder, younger = in_this_order(clock.new_id())
    [stranger] = in_this_order(clock.new_id(), 1)
    deliver([younger, stranger, elder], choking_on(elder))
    assert [state(one) for one in (elder, younger, stranger)] == ["waiting", "waiting", "confirmed"]
    deliver([younger, elder])
    assert counted_effects() == {elder: 1, younger: 1, stranger: 1}


def test_a_dead_elder_holds_nobody():
    elder, younger = in_this_order(clock.new_id())
    outbox.bury([elder], "no use")
    deliver([younger])
    assert counted_effects() == {younger: 1}


def test_letters_are_held_by_nobody():
    about = clock.new_id()
    first, second = texts(outbox.promise("notifications.rental_held", "rental", about) for _ in range(2))
    assert outbox.out_of_turn([second]) == []
    assert outbox.unfinished([first]) == [first]


@pytest.mark.parametrize("seed", range(3))
def test_workers_that_fail_at_random_keep_the_order_of_every_aggregate(seed):
    dice = random.Random(seed)
    promises = {aggregate: in_this_order(aggregate, 4) for aggregate in (clock.new_id() for _ in range(6))}
    everything = [promise for line in promises.values() for promise in line]
    took_effect: list[str] = []

    def effect(messages):
        if dice.random() < 0.3:
            raise Poison
        take_effect(messages)
        took_effect.extend(message.id for message in messages)

    for _ in range(200):
        waiting = [promise for promise in everything if state(promise) == "waiting"]
        if not waiting:
            break
        let_leases_end()
        dice.shuffle(waiting)
        at_once([partial(deliver, waiting[worker::3], effect) for worker in range(3)])
    done = [promise for promise in everything if state(promise) == "confirmed"]
    assert counted_effects() == dict.fromkeys(done, 1)
    for line in promises.values():
        kept = [promise for promise in took_effect if promise in line and state(promise) == "confirmed"]
        assert kept == sorted(kept)
    assert len(done) > len(everything) / 2
