"""The relay carries what is due to the broker, and survives the loss of either side."""

import base64
import json
import logging
import threading
import time

import peewee
import pytest
import redis

from fleet import clock
from fleet.db import db
from fleet.embedded import Databases
from fleet.services import outbox
from tasks import app, backpressure, relay, topics, webhooks
from tasks.broker import Broker, BrokerAway
from tasks.relay import Relay
from tasks.troubles import RECOVERY_S
from tests.tasks.outboxes import TOPIC, let_leases_end, promised, row, rows, state

pytestmark = pytest.mark.usefixtures("broker")

LETTER = "notifications.rental_held"


@pytest.fixture
def queued(databases: Databases):
    """The messages in a queue: task and ids of each, oldest first."""

    def read(queue: str) -> list[tuple[str, list[str]]]:
        with redis.Redis.from_url(databases.redis_url) as client:
            raw = [json.loads(message) for message in reversed(client.lrange(f"fleet:{queue}", 0, -1))]
        return [(message["headers"]["task"], json.loads(base64.b64decode(message["body"]))[0][0]) for message in raw]

    return read


@pytest.fixture
def new_relay(broker: Broker, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backpressure, "LOOK_EVERY_S", 0.0)

    def make(limit: int = 100, broker: Broker = broker) -> Relay:
        return Relay(broker, known=topics(), limits=dict.fromkeys(outbox.QUEUES, limit))

    return make


class DeafBroker:
    """Answers about its depth and takes so many messages, no more."""

    def __init__(self, takes: int) -> None:
        self.left = takes
        self.taken: list = []

    def depth(self, queue: str) -> int:
        return 0

    def publish(self, topic, queue, ids) -> None:
        if not self.left:
            raise BrokerAway("Connection refused")
        self.left -= 1
        self.taken += ids

    def close(self) -> None:
        pass


def test_what_is_due_is_published_once(new_relay, queued):
    made = promised(3)
    new_relay().turn()
    new_relay().turn()
    assert queued("accounting") == [(TOPIC, made)]
    assert [found.publishes for found in rows(made)] == [1, 1, 1]


def test_one_message_rings_for_a_batch_of_one_topic(new_relay, queued, monkeypatch):
    monkeypatch.setattr(relay, "USUAL_BATCH", 4)
    promised(10)
    promised(25, topic=LETTER)
    new_relay().turn()
    assert [len(ids) for _, ids in queued("accounting")] == [4, 4, 2]
    assert [len(ids) for _, ids in queued("notifications")] == [10, 10, 5]


def test_two_relays_share_the_work(new_relay, queued, broker):
    made = promised(1200)
    stopped = [new_relay(), new_relay(broker=Broker(broker._app))]
    workers = [threading.Thread(target=one.run) for one in stopped]
    for worker in workers:
        worker.start()
    while db.one("SELECT count(*) FROM outbox WHERE publishes = 0") != (0,):
        time.sleep(0.02)
    for one in stopped:
        one.stop()
    for worker in workers:
        worker.join(10)
    sent = [one for _, ids in queued("accounting") for one in ids]
    assert sorted(sent) == sorted(made)


def test_a_message_that_the_broker_lost_is_published_again_when_its_lease_ends(new_relay, queued, databases):
    [made] = promised()
    new_relay().turn()
    with redis.Redis.from_url(databases.redis_url) as client:
        client.flushall()
    new_relay().turn()
    assert queued("accounting") == []
    let_leases_end()
    new_relay().turn()
    assert queued("accounting") == [(TOPIC, [made])]


def test_what_could_not_be_published_is_due_again_at_once_and_the_rest_is_not(new_relay, monkeypatch):
    monkeypatch.setattr(relay, "USUAL_BATCH", 2)
    made = promised(6)
    deaf = DeafBroker(takes=1)
    with pytest.raises(BrokerAway):
        new_relay(broker=deaf).turn()
    assert deaf.taken == made[:2]
    assert [found.publishes for found in rows(made)] == [1, 1, 0, 0, 0, 0]
    time.sleep(1.1 * RECOVERY_S)
    well = DeafBroker(takes=10)
    new_relay(broker=well).turn()
    assert well.taken == made[2:]


def test_nothing_is_claimed_while_the_broker_is_away(new_relay, databases):
    [made] = promised()
    databases.redis.stop()
    try:
        with pytest.raises(BrokerAway):
            new_relay().turn()
    finally:
        databases.redis.start()
    assert row(made).publishes == 0


def test_the_relay_goes_on_by_itself_when_the_broker_and_the_database_come_back(new_relay, queued, databases, caplog):
    one = new_relay()
    worker = threading.Thread(target=one.run)
    with caplog.at_level(logging.INFO, logger="tasks"):
        worker.start()
        try:
            databases.redis.stop()
            _await(lambda: caplog.messages.count("relay interrupted") == 1)
            databases.redis.start()
            _await(lambda: caplog.messages.count("relay goes on") == 1)
            databases.postgres.stop()
            _await(lambda: caplog.messages.count("relay interrupted") == 2)
            databases.postgres.start()
            db.close()
            _await(_database_is_back)
            promised(2)
            _await(lambda: len(queued("accounting")) == 1)
        finally:
            one.stop()
            worker.join(10)
    assert not worker.is_alive()
    assert caplog.messages[-1] == "relay stopped"


