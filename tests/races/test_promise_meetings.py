"""Two relays, workers or sweeps reach for the same rows: each row goes to one of them, and nobody stands in the way."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from fleet import clock
from fleet.db import db, transaction
from fleet.services import outbox, retention
from tests.cast import Cast, insert
from tests.races.meeting import Call, Meeting, Runner, in_one_transaction
from tests.races.scenes import count

PAST = timedelta(days=100)


def shared(meet: Meeting, sweep: Call) -> tuple[Any, Any]:
    """What two sweeps at once get; the second must not wait for the first."""
    one, other = meet(sweep, sweep)
    assert not other.waited, "waited for the other"
    return one.result, other.result


def test_two_relays_do_not_claim_the_same_promise(promised: UUID, meet: Meeting) -> None:
    claim = in_one_transaction(lambda: [str(item.id) for item in outbox.claim_due(dict.fromkeys(outbox.QUEUES, 10))])
    one, other = meet(claim, claim)
    assert (one.result, other.result) == ([str(promised)], []), "claimed twice"
    assert not other.waited, "waited for the other"


def test_a_first_delivery_is_counted_for_one_worker(promised: UUID, meet: Meeting) -> None:
    deliver = in_one_transaction(lambda: outbox.count_first_deliveries([str(promised)]))
    one, other = meet(deliver, deliver)
    assert (len(one.result), len(other.result)) == (1, 0), "delivered twice"


def test_a_promise_is_confirmed_while_it_is_buried(promised: UUID, meet: Meeting) -> None:
    """What is done is done: the confirmation waits for the burial and ends it."""
    burial, confirmation = meet(
        in_one_transaction(lambda: outbox.bury([str(promised)], "taken for lost")), lambda: outbox.confirm([promised])
    )
    assert (burial.error, confirmation.error, confirmation.waited) == (None, None, True)
    assert db.rows("SELECT confirmed_at IS NOT NULL, dead_at FROM outbox") == [(True, None)]


def test_two_sweeps_share_what_is_exhausted(promised: UUID, meet: Meeting) -> None:
    db.execute_sql("UPDATE outbox SET deliveries = %s, next_attempt_at = now()", (outbox.MAX_DELIVERIES,))
    assert shared(meet, in_one_transaction(outbox.bury_exhausted)) == (["accounting.post_invoice"], [])


@pytest.mark.parametrize(
    "table",
    [
        "outbox", "inbox", "idempotency_record", "user_session", "refresh_token", "login_throttle", "event",
        "account_token",
        "webhook_delivery", "process_report",
    ],
)
def test_two_sweeps_share_what_is_to_be_forgotten(cast: Cast, meet: Meeting, table: str) -> None:
    let_be_old(cast, table)
    one, other = shared(meet, in_one_transaction(retention.forget_old))
    assert (one[table], other[table]) == (1, 0)


def let_be_old(cast: Cast, table: str) -> None:
    """One row that is kept no longer, and nothing else of its table."""
    old_id, long_ago = retention.first_id_of(clock.now() - PAST), clock.now() - PAST
    session_id = cast.ana.session_id
    rows: dict[str, dict[str, Any]] = {
        "outbox": {
            "id": old_id, "topic": "t", "queue": "default", "aggregate_type": "x", "aggregate_id": old_id,
            "confirmed_at": long_ago,
        },
        "inbox": {"consumer": "ledger", "message_id": old_id, "processed_at": long_ago},
        "idempotency_record": {
            "actor": "a", "method": "POST", "path": "/", "key": "k", "fingerprint": b"f", "status": 201, "headers": {},
            "body": b"{}", "created_at": long_ago,
        },
        "user_session": {"id": old_id, "user_id": cast.ana.user_id, "expires_at": long_ago},
        "refresh_token": {"token_hash": b"t", "session_id": session_id, "issued_at": long_ago},
        "process_report": {"name": "relay@gone", "kind": "relay", "reported_at": long_ago, "queues": []},
        "login_throttle": {"account_hash": b"a", "failures": 1, "last_failure_at": long_ago},
        "account_token": {
            "token_hash": b"t" * 32, "user_id": cast.ana.user_id, "purpose": "password_reset", "promise_id": old_id,
            "created_at": long_ago, "expires_at": long_ago + timedelta(minutes=30),
        },
        "event": {
            "id": old_id, "type": "rental.held", "occurred_at": long_ago, "aggregate_type": "rental", "aggregate_id": old_id,
            "data": {}, "position": 1,
        },
        "webhook_delivery": {"id": old_id, "endpoint_id": old_id, "event_id": session_id},
    }  # fmt: skip
    if table == "webhook_delivery":
        insert("webhook_endpoint", id=old_id, url="https://example.com/", secret=b"s")
        insert("event", **{**rows["event"], "id": session_id})
    values = rows[table]
    db.execute_sql(
        f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(['%s'] * len(values))})", tuple(values.values())
    )


def test_batches_that_overlap_are_confirmed_without_a_deadlock(cast: Cast) -> None:
    """One batch is found by the index and one as the rows lie: they stand the other way round, and a third holds one."""
    rows = [outbox.promise("accounting.post_invoice", "invoice", clock.new_id()) for _ in range(3)]
    renumber_backwards(rows)
    by_index = Runner(confirming(rows, "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"))
    as_they_lie = Runner(confirming(rows, "SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off"))
    with transaction():
        db.execute_sql("UPDATE outbox SET publishes = 1 WHERE id = %s", (sorted(rows)[1],))
        for runner in (by_index, as_they_lie):
            runner.start()
            runner.await_waiting()
    assert [by_index.end().error, as_they_lie.end().error] == [None, None], "a deadlock"
    assert count("outbox WHERE confirmed_at IS NOT NULL") == 3


def renumber_backwards(rows: list[UUID]) -> None:
    """Let the last of these lie first in the table."""
    db.execute_sql("DELETE FROM outbox")
    for promise_id in sorted(rows, reverse=True):
        db.execute_sql(
            "INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id) VALUES (%s, 't', 'default', 'x', %s)",
            (promise_id, promise_id),
        )


def confirming(rows: list[UUID], plan: str) -> Call:
    def confirm() -> None:
        db.execute_sql(plan)
        outbox.confirm(rows)

    return in_one_transaction(confirm)
