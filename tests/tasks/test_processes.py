"""The real processes: from a committed promise over relay, broker and worker to its effect, and their start and end."""

import email
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import policy
from pathlib import Path

import psutil
import psycopg2
import pytest

from fleet import logs
from fleet.db import db
from fleet.embedded import Databases
from fleet.services import outbox
from tasks import app, topics
from tests.books import issued
from tests.tasks.outboxes import row, state

ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-m", "celery", "--app", "tasks"]
WORKER = [*CELERY, "worker", "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
RELAY = [sys.executable, "-m", "tasks.relay"]
BEAT = [*CELERY, "beat", "--schedule"]
TIMEOUT_S = 30


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """The process with its children, its output in `log`; killed at the end, should it still be there."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def processes_environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in environment}
    return {
        **inherited,
        **environment,
        "FLEET_MAIL_DIR": str(tmp_path / "mail"),
        "LOG_LEVEL": "INFO",
        "REMAP_SIGTERM": "SIGQUIT",
        "PYTHONWARNINGS": "default",
    }


def await_(done) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not done():
        assert time.monotonic() < deadline, f"it did not happen within {TIMEOUT_S} s"
        time.sleep(0.05)


def lines(log: Path) -> list[dict]:
    """The JSON lines of a log; what else Celery prints is left out."""
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


@pytest.mark.slow
def test_an_issued_invoice_is_posted_and_its_customer_told(cast, broker, processes_environment, tmp_path):
    with (
        running(WORKER, processes_environment, tmp_path / "worker.log") as worker,
        running(RELAY, processes_environment, tmp_path / "relay.log") as relay,
    ):
        with logs.context(request_id="req-of-the-counter"):
            invoice = issued(cast)
        promises = [found for (found,) in db.rows("SELECT id FROM outbox")]
        assert len(promises) == 2
        await_(lambda: {state(one) for one in promises} == {"confirmed"})

        assert db.one("SELECT count(*) FROM journal_entry WHERE source_id = %s", (invoice.id,)) == (1,)
        [file] = (tmp_path / "mail").glob("*.eml")
        mail = email.message_from_bytes(file.read_bytes(), policy=policy.default)
        assert (mail["To"], invoice.number in mail["Subject"]) == (cast.ana.email, True)

        for process in (relay, worker):
            process.send_signal(signal.SIGTERM)
        assert relay.wait(TIMEOUT_S) == 0
        assert worker.wait(TIMEOUT_S) == 0

    handled = [line for line in lines(tmp_path / "worker.log") if line["message"] == "handled"]
    assert {line["topic"] for line in handled} == {"accounting.post_invoice", "notifications.invoice_issued"}
    assert all(line["request_ids"] == ["req-of-the-counter"] for line in handled)
    assert cast.ana.email not in (tmp_path / "worker.log").read_text()
    [relayed] = [line for line in lines(tmp_path / "relay.log") if line["message"] == "relayed"]
    assert sum(relayed["promises"].values()) == 2


@pytest.mark.slow
def test_a_worker_that_is_killed_in_the_middle_of_its_work_leaves_one_effect(
    cast, broker, processes_environment, databases, tmp_path
):
    invoice = issued(cast)
    db.execute_sql("DELETE FROM outbox WHERE queue = 'notifications'")
    [(promise,)] = db.rows("SELECT id FROM outbox")
    with (
        running([*WORKER, "--concurrency", "1"], processes_environment, tmp_path / "worker.log") as worker,
        running(RELAY, processes_environment, tmp_path / "relay.log"),
    ):
        with closed_books(databases):
            await_(lambda: db.one("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == (1,))
            assert row(promise).deliveries == 1
            assert kill_children_of(worker.pid)
        await_(lambda: state(promise) == "confirmed")
    assert db.one("SELECT count(*) FROM journal_entry WHERE source_id = %s", (invoice.id,)) == (1,)
    assert row(promise).deliveries == 2


@contextmanager
def closed_books(databases: Databases) -> Iterator[None]:
    """Somebody has the fiscal periods locked: whoever posts waits."""
    connection = psycopg2.connect(databases.database_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM fiscal_period FOR UPDATE")
    yield
    connection.close()


def kill_children_of(pid: int) -> list[int]:
    """Kill the pool's children, as the system does when memory runs out; returns them."""
    children = [child.pid for child in psutil.Process(pid).children()]
    for child in children:
        os.kill(child, signal.SIGKILL)
    return children


@pytest.mark.slow
def test_beat_rings_for_the_sweeps(broker, processes_environment, tmp_path):
    with running([*BEAT, str(tmp_path / "schedule")], processes_environment, tmp_path / "beat.log") as beat:
        await_(lambda: broker.depth("maintenance") > 0)
        beat.send_signal(signal.SIGTERM)
        # Its exit code says only where in Celery's loop the signal met it.
        beat.wait(TIMEOUT_S)


@pytest.mark.parametrize("command", [WORKER, RELAY, [*BEAT, "unused"]], ids=["worker", "relay", "beat"])
def test_production_refuses_to_start_without_its_secret_and_names_it(command, processes_environment, tmp_path):
    environment = {**processes_environment, "FLEET_ENV": "production", "SECRET_KEY": ""}
    with running(command, environment, tmp_path / "log") as process:
        assert process.wait(TIMEOUT_S) != 0
    assert "SECRET_KEY is missing" in (tmp_path / "log").read_text()


def test_celery_is_set_up_as_the_drills_found_it(broker):
    conf = app.conf
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.task_ignore_result
    assert conf.worker_prefetch_multiplier == 1
    assert conf.accept_content == ["json"]
    assert conf.broker_connection_max_retries is None
    assert conf.broker_transport_options["visibility_timeout"] > conf.task_time_limit > conf.task_soft_time_limit
    assert [queue.name for queue in conf.task_queues] == list(outbox.QUEUES)


def test_every_task_is_a_consumer_or_scheduled(broker):
    scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
    known = topics()
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == scheduled | known
    assert not scheduled & known
    for name in ours:
        assert app.amqp.router.route({}, name)["queue"].name == outbox.queue_of(name)
