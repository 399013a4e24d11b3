"""TERM as a platform sends it: to every process of the worker at once, its pool's children too."""

import os
import signal

import pytest

from fleet.db import db
from fleet.services import outbox
from tests.books import issued
from tests.tasks.crew import RELAY, WORKER, await_, closed_books, deaf_mail_server, running, said, waiting_for_locks

LETTERS = 4
SENDING = "SELECT count(*) FROM notification WHERE status = 'sending'"
OPEN = "SELECT count(*) FROM outbox WHERE confirmed_at IS NULL"


@pytest.mark.slow
def test_a_short_task_is_finished_and_a_long_one_goes_to_the_next_worker(
    cast, broker, processes_environment, databases, tmp_path
):
    invoice = issued(cast)
    for _ in range(LETTERS - 1):
        outbox.promise("notifications.invoice_issued", "invoice", invoice.id)
    log = tmp_path / "worker.log"
    with deaf_mail_server() as smtp_url, running(WORKER, {**processes_environment, "SMTP_URL": smtp_url}, log) as worker:
        with closed_books(databases), running(RELAY, processes_environment, tmp_path / "relay.log"):
            await_(lambda: (waiting_for_locks(databases), db.one(SENDING)) == (1, (1,)))
            os.killpg(worker.pid, signal.SIGTERM)
            await_(lambda: any("worker takes nothing more" in line for line in log.read_text().splitlines()))
        await_(lambda: worker.poll() is not None)
    assert worker.returncode == 0
    assert db.rows("SELECT confirmed_at IS NOT NULL, deliveries FROM outbox WHERE queue = 'accounting'") == [(True, 1)]
    assert db.one("SELECT count(*) FROM journal_entry WHERE source_id = %s", (invoice.id,)) == (1,)
    assert not said(log, "task failed")

    with running(WORKER, processes_environment, tmp_path / "next.log"):
        await_(lambda: broker.depth("notifications") == 0)
        # The letter whose worker left in the middle of it is taken over when its claim has ended; the others go at once.
        await_(lambda: db.one("SELECT count(*) FROM notification WHERE status = 'sent'") == (LETTERS - 1,))


def test_a_worker_that_is_told_in_the_middle_of_an_event_finishes_its_task_and_ends(
    cast, broker, processes_environment, databases, tmp_path
):
    """Celery's own handler would wait for the lock of the event below it, for ever."""
    invoice = issued(cast)
    log, mark = tmp_path / "worker.log", tmp_path / "event"
    chatty = [word.replace("tasks", "tests.tasks.chatty") if word == "tasks" else word for word in WORKER]
    environment = {**processes_environment, "CHATTY_MARK": f"{mark}"}
    with running(chatty, environment, log) as worker:
        with closed_books(databases), running(RELAY, processes_environment, tmp_path / "relay.log"):
            await_(mark.exists)
            worker.terminate()
            await_(lambda: waiting_for_locks(databases) == 1)
        await_(lambda: worker.poll() is not None)
    assert worker.returncode == 0
    assert db.rows("SELECT confirmed_at IS NOT NULL, deliveries FROM outbox WHERE queue = 'accounting'") == [(True, 1)]
    assert db.one("SELECT count(*) FROM journal_entry WHERE source_id = %s", (invoice.id,)) == (1,)
