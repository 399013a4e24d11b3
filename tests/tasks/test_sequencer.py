"""Events get their places at full pace, whatever keeps the relay waiting."""

import logging
import os
import signal
import threading
import time

import peewee
import pytest
import redis

from fleet import clock
from fleet.db import db
from fleet.embedded import Databases
from fleet.services import events, outbox
from tasks import topics
from tasks.broker import Broker
from tasks.relay import Relay
from tasks.sequencer import POLL_S, Sequencer, SequencerDied
from tasks.troubles import RECOVERY_S

pytestmark = pytest.mark.usefixtures("broker")

# From its commit to its place; the broker's own timeouts are 1 to 3 s. What a busy machine adds is in it.
AT_ONCE_S = 0.8


def place_of(event_id: object) -> int | None:
    [position] = db.one("SELECT position FROM event WHERE id = %s", (event_id,)) or (None,)
    return position


def await_place(event_id: object, timeout_s: float = 20) -> float:
    """How long it took until the event had its place, in seconds."""
    started = time.monotonic()
    while place_of(event_id) is None:
        assert time.monotonic() < started + timeout_s, "the event has got no place"
        time.sleep(0.01)
    return time.monotonic() - started


def test_a_frozen_broker_keeps_no_event_from_its_place(broker: Broker, databases: Databases) -> None:
    relay = Relay(broker, known=topics(), limits=dict.fromkeys(outbox.QUEUES, 100))
    running = threading.Thread(target=relay.run)
    running.start()
    with redis.Redis.from_url(databases.redis_url) as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        waited_s = []
        for _ in range(6):
            waited_s.append(await_place(events.record("rental.held", "rental", clock.new_id(), {})))
            time.sleep(0.3)
    finally:
        os.kill(pid, signal.SIGCONT)
        relay.stop()
        running.join(20)
    assert max(waited_s) < AT_ONCE_S


def test_a_full_batch_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PLACED_AT_ONCE", 2)
    placed = iter([2, 1])
    monkeypatch.setattr(events, "put_in_order", lambda: next(placed))
    one = Sequencer()
    assert [one.turn(), one.turn()] == [0.0, POLL_S]


@pytest.mark.parametrize("kind", ["IntegrityError", "ProgrammingError", "InternalError", "OperationalError"])
def test_what_the_database_refuses_is_told_once_and_tried_again(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing() -> int:
        raise getattr(peewee, kind)("no")

    made, one = events.record("rental.held", "rental", clock.new_id(), {}), Sequencer()
    with caplog.at_level(logging.INFO, logger="tasks"):
        with monkeypatch.context() as patch:
            patch.setattr(events, "put_in_order", failing)
            assert [one.turn(), one.turn()] == [RECOVERY_S, RECOVERY_S]
        assert one.turn() == POLL_S
    assert caplog.messages == ["sequencer interrupted", "sequencer goes on"]
    assert place_of(made) is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_relay_ends_when_its_sequencer_has_died(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(events, "put_in_order", broken)
    with pytest.raises(SequencerDied):
        Relay(broker, known=topics(), limits=dict.fromkeys(outbox.QUEUES, 100)).run()


def test_it_stops_within_a_moment() -> None:
    one = Sequencer()
    one.start()
    started = time.monotonic()
    one.stop()
    assert time.monotonic() - started < AT_ONCE_S
    with pytest.raises(SequencerDied):
        one.check()
