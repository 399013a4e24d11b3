"""The real processes: from a committed reservation over sequencer, relay, broker and worker to a receiver."""

import threading
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook

from fleet.db import db
from tests.cast import Cast
from tests.endpoints import deliveries, endpoint, let_time_pass, states
from tests.races.scenes import reserved
from tests.receiver import Receiver, receiver
from tests.tasks.crew import RELAY, WORKER, await_, kill_children_of, running

pytestmark = pytest.mark.slow


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as told:
        yield told


def test_reservations_reach_a_receiver_in_order_signed_and_once(cast: Cast, broker, told, processes_environment, tmp_path):
    allowed = {**processes_environment, "WEBHOOK_ALLOW_PRIVATE": "true"}
    secret = endpoint(cast, told)["secret"]
    with running(WORKER, allowed, tmp_path / "worker.log"), running(RELAY, allowed, tmp_path / "relay.log"):
        rentals = [reserved(cast, day, day + 1).rpartition("/")[2] for day in range(2, 60, 2)]
        await_(lambda: len(told.received) >= len(rentals))
        await_(lambda: set(states()) == {"delivered"})
    assert sorted(event["aggregate_id"] for event in told.events) == sorted(rentals)
    assert sorted(event["sequence"] for event in told.events) == list(range(1, len(rentals) + 1))
    for request in told.received:
        assert Webhook(secret).verify(request.body, request.headers)["data"]["status"] == "reserved"
    said = (tmp_path / "worker.log").read_text() + (tmp_path / "relay.log").read_text()
    assert "s3cret" not in said and told.url not in said and secret not in said


def test_a_worker_killed_while_it_waits_for_the_answer_sends_the_same_message_again(
    cast: Cast, broker, told, processes_environment, tmp_path
):
    allowed = {**processes_environment, "WEBHOOK_ALLOW_PRIVATE": "true"}
    arrived, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        go_on.wait(20)

    told.before_answer = hold
    endpoint(cast, told)
    with (
        running([*WORKER, "--concurrency", "1"], allowed, tmp_path / "worker.log") as worker,
        running(RELAY, allowed, tmp_path / "relay.log"),
    ):
        reserved(cast)
        assert arrived.wait(30)
        assert [found.attempts for found in deliveries()] == [1], "counted, and committed, before it was sent"
        assert kill_children_of(worker.pid)
        go_on.set()
        told.before_answer = lambda: None
        assert states() == ["queued"]
        let_time_pass(minutes=3)
        await_(lambda: states() == ["delivered"])
    one, other = told.received
    assert one.headers["webhook-id"] == other.headers["webhook-id"] == str(deliveries()[0].event_id)
    assert one.body == other.body
    assert db.rows("SELECT count(*) FROM event") == [(1,)]
