"""Many write events at once, some slowly, some in vain, while others read: nobody misses one or sees one twice."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import pytest

from fleet import clock
from fleet.db import db, transaction
from fleet.models.events import events_after
from fleet.services import events
from tests.cast import Cast
from tests.races.meeting import Meeting, in_one_transaction
from tests.races.mutation import without

WRITERS, ROUNDS, SEQUENCERS, THINGS = 12, 25, 2, 6

Told = dict[str, Any]


class InVain(Exception):
    """Ends a transaction that is to be rolled back."""


def one_more(thing: UUID, counters: dict[UUID, int], chance: random.Random) -> None:
    """A fact about a thing, told in its own transaction, with its number in the order of the commits to that thing."""
    slow, vain = chance.random() < 0.3, chance.random() < 0.2
    with transaction():
        # As every service does before it changes a thing.
        db.rows("SELECT 1 FROM vehicle WHERE id = %s FOR UPDATE", (thing,))
        events.record("vehicle.status_changed", "vehicle", thing, {"nth": counters[thing] + 1})
        if slow:
            time.sleep(chance.uniform(0, 0.02))
        if vain:
            raise InVain
        # Under the lock: read and counted by one at a time, and only where it commits.
        counters[thing] += 1


def write(things: list[UUID], counters: dict[UUID, int], seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(ROUNDS):
        with suppress(InVain):
            one_more(chance.choice(things), counters, chance)
    db.close()


@contextmanager
def running(*works: Callable[[], Any]) -> Iterator[list[Exception]]:
    """Threads that do their work over and over until the block ends; what they raised is there afterwards."""
    done, raised = threading.Event(), []

    def again(work: Callable[[], Any]) -> None:
        try:
            while not done.is_set():
                work()
        except Exception as error:
            raised.append(error)
        finally:
            db.close()

    threads = [threading.Thread(target=again, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield raised
    finally:
        done.set()
        for thread in threads:
            thread.join(20)


class Reader:
    """Somebody who polls the stream and goes on after the last event that they have."""

    def __init__(self) -> None:
        self.seen: list[Told] = []

    def poll(self) -> None:
        after = self.seen[-1]["sequence"] if self.seen else 0
        self.seen += events_after(after, type_=None, limit=7)


def committed() -> set[str]:
    return {f"{event_id}" for (event_id,) in db.rows("SELECT id FROM event")}


def test_a_reader_sees_every_committed_event_once_and_in_order(cast: Cast) -> None:
    things = [cast.vehicle() for _ in range(THINGS)]
    counters: dict[UUID, int] = defaultdict(int)
    reader = Reader()
    with running(*[lambda: events.put_in_order(limit=3)] * SEQUENCERS, reader.poll) as raised:
        with ThreadPoolExecutor(WRITERS) as writers:
            for work in [writers.submit(write, things, counters, seed) for seed in range(WRITERS)]:
                work.result()
        deadline = time.monotonic() + 20
        while len(reader.seen) < sum(counters.values()) and time.monotonic() < deadline and not raised:
            time.sleep(0.01)
    assert not raised, f"not one after the other: {raised}"
    sequences = [event["sequence"] for event in reader.seen]
    assert sequences == list(range(1, len(sequences) + 1)), "a gap, or out of order"
    seen = [event["id"] for event in reader.seen]
    assert set(seen) == committed() and len(seen) == len(set(seen)), "missed or seen twice"
    by_thing: dict[str, list[int]] = defaultdict(list)
    for event in reader.seen:
        by_thing[event["aggregate_id"]].append(event["data"]["nth"])
    expected = {f"{thing}": list(range(1, count + 1)) for thing, count in counters.items()}
    assert by_thing == expected, "a thing's events out of order"


def tell() -> None:
    events.record("vehicle.status_changed", "vehicle", clock.new_id(), {})


def test_an_event_whose_transaction_takes_longer_comes_later_and_is_not_missed(cast: Cast, meet: Meeting) -> None:
    reader, missing = Reader(), Reader()

    def by_insertion() -> None:
        """What a reader would do that trusts the order of insertion."""
        after = missing.seen[-1]["sequence"] if missing.seen else 0
        rows = db.rows("SELECT id::text, insert_order FROM event WHERE insert_order > %s ORDER BY insert_order", (after,))
        missing.seen += [{"id": event_id, "sequence": order} for event_id, order in rows]

    def quick() -> None:
        tell()
        events.put_in_order()
        reader.poll()
        by_insertion()

    slow, other = meet(in_one_transaction(tell), quick)
    assert (slow.error, other.error, len(reader.seen)) == (None, None, 1)
    events.put_in_order()
    reader.poll()
    by_insertion()
    assert [event["sequence"] for event in reader.seen] == [1, 2]
    assert {event["id"] for event in reader.seen} == committed()
    assert len(missing.seen) == 1, "without a sequencer nobody would miss anything either, and it could go"


def test_two_sequencers_do_not_place_the_same_event(cast: Cast, meet: Meeting) -> None:
    tell()
    place = in_one_transaction(events.put_in_order)
    one, other = meet(place, place)
    assert not other.waited, "not one after the other"
    assert (one.result, other.result) == (1, 0), "not one after the other"
    tell()
    events.put_in_order()
    assert db.rows("SELECT position FROM event ORDER BY position") == [(1,), (2,)], "a gap"


def test_a_sequencer_that_is_lost_leaves_no_gap(cast: Cast) -> None:
    tell()
    with pytest.raises(InVain), transaction():
        events.put_in_order()
        raise InVain
    tell()
    assert events.put_in_order() == 2
    assert db.rows("SELECT position FROM event ORDER BY position") == [(1,), (2,)]


def test_a_reader_does_not_wait_for_the_sequencer(cast: Cast, meet: Meeting) -> None:
    tell()
    reader = Reader()
    _, reading = meet(in_one_transaction(events.put_in_order), reader.poll)
    assert (reading.error, reading.waited, reader.seen) == (None, False, [])


def test_a_fact_does_not_wait_for_the_sequencer(cast: Cast, meet: Meeting) -> None:
    tell()
    _, telling = meet(in_one_transaction(events.put_in_order), tell)
    assert (telling.error, telling.waited) == (None, False)


@pytest.mark.mutation
def test_without_one_sequencer_at_a_time_the_crowd_shows_it(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    with without(monkeypatch, "SEQUENCER"), pytest.raises(AssertionError, match=r"not one after the other|a gap"):
        test_a_reader_sees_every_committed_event_once_and_in_order(cast)
