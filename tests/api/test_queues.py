"""/admin/queues, and the same as gauges: how the queues stand, also when PostgreSQL or the broker is away."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psutil
import pytest
import redis

from fleet import clock
from fleet.db import db
from fleet.embedded import Databases
from fleet.gateways.broker import BrokerGauge
from fleet.services import gauges, outbox, queues
from fleet.services.queues import Watch
from tasks import app as celery_app
from tasks.broker import Broker
from tests.cast import Cast, request
from tests.endpoints import deliveries, endpoint, happen
from tests.tasks.outboxes import dead_letter, promised

PATH = "/admin/queues"
LETTER = "notifications.rental_held"
# What a busy machine adds.
SLACK_S = 1.0


@pytest.fixture(autouse=True)
def fresh_look(cast: Cast, databases: Databases, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the broker, nobody has looked yet, and each page looks anew."""
    monkeypatch.setattr(queues, "PAGE_KEEPS_S", 0.0)
    with redis.Redis.from_url(databases.redis_url) as client:
        client.flushdb()
    monkeypatch.setattr(cast.app.extensions["fleet"], "watch", Watch(BrokerGauge(databases.redis_url)))


def seen(cast: Cast) -> dict[str, Any]:
    answer = cast.admin.get(PATH)
    assert answer.status_code == 200, answer.json
    return dict(answer.json)


def queue(cast: Cast, name: str) -> dict[str, Any]:
    [found] = [item for item in seen(cast)["queues"] if item["queue"] == name]
    return dict(found)


