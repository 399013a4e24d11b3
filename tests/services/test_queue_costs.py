"""Looking at the queues costs no more however much was promised: each statement reads its own index, and only so far."""

from typing import Any

import pytest

from fleet.db import db, patience, transaction
from fleet.models import queues
from fleet.services import outbox
from tests.cast import insert

pytestmark = [pytest.mark.usefixtures("fresh_database"), pytest.mark.slow]

ROWS = 60_000
# So that there is little of it on a page, as in a real row with its payload.
PADDING = '{"padding": "' + "x" * 200 + '"}'


def fill(ended: str) -> None:
    with patience(60):
        db.execute_sql(
            f"""INSERT INTO outbox
                (id, topic, queue, aggregate_type, aggregate_id, payload, created_at, next_attempt_at, {ended})
            SELECT gen_random_uuid(), 't.x', 'accounting', 'x', gen_random_uuid(), %s, now() - interval '1 day' * random(),
                now() - interval '1 hour' * random(), now() - interval '7 days' * random()
            FROM generate_series(1, {ROWS})""",
            (PADDING,),
        )
        db.execute_sql("ANALYZE outbox")


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(found for inner in plan.get("Plans", ()) for found in nodes(inner))]


def scans(sql: str, params: dict[str, Any]) -> list[dict[str, Any]]:
    """How the statement read the outbox or the deliveries."""
    with transaction():
        db.execute_sql(queues.ALONG_THE_INDEX)
        [(plan,)] = db.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
    return [
        node
        for node in nodes(plan[0]["Plan"])
        if node.get("Relation Name") in {"outbox", "webhook_delivery"} or "Index Name" in node
    ]


def rows_read(node: dict[str, Any]) -> float:
    return node["Actual Rows"] * node["Actual Loops"]


def test_a_long_backlog_is_counted_only_so_far() -> None:
    fill("first_error_at")
    most = {"queues": list(outbox.QUEUES), "most": 2000, "most_aged": 500}
    found = scans(queues.BACKLOGS, most)
    assert {node.get("Index Name") for node in found} == {"outbox_due"}
    assert sorted(rows_read(node) for node in found) == [500, 2000]


def test_the_pace_reads_only_what_was_confirmed_lately() -> None:
    fill("confirmed_at")
    found = scans(queues.PACES, {"window_s": 300.0, "most": 2000})
    assert [node.get("Index Name") for node in found] == ["outbox_confirmed"]
    assert sum(rows_read(node) for node in found) < 0.01 * ROWS
    [whole_week] = scans(queues.PACES, {"window_s": 7 * 86400.0, "most": 2000})
    assert rows_read(whole_week) == 2000


def test_dead_letters_are_counted_past_the_discarded_ones() -> None:
    fill("dead_at")
    with patience(60):
        db.execute_sql(
            "UPDATE outbox SET discarded_at = now(), discarded_by = 'cli:x', discard_reason = 'x' WHERE random() < 0.99"
        )
        db.execute_sql("ANALYZE outbox")
    found = scans(queues.DEAD, {"most": 100})
    assert [node.get("Index Name") for node in found] == ["outbox_open_letters"]
    assert sum(rows_read(node) for node in found) == 100


@pytest.mark.parametrize("status", ["queued", "dead", "delivered"])
def test_webhook_deliveries_are_counted_only_so_far(status: str) -> None:
    for url in ("https://a.example/", "https://b.example/"):
        insert("webhook_endpoint", url=url, secret=b"s")
    with patience(60):
        db.execute_sql(
            f"""INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data, position)
            SELECT gen_random_uuid(), 'rental.held', now(), 'rental', gen_random_uuid(), '{{}}', n
            FROM generate_series(1, {ROWS // 2}) n"""
        )
        # The foreign key looks up each event by a plan that the session has made before: one for few rows reads all each time.
        db.execute_sql("ANALYZE event")
        db.execute_sql(
            """INSERT INTO webhook_delivery (id, endpoint_id, event_id, status, dead_at, delivered_at, next_attempt_at)
            SELECT gen_random_uuid(), e.id, v.id, %(status)s, CASE WHEN %(status)s = 'dead' THEN now() END,
                CASE WHEN %(status)s = 'delivered' THEN now() END, now() - interval '1 hour' * random()
            FROM webhook_endpoint e, event v""",
            {"status": status},
        )
        db.execute_sql("ANALYZE webhook_delivery")
    found = [node for node in scans(queues.DELIVERIES, {"most": 2000, "most_dead": 300}) if "webhook_delivery" in f"{node}"]
    assert {node.get("Index Name") for node in found} == {"webhook_delivery_due", "webhook_delivery_dead"}
    expected = {"queued": [0, 2, 2000, 2000], "dead": [0, 0, 0, 300], "delivered": [0, 0, 0, 0]}
    assert sorted(rows_read(node) for node in found) == expected[status]

    read = scans(queues.DELIVERED, {"window_s": 300.0, "most": 200, "rested_s": 0})
    [lately] = [node for node in read if node.get("Relation Name") == "webhook_delivery"]
    assert (lately["Index Name"], rows_read(lately)) == ("webhook_delivery_delivered", 200 if status == "delivered" else 0)


def test_a_usual_look_counts_right() -> None:
    fill("confirmed_at")
    made = [outbox.promise("accounting.post_invoice", "invoice", outbox.clock.new_id()) for _ in range(3)]
    outbox.claim_due({"accounting": 1})
    outbox.confirm(made[2:])
    by_queue = {backlog.queue: backlog for backlog in queues.backlogs(["accounting", "webhooks"])}
    assert (by_queue["accounting"].waiting, by_queue["accounting"].due) == (2, 1)
    assert by_queue["webhooks"] == ("webhooks", 0, 0, None)
