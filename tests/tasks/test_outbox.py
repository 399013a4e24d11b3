"""A promise stands with its fact, is claimed by one relay at a time, and is due again when nobody kept it."""

from datetime import timedelta
from functools import partial

import pytest

from fleet import clock, logs
from fleet.db import db, transaction
from fleet.models import promises
from fleet.services import outbox
from tests.tasks.outboxes import TOPIC, at_once, last_error, let_leases_end, promised, row, state

pytestmark = pytest.mark.usefixtures("fresh_database")


class Undone(Exception):
    """Raised to roll a transaction back."""


def claimed(limit: int = 500) -> set:
    return {promise.id for promise in outbox.claim_due(dict.fromkeys(outbox.QUEUES, limit))}


def test_a_promise_is_gone_when_its_transaction_is_rolled_back():
    with pytest.raises(Undone), transaction():
        promised()
        raise Undone
    assert claimed() == set()


def test_a_promise_carries_the_id_of_the_request_that_made_it():
    with logs.context(request_id="req-1", traceparent="00-1-2-01"):
        [made] = promised()
    assert (row(made).request_id, row(made).traceparent) == ("req-1", "00-1-2-01")
    assert outbox.claim_due(dict.fromkeys(outbox.QUEUES, 1))[0].request_id == "req-1"


def test_a_promise_keeps_its_topic_aggregate_and_payload():
    about = clock.new_id()
    found = row(outbox.promise("webhooks.deliver", "rental", about, {"event": "rental.completed"}))
    assert (found.topic, found.queue, found.aggregate_type) == ("webhooks.deliver", "webhooks", "rental")
    assert (found.aggregate_id, found.payload) == (about, {"event": "rental.completed"})


@pytest.mark.parametrize(
    ("topic", "queue"),
    [
        ("accounting.post_invoice", "accounting"),
        ("notifications.rental_held", "notifications"),
        ("maintenance.forget_old", "maintenance"),
        ("something.else", "default"),
        ("accounting_of_sorts", "default"),
    ],
)
def test_the_first_word_of_a_topic_names_its_queue(topic, queue):
    assert outbox.queue_of(topic) == queue


def test_what_is_claimed_is_not_due_until_its_lease_ends():
    made = set(promised(3))
    assert claimed() == made
    assert claimed() == set()
    let_leases_end()
    assert claimed() == made


def test_relays_at_once_never_claim_the_same_promise():
    made = set(promised(400))
    shares = at_once([lambda: claimed(limit=100)] * 4)
    assert sum(len(share) for share in shares) == len(set().union(*shares))
    while share := claimed():
        shares.append(share)
    assert set().union(*shares) == made


def test_a_lease_doubles_with_every_publish_up_to_its_longest():
    [made] = promised()
    leases = []
    for _ in range(8):
        before = clock.now()
        claimed()
        leases.append((row(made).next_attempt_at - before).total_seconds())
        let_leases_end()
    wanted = [30, 60, 120, 240, 480, 900, 900, 900]
    assert all(0.85 * lease <= found <= 1.15 * lease for found, lease in zip(leases, wanted, strict=True))
    assert row(made).publishes == 8


def test_each_queue_gets_rows_of_its_own_whatever_the_backlog_of_another():
    promised(30)
    [letter] = promised(topic="notifications.rental_held")
    got = outbox.claim_due(dict.fromkeys(outbox.QUEUES, 10))
    assert letter in {promise.id for promise in got}
    assert [promise.queue for promise in got].count("accounting") == 10


def test_a_closed_queue_is_left_alone():
    promised(3)
    assert outbox.claim_due({"notifications": 10}) == []


def test_released_promises_are_due_again_soon_and_their_lease_has_not_grown():
    [made] = promised()
    claimed()
    outbox.release([made], delay_s=1)
    assert row(made).publishes == 0
    assert row(made).next_attempt_at < clock.now() + timedelta(seconds=1.2)


def test_ended_promises_are_neither_claimed_nor_released_nor_buried():
    done, dead = promised(2)
    outbox.confirm([done])
    outbox.bury([dead], "no use")
    outbox.release([done, dead], delay_s=0)
    outbox.bury([done, dead], "again")
    assert (state(done), state(dead), last_error(dead)) == ("confirmed", "dead", "no use")
    assert claimed() == set()


