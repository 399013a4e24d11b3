"""The real processes: from a committed promise over relay, broker and worker to its effect, and their start and end."""

import email
import signal
from email import policy

import pytest

from fleet import logs
from fleet.db import db
from fleet.services import outbox
from tasks import app, topics
from tests.books import issued
from tests.tasks.crew import (
    BEAT,
    RELAY,
    TIMEOUT_S,
    WORKER,
    await_,
    closed_books,
    kill_children_of,
    lines,
    running,
    waiting_for_locks,
)
from tests.tasks.outboxes import row, state


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
            await_(lambda: waiting_for_locks(databases) == 1)
            assert row(promise).deliveries == 1
            assert kill_children_of(worker.pid)
        await_(lambda: state(promise) == "confirmed")
    assert db.one("SELECT count(*) FROM journal_entry WHERE source_id = %s", (invoice.id,)) == (1,)
    assert row(promise).deliveries == 2


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
