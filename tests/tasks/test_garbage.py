"""What is no message of ours on a queue of the broker ends the worker that takes it, once: the next one works on."""

import pytest
import redis

from fleet.embedded import Databases
from tests.tasks.crew import RELAY, WORKER, await_, running
from tests.tasks.outboxes import promised, state


@pytest.mark.slow
def test_bytes_that_are_no_message_end_one_worker_and_no_work(broker, processes_environment, databases: Databases, tmp_path):
    with redis.Redis.from_url(databases.redis_url) as client:
        client.lpush("fleet:accounting", b"\xff\x00no json")
    [promise] = promised()
    with running(WORKER, processes_environment, tmp_path / "one.log") as worker:
        await_(lambda: worker.poll() is not None)
    assert worker.returncode != 0, "whoever supervises it starts another one"
    with running(WORKER, processes_environment, tmp_path / "2.log"), running(RELAY, processes_environment, tmp_path / "r.log"):
        await_(lambda: state(promise) == "confirmed")