def test_a_confirmation_outlives_a_burial_because_what_is_done_is_done():
    [made] = promised()
    outbox.bury([made], "its worker was taken for lost")
    outbox.confirm([made])
    assert state(made) == "confirmed"


def test_failures_wait_longer_each_time_up_to_an_hour():
    waits = [outbox.backoff_s(deliveries) for deliveries in range(1, outbox.MAX_DELIVERIES)]
    wanted = [5, 20, 80, 320, 1280, 3600, 3600]
    assert all(0.8 * wait <= found <= 1.2 * wait for found, wait in zip(waits, wanted, strict=True))
    assert len({outbox.backoff_s(1) for _ in range(20)}) > 1


def test_a_long_error_is_cut():
    [made] = promised()
    outbox.bury([made], "x" * 10_000)
    assert len(last_error(made)) == outbox.MAX_ERROR_LENGTH


def test_exhausted_promises_are_left_by_the_relay_and_buried_by_the_sweep_once_their_lease_is_over():
    spent, young = promised(2)
    db.execute_sql("UPDATE outbox SET deliveries = %s WHERE id = %s", (outbox.MAX_DELIVERIES, spent))
    assert claimed() == {young}
    assert outbox.bury_exhausted() == [TOPIC]
    assert (state(spent), state(young)) == ("dead", "waiting")
    assert "without a word" in last_error(spent)
    assert outbox.bury_exhausted() == []


def test_the_sweep_leaves_a_last_attempt_that_still_has_its_lease():
    [made] = promised()
    claimed()
    db.execute_sql("UPDATE outbox SET deliveries = %s", (outbox.MAX_DELIVERIES,))
    assert outbox.bury_exhausted() == []
    assert state(made) == "waiting"


def test_sweeps_at_once_share_the_exhausted():
    promised(50)
    db.execute_sql("UPDATE outbox SET deliveries = %s", (outbox.MAX_DELIVERIES,))
    buried = at_once([outbox.bury_exhausted] * 3)
    assert sum(len(topics) for topics in buried) == 50


HISTORY = """
INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, confirmed_at)
SELECT gen_random_uuid(), 'accounting.post_invoice', 'accounting', 'invoice', gen_random_uuid(), now()
FROM generate_series(1, 5000)
"""


@pytest.fixture
def history():
    """Statistics of a quiet hour, when nearly nothing waited, and then a backlog."""
    db.execute_sql(HISTORY)
    db.execute_sql("ANALYZE outbox")
    return promised(200)


def plan_of(statement: str, values: dict) -> str:
    return "\n".join(line for (line,) in db.rows(f"EXPLAIN {statement}", values))


def test_claiming_reads_the_index_of_what_is_due_and_never_the_whole_table(history):
    leases = {"most_deliveries": 8, "lease_s": 30, "longest_lease_s": 900}
    values = {"queues": list(outbox.QUEUES), "limits": [500] * len(outbox.QUEUES), **leases}
    plan = plan_of(promises.CLAIM_DUE, values)
    assert "outbox_due" in plan
    assert "outbox_pkey" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("name", ["COUNT_FIRST_DELIVERIES", "UNFINISHED", "CONFIRM", "RELEASE"])
def test_a_batch_is_found_by_its_ids_and_not_by_reading_the_backlog(history, name):
    ids = "{" + ",".join(str(made) for made in history) + "}"
    plan = plan_of(getattr(promises, name), {"ids": ids, "delay_s": 1})
    assert "outbox_pkey" in plan
    assert "Seq Scan" not in plan
    assert "outbox_due" not in plan


def test_whose_turn_it_is_is_asked_of_a_small_index_of_its_own(history):
    plan = plan_of(promises.OUT_OF_TURN, {"ids": "{" + ",".join(str(made) for made in history) + "}"})
    assert "outbox_accounting_open" in plan
    assert "Seq Scan" not in plan


def test_two_workers_that_receive_the_same_messages_in_opposite_order_do_not_deadlock():
    ids = [clock.new_id() for _ in range(3000)]

    def receive(in_this_order: list) -> int:
        with transaction():
            return len(outbox.receive(TOPIC, in_this_order))

    assert sorted(at_once([partial(receive, ids), partial(receive, ids[::-1])])) == [0, 3000]