def scraped(cast: Cast) -> dict[str, float]:
    """The samples of /metrics, by name and labels."""
    answer = request(cast.app, "GET", "/metrics")
    assert answer.status_code == 200
    lines = [line for line in answer.get_data(as_text=True).splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def confirmed(seconds: float, topic: str = LETTER) -> None:
    """A promise that took so long from its transaction to its confirmation, just now."""
    [promise_id] = promised(topic=topic)
    outbox.confirm([promise_id])
    db.execute_sql(
        "UPDATE outbox SET created_at = confirmed_at - interval '1 second' * %s WHERE id = %s", (seconds, promise_id)
    )


def delivering(cast: Cast) -> None:
    """An endpoint with six deliveries: two due, one for 400 seconds; one to be tried again later; two dead; one delivered."""
    endpoint(cast, "http://127.0.0.1:1/")
    happen(6)
    waiting = deliveries()
    for nth, change in enumerate((
        "next_attempt_at = now() - interval '400 seconds'",
        "status = 'retrying', next_attempt_at = now() - interval '1 second'",
        "status = 'retrying', next_attempt_at = now() + interval '1 hour'",
        "status = 'dead', dead_at = now()",
        "status = 'dead', dead_at = now()",
        "status = 'delivered', delivered_at = now()",
    )):  # fmt: skip
        db.execute_sql(f"UPDATE webhook_delivery SET {change} WHERE id = %s", (waiting[nth].id,))


def reporting(
    name: str, kind: str, serves: list[str], paused: list[str], *, seconds_ago: float = 0, handled: str = "{}"
) -> None:
    db.execute_sql(
        """INSERT INTO process_report (name, kind, reported_at, queues, paused, handled)
        VALUES (%s, %s, %s, %s::text[], %s::text[], %s)""",
        (name, kind, clock.now() - timedelta(seconds=seconds_ago), serves, paused, handled),
    )


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process and its children keep their sockets open and say nothing."""
    family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    for member in family:
        os.kill(member, signal.SIGSTOP)
    try:
        yield
    finally:
        for member in reversed(family):
            os.kill(member, signal.SIGCONT)


def redis_pid(databases: Databases) -> int:
    with redis.Redis.from_url(databases.redis_url) as client:
        return int(client.info("server")["process_id"])


class TestCounting:
    def test_an_idle_service_waits_for_nothing(self, cast: Cast) -> None:
        found = seen(cast)
        assert [item["queue"] for item in found["queues"]] == list(outbox.QUEUES)
        assert found["broker"] == {"answers": True, "unacknowledged": 0}
        for item in (found["outbox"], *found["queues"]):
            assert (item["depth"], item["waiting"], item["due"], item["dead"]) == (0, 0, 0, 0)
            assert (item["oldest_age_s"], item["lag_p50_s"], item["lag_p99_s"]) == (None, None, None)
            assert item["rate_per_minute"] == 0

    def test_what_waits_is_counted_by_queue_and_together(self, cast: Cast) -> None:
        promised(3)
        promised(2, topic=LETTER)
        db.execute_sql("UPDATE outbox SET next_attempt_at = now() + interval '1 hour' WHERE topic = %s", (LETTER,))
        found = seen(cast)
        by_name = {item["queue"]: (item["waiting"], item["due"]) for item in found["queues"]}
        assert by_name == {**dict.fromkeys(outbox.QUEUES, (0, 0)), "accounting": (3, 3), "notifications": (2, 0)}
        assert (found["outbox"]["waiting"], found["outbox"]["due"]) == (5, 3)

    def test_the_oldest_counts_from_its_promise_or_its_replay(self, cast: Cast) -> None:
        promised()
        db.execute_sql("UPDATE outbox SET created_at = now() - interval '90 seconds'")
        assert 90 <= queue(cast, "accounting")["oldest_age_s"] < 120
        db.execute_sql("UPDATE outbox SET replayed_at = now() - interval '5 seconds', replays = 1")
        assert 5 <= queue(cast, "accounting")["oldest_age_s"] < 35

    def test_the_lag_and_the_rate_are_those_of_the_last_minutes(self, cast: Cast) -> None:
        for seconds in (1, 2, 3, 4, 100):
            confirmed(seconds)
        confirmed(7, topic="accounting.post_invoice")
        confirmed(1000)
        long_ago = "created_at < now() - interval '900 seconds'"
        db.execute_sql(f"UPDATE outbox SET confirmed_at = now() - interval '6 minutes' WHERE {long_ago}")
        found = queue(cast, "notifications")
        assert (found["lag_p50_s"], found["rate_per_minute"]) == (3.0, 1.0)
        assert 90 < found["lag_p99_s"] < 100
        whole = seen(cast)["outbox"]
        assert (whole["lag_p50_s"], whole["rate_per_minute"]) == (3.5, 1.2)

    def test_the_dead_count_until_somebody_discards_them(self, cast: Cast) -> None:
        letter_id, _ = dead_letter(), dead_letter(topic=LETTER)
        assert (queue(cast, "accounting")["dead"], seen(cast)["outbox"]["dead"]) == (1, 2)
        cast.admin.post(f"/admin/dead-letters/{letter_id}/discard", {"reason": "of no use"})
        assert (queue(cast, "accounting")["dead"], seen(cast)["outbox"]["dead"]) == (0, 1)

    def test_webhook_deliveries_count_in_their_queue_and_together(self, cast: Cast) -> None:
        delivering(cast)
        promised(3)
        found = queue(cast, "webhooks")
        assert (found["waiting"], found["due"], found["dead"]) == (3, 2, 2)
        assert 400 <= found["oldest_age_s"] < 460
        assert found["rate_per_minute"] == 0.2
        whole = seen(cast)["outbox"]
        assert (whole["waiting"], whole["due"], whole["dead"]) == (6, 5, 2)
        assert 400 <= whole["oldest_age_s"] < 460

    def test_webhooks_lag_by_how_long_they_waited_for_us(self, cast: Cast) -> None:
        assert (queue(cast, "webhooks")["lag_p50_s"], queue(cast, "webhooks")["rate_per_minute"]) == (None, 0)
        delivering(cast)
        times = "next_attempt_at = now() - interval '40 seconds', delivered_at = now()"
        db.execute_sql(f"UPDATE webhook_delivery SET {times} WHERE status = 'delivered'")
        found = queue(cast, "webhooks")
        assert (found["lag_p50_s"], found["lag_p99_s"], found["rate_per_minute"]) == (40.0, 40.0, 0.2)

    @pytest.mark.parametrize("receivers", ["slow = true", "last_failure_at = now() - interval '10 minutes'"])
    def test_what_waited_for_its_receiver_counts_for_no_lag(self, cast: Cast, receivers: str) -> None:
        delivering(cast)
        db.execute_sql(f"UPDATE webhook_health SET {receivers}")
        found = queue(cast, "webhooks")
        assert (found["lag_p99_s"], found["rate_per_minute"]) == (None, 0.2)

    def test_what_waits_for_an_endpoint_at_rest_is_not_due(self, cast: Cast) -> None:
        delivering(cast)
        db.execute_sql("UPDATE webhook_health SET rest_until = now() + interval '1 minute'")
        found = queue(cast, "webhooks")
        assert (found["waiting"], found["due"], found["oldest_age_s"]) == (3, 0, None)

    def test_a_disabled_endpoint_is_waited_for_by_nothing_and_a_removed_one_has_no_dead(self, cast: Cast) -> None:
        delivering(cast)
        db.execute_sql("UPDATE webhook_endpoint SET enabled = false, disabled_at = now(), disabled_reason = 'by_hand'")
        found = queue(cast, "webhooks")
        assert (found["waiting"], found["due"], found["oldest_age_s"], found["dead"]) == (0, 0, None, 2)
        db.execute_sql("UPDATE webhook_endpoint SET deleted_at = now(), secret = NULL, disabled_reason = 'deleted'")
        assert queue(cast, "webhooks")["dead"] == 0

    def test_messages_in_the_broker_are_its_depth(self, cast: Cast) -> None:
        broker = Broker(celery_app)
        for _ in range(2):
            broker.publish(LETTER, "notifications", promised(5, topic=LETTER))
        broker.close()
        assert (queue(cast, "notifications")["depth"], queue(cast, "accounting")["depth"]) == (2, 0)
        assert seen(cast)["outbox"]["depth"] == 2

    def test_who_serves_a_queue_and_who_holds_it_back(self, cast: Cast) -> None:
        reporting("worker@a", "worker", ["accounting", "notifications"], [])
        reporting("worker@b", "worker", ["notifications"], [])
        reporting("worker@gone", "worker", ["webhooks"], [], seconds_ago=16)
        reporting("relay@a", "relay", list(outbox.QUEUES), ["accounting"])
        found = seen(cast)
        by_name = {item["queue"]: (item["consumers"], item["paused"]) for item in found["queues"]}
        assert (by_name["accounting"], by_name["notifications"]) == ((1, True), (2, False))
        assert by_name["webhooks"] == (0, False)
        assert (found["outbox"]["consumers"], found["outbox"]["paused"]) == (2, True)
        assert [process["name"] for process in found["processes"]] == ["relay@a", "worker@a", "worker@b"]

    def test_who_may_look(self, cast: Cast) -> None:
        for role, person in cast.staff.items():
            assert person.get(PATH).status_code == (200 if role in {"admin", "fleet_manager"} else 403), role


class TestAway:
    def test_a_frozen_broker_has_no_depth_and_keeps_nobody(self, cast: Cast, databases: Databases) -> None:
        promised(3)
        with frozen(redis_pid(databases)):
            started = time.monotonic()
            found = seen(cast)
            assert time.monotonic() - started < 1.0 + SLACK_S
        assert found["broker"] == {"answers": False, "unacknowledged": None}
        assert {item["depth"] for item in found["queues"]} == {None}
        assert found["outbox"]["waiting"] == 3

    def test_without_the_broker_the_gauges_say_so_and_tell_the_rest(self, cast: Cast, databases: Databases) -> None:
        promised(3)
        databases.redis.stop()
        try:
            found = scraped(cast)
        finally:
            databases.redis.start()
        assert found['fleet_source_up{source="broker"}'] == 0
        assert found['fleet_source_up{source="postgresql"}'] == 1
        assert found['fleet_queue_waiting{queue="accounting"}'] == 3
        assert not [name for name in found if name.startswith("fleet_queue_depth{")]

    def test_without_postgresql_the_gauges_say_so_and_tell_the_rest(self, cast: Cast, databases: Databases) -> None:
        databases.postgres.stop()
        try:
            found, again = scraped(cast), cast.admin.get(PATH)
        finally:
            databases.postgres.start()
            db.close()
        assert found['fleet_source_up{source="postgresql"}'] == 0
        assert found['fleet_source_up{source="broker"}'] == 1
        assert not [name for name in found if name.startswith("fleet_queue_waiting{")]
        assert "fleet_http_threads" in found
        assert (again.status_code, again.json["code"]) == (503, "dependency_unavailable")


class TestGauges:
    def test_a_scrape_tells_what_the_page_tells(self, cast: Cast) -> None:
        promised(2)
        confirmed(3)
        dead_letter("Poison at x")
        dead_letter("ouch: ana@example.com")
        found = scraped(cast)
        assert found['fleet_queue_waiting{queue="accounting"}'] == found['fleet_queue_due{queue="accounting"}'] == 2
        assert 0 < found['fleet_queue_oldest_age_seconds{queue="accounting"}'] < 60
        assert found['fleet_queue_lag_seconds{quantile="0.99",queue="notifications"}'] == 3
        assert found['fleet_dead_letters{topic="accounting.post_invoice"}'] == 2
        assert 0 < found['fleet_dead_letters_oldest_age_seconds{topic="accounting.post_invoice"}'] < 60
        assert [found[f'fleet_dead_letters_by_cause{{cause="{cause}"}}'] for cause in ("Poison", "Unknown")] == [1, 1]
        assert found["fleet_broker_unacknowledged"] == 0
        assert found["fleet_workers"] == found["fleet_relays"] == 0

    def test_what_relays_and_workers_have_done_is_counted_wherever_they_run(self, cast: Cast) -> None:
        reporting("worker@a", "worker", [], [], handled='{"accounting.post_invoice": 7, "maintenance.expire_holds": 2}')
        reporting("relay@a", "relay", [], [], handled='{"accounting.post_invoice": 9}')
        reporting("worker@gone", "worker", [], [], seconds_ago=16, handled='{"accounting.post_invoice": 5}')
        name = "fleet_process_handled_total"
        found = {labels: value for labels, value in scraped(cast).items() if labels.startswith(name)}
        assert found == {
            f'{name}{{kind="relay",process="relay@a",topic="accounting.post_invoice"}}': 9,
            f'{name}{{kind="worker",process="worker@a",topic="accounting.post_invoice"}}': 7,
            f'{name}{{kind="worker",process="worker@a",topic="maintenance.expire_holds"}}': 2,
        }

    def test_webhook_deliveries_are_gauges_and_no_dead_letters(self, cast: Cast) -> None:
        delivering(cast)
        found = scraped(cast)
        names = ("waiting", "due", "dead")
        assert [found[f'fleet_queue_{name}{{queue="webhooks"}}'] for name in names] == [3, 2, 2]
        assert 400 <= found['fleet_queue_oldest_age_seconds{queue="webhooks"}'] < 460
        assert not [name for name in found if name.startswith("fleet_dead_letters{")]

    def test_no_word_of_an_error_becomes_a_label(self, cast: Cast) -> None:
        dead_letter("ouch: ana@example.com")
        assert "ana@" not in request(cast.app, "GET", "/metrics").get_data(as_text=True)

    def test_causes_beyond_the_most_frequent_are_one(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gauges, "MOST_CAUSES", 2)
        for cause in ("A", "A", "B", "B", "C", "D"):
            dead_letter(f"{cause}Error at x")
        found = {name: value for name, value in scraped(cast).items() if name.startswith("fleet_dead_letters_by_cause")}
        labels = {re.findall(r'"(\w+)"', name)[0]: value for name, value in found.items()}
        assert labels == {"AError": 2, "BError": 2, "Other": 2}

    def test_one_look_serves_all_who_come_soon_after(self, cast: Cast, statements: list[str]) -> None:
        def looked() -> int:
            # What operators said of breakers is one row at most for each, read at every scrape.
            return sum("breaker_control" not in statement for statement in statements)

        scraped(cast)
        cost = looked()
        assert 0 < cost < 15
        for _ in range(5):
            scraped(cast)
        assert looked() == cost