def test_an_unknown_topic_waits_for_a_newer_relay_and_holds_nobody(new_relay, queued):
    [strange] = promised(topic="accounting.conjure")
    [known] = promised()
    new_relay().turn()
    assert (state(strange), row(strange).last_error) == ("waiting", "no consumer has this topic")
    assert 50 < (row(strange).next_attempt_at - clock.now()).total_seconds() < 70
    assert queued("accounting") == [(TOPIC, [known])]
    let_leases_end()
    newer = Relay(Broker(app), known={"accounting.conjure"}, limits=dict.fromkeys(outbox.QUEUES, 100))
    newer.turn()
    assert queued("accounting")[1:] == [("accounting.conjure", [strange])]


def test_an_unknown_topic_is_dead_after_an_hour_of_looks(new_relay, caplog):
    [strange] = promised(topic="accounting.conjure")
    one = new_relay()
    for _ in range(outbox.UNKNOWN_LOOKS - 1):
        one.turn()
        let_leases_end()
    assert state(strange) == "waiting"
    one.turn()
    assert (state(strange), row(strange).last_error) == ("dead", "no consumer has this topic")
    assert "dead letters: no consumer" in caplog.messages
    assert outbox.UNKNOWN_LOOKS * outbox.UNKNOWN_PAUSE_S == 3600


def test_a_sweep_is_no_topic():
    assert not [topic for topic in topics() if topic.startswith("maintenance.")]


def test_a_full_queue_pauses_and_the_others_go_on(new_relay, queued, monkeypatch, databases):
    monkeypatch.setattr(relay, "USUAL_BATCH", 1)
    monkeypatch.setattr(relay, "CLAIM_LIMIT", 2)
    [*held] = promised(8)
    one = new_relay(limit=4)
    for _ in range(4):
        one.turn()
    promised(topic=LETTER)
    one.turn()
    assert len(queued("accounting")) == 4
    assert len(queued("notifications")) == 1
    assert sum(found.publishes for found in rows(held)) == 4

    with redis.Redis.from_url(databases.redis_url) as client:
        client.lpop("fleet:accounting")
    one.turn()
    assert len(queued("accounting")) == 3, "resumed before the queue was half empty"
    with redis.Redis.from_url(databases.redis_url) as client:
        client.delete("fleet:accounting")
    one.turn()
    assert len(queued("accounting")) == 2


def test_a_relay_that_is_told_to_stop_ends_after_its_batch(new_relay, queued):
    one = new_relay()
    made = promised(2)
    worker = threading.Thread(target=one.run)
    worker.start()
    _await(lambda: queued("accounting"))
    one.stop()
    worker.join(5)
    assert not worker.is_alive()
    assert [found.publishes for found in rows(made)] == [1, 1]


@pytest.mark.parametrize("kind", ["IntegrityError", "ProgrammingError", "InternalError", "OperationalError"])
def test_what_fails_before_the_promises_keeps_none_of_them_waiting(new_relay, queued, monkeypatch, caplog, kind):
    def failing(*_, **__):
        raise getattr(peewee, kind)("no")

    usual = webhooks.ring
    monkeypatch.setattr(webhooks, "ring", failing)
    one = new_relay()
    with caplog.at_level(logging.INFO, logger="tasks"):
        for count in (1, 2):
            made = promised()
            assert one._careful_turn() == RECOVERY_S
            assert queued("accounting")[count - 1] == (TOPIC, made)
        assert caplog.messages == ["relay interrupted"]
        monkeypatch.setattr(webhooks, "ring", usual)
        assert one._careful_turn() == relay.POLL_S
    assert caplog.messages == ["relay interrupted", "relay goes on"]


def test_each_kind_of_trouble_is_told_once(new_relay, monkeypatch, caplog):
    def failing(*_, **__):
        raise next(errors)

    errors = iter([peewee.IntegrityError("no"), peewee.DataError("no")] * 3)
    monkeypatch.setattr(webhooks, "ring", failing)
    one = new_relay()
    for _ in range(6):
        one._careful_turn()
    assert caplog.messages == ["relay interrupted"] * 2


def test_a_relay_survives_what_the_database_refuses_of_the_promises(new_relay, queued, monkeypatch):
    def failing(*_):
        raise peewee.ProgrammingError("no")

    made = promised()
    one = new_relay()
    with monkeypatch.context() as patch:
        patch.setattr(outbox, "claim_due", failing)
        assert one._careful_turn() == RECOVERY_S
    one._careful_turn()
    assert queued("accounting") == [(TOPIC, made)]


def _database_is_back() -> bool:
    """The relay's own attempts may have opened the breaker of this process, which lets nobody connect for a moment."""
    try:
        return db.one("SELECT 1") == (1,)
    except peewee.OperationalError:
        return False


def _await(done, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
