"""Slow queues keep no more than their lanes busy, so that the ledger does not wait for letters and web hooks."""

import os
import signal
from functools import partial
from uuid import UUID

import pytest

from fleet.db import db
from fleet.services import outbox
from tasks.lanes import SLOW, Lane, lanes
from tests.books import issued
from tests.tasks.crew import RELAY, WORKER, await_, deaf_mail_server, running

ALL = outbox.QUEUES


def test_the_slow_queues_are_queues():
    assert {queue for group in SLOW for queue in group} < set(ALL)


@pytest.mark.parametrize(
    ("children", "wanted"),
    [
        (1, [Lane(("notifications", "webhooks", "default"), 1)]),
        (2, [Lane(("notifications", "webhooks", "default"), 1)]),
        (3, [Lane(("notifications",), 1), Lane(("webhooks", "default"), 1)]),
        (4, [Lane(("notifications",), 2), Lane(("webhooks", "default"), 1)]),
        (9, [Lane(("notifications",), 4), Lane(("webhooks", "default"), 4)]),
    ],
)
def test_one_child_at_least_is_left_to_the_quick_queues(children, wanted):
    assert lanes(ALL, children) == wanted


def test_a_worker_of_slow_queues_alone_shares_all_its_children():
    assert lanes(("webhooks", "notifications"), 4) == [Lane(("notifications",), 2), Lane(("webhooks",), 2)]
    assert lanes(("webhooks", "notifications"), 1) == [Lane(("notifications", "webhooks"), 1)]


@pytest.mark.parametrize("served", [("webhooks",), ("accounting",), ("accounting", "maintenance")])
def test_a_worker_of_one_kind_needs_no_lanes(served):
    assert lanes(served, 4) == []


@pytest.mark.slow
def test_letters_that_hang_do_not_keep_the_ledger_waiting(
    cast, broker, processes_environment, tmp_path
):
    """Two children, and enough hanging letters for both: each takes 10 s to fail."""
    invoice = issued(cast)
    for _ in range(60):
        outbox.promise("notifications.invoice_issued", "invoice", invoice.id)
    with (
        deaf_mail_server() as smtp_url,
        running(WORKER, {**processes_environment, "SMTP_URL": smtp_url}, tmp_path / "worker.log"),
        running(RELAY, processes_environment, tmp_path / "relay.log"),
    ):
        await_(lambda: posted(invoice.id))
        await_(lambda: db.one("SELECT count(*) > 0 FROM notification WHERE status = 'sending'") == (True,))
        for _ in range(3):
            fresh = issued(cast).id
            await_(partial(posted, fresh), timeout_s=5)
    assert db.one("SELECT count(*) FROM notification WHERE status = 'sent'") == (0,)


def posted(invoice_id: UUID) -> bool:
    return db.one("SELECT count(*) FROM journal_entry WHERE source_id = %s", (invoice_id,)) == (1,)


@pytest.mark.slow
def test_both_kinds_of_queues_are_consumed_again_after_redis_was_killed(
    cast, broker, processes_environment, databases, tmp_path
):
    log = tmp_path / "worker.log"
    with (
        running(WORKER, processes_environment, log),
        running(RELAY, processes_environment, tmp_path / "relay.log"),
    ):
        for _ in range(2):
            issued(cast)
            await_(lambda: db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL") == (0,))
            os.kill(databases.redis.pid, signal.SIGKILL)
            databases.redis.stop()
            databases.redis.start()
        issued(cast)
        await_(lambda: db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL") == (0,))
