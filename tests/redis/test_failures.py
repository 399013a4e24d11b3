"""Redis gone, frozen, full or emptied: the service goes on, keeps what it promised, and shows nobody what has changed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from fleet import cache
from fleet.cache import Cache, names_of
from fleet.config import Settings
from fleet.db import db
from fleet.embedded import Valkey
from fleet.models.vehicles import VEHICLES
from fleet.services import outbox
from tasks import app as celery_app
from tasks import topics
from tasks.broker import Broker, BrokerAway
from tasks.relay import Relay
from tests.cast import Answer, Cast, at, iso
from tests.freezing import frozen
from tests.redis.conftest import AppWith, fill
from tests.tasks.outboxes import let_leases_end

LONGEST_S = 1.5


@contextmanager
def gone(server: Valkey) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def full(server: Valkey) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        fill(client)
        yield
        client.config_set("maxmemory", "0")


@contextmanager
def flushed(server: Valkey) -> Iterator[None]:
    with Redis.from_url(server.url) as client:
        client.flushall()
    yield


FAILURES = [gone, frozen, full, flushed]


@pytest.fixture
def scene(app_with: AppWith, fresh_database: None) -> Cast:
    """The cast on a service of its own, which has served them before."""
    cast = Cast(app_with(ratelimit_authenticated="60 per minute"))
    for person in (cast.agent, cast.manager):
        assert person.get(f"/v1/vehicles/{cast.corolla}").status_code == 200
    return cast


def timed(call: Callable[[], Answer]) -> Answer:
    started = time.monotonic()
    answer = call()
    assert time.monotonic() - started < LONGEST_S
    return answer


def reserve(cast: Cast, day: int) -> Answer:
    wish = {
        "customer_id": f"{cast.ana.customer_id}",
        "vehicle_id": f"{cast.corolla}",
        "start_at": iso(at(2 * day)),
        "end_at": iso(at(2 * day + 1)),
    }
    return cast.agent.post("/v1/rentals", wish, key=f"day-{day}")


@pytest.mark.parametrize("failure", FAILURES)
def test_the_service_goes_on(failure: Callable[[Valkey], Any], scene: Cast, redis: Valkey) -> None:
    path = f"/v1/vehicles/{scene.corolla}"
    before = scene.manager.get(path)
    with failure(redis):
        assert [timed(lambda: scene.agent.get(path)).json for _ in range(8)] == [before.json] * 8
        assert [timed(partial(reserve, scene, day)).status_code for day in (1, 2)] == [201, 201]
        assert timed(lambda: reserve(scene, 1)).headers["Idempotency-Replayed"] == "true"
        changed = timed(lambda: scene.manager.patch(path, {"color": "red"}, version=before.json["version"]))
        assert changed.status_code == 200
        assert timed(lambda: scene.agent.get(path)).json == changed.json
        window = f"start_at={iso(at(30))}&end_at={iso(at(31))}"
        assert timed(lambda: scene.agent.get(f"/v1/availability/summary?{window}")).status_code == 200
        assert timed(lambda: scene.manager.get("/admin/cache")).status_code == 200
    assert scene.agent.get(path).json == changed.json
    assert db.one("SELECT count(*) FROM rental") == (2,)
    assert waiting() > 0


@pytest.mark.parametrize("failure", [gone, frozen, full])
def test_limits_go_on_in_the_process(failure: Callable[[Valkey], Any], scene: Cast, redis: Valkey) -> None:
    with failure(redis):
        statuses = [scene.ben.get("/v1/auth/me").status_code for _ in range(61)]
    assert (set(statuses[:60]), statuses[60]) == ({200}, 429)


@pytest.mark.parametrize("failure", [gone, frozen])
def test_other_processes_see_a_change_that_redis_did_not_hear_of_as_soon_as_it_does(
    failure: Callable[[Valkey], Any], scene: Cast, redis: Valkey, own_settings: Settings
) -> None:
    path = f"/v1/vehicles/{scene.corolla}"
    before = scene.manager.get(path).json
    with failure(redis):
        changed = scene.manager.patch(path, {"color": "red"}, version=before["version"])
    cache.current()._deaf_until = 0.0  # a second later
    assert scene.manager.get(path).json == changed.json
    with Redis.from_url(redis.url) as client:
        stored = client.get(names_of(cache.VEHICLES, f"{scene.corolla}").value)
    assert stored is None or b'"red"' in stored
    elsewhere = Cache(own_settings).get(cache.VEHICLES, f"{scene.corolla}", lambda: {"color": "read"}, VEHICLES.shape)
    assert elsewhere["color"] in {"red", "read"}


@pytest.mark.parametrize("failure", [gone, frozen])
def test_a_flush_says_that_redis_is_away(failure: Callable[[Valkey], Any], scene: Cast, redis: Valkey) -> None:
    with failure(redis):
        refused = timed(lambda: scene.admin.post("/admin/cache/flush"))
    assert (refused.status_code, refused.json["code"]) == (503, "dependency_unavailable")
    assert "Retry-After" in refused.headers
    assert db.one("SELECT count(*) FROM audit_event WHERE action = 'cache.flush'") == (0,)


def test_the_relay_waits_for_a_full_broker_and_then_delivers(
    scene: Cast, redis: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In this order: the second is read from the first, and would be put back as what the first was meanwhile.
    monkeypatch.setattr(celery_app.conf, "broker_write_url", redis.url)
    monkeypatch.setattr(celery_app.conf, "broker_url", redis.url)
    assert reserve(scene, 1).status_code == 201
    owed = waiting()
    broker = Broker(celery_app)
    relay = Relay(broker, known=topics(), limits=dict.fromkeys(outbox.QUEUES, 100))
    with full(redis), pytest.raises(BrokerAway):
        relay.turn()
    assert (waiting(), db.one("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL")) == (owed, (0,))
    let_leases_end()
    relay.turn()
    with Redis.from_url(redis.url) as client:
        assert client.llen("fleet:notifications") > 0
    broker.close()


def waiting() -> int:
    """Promises that are not kept yet, and not lost either."""
    row = db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL AND dead_at IS NULL")
    assert row is not None
    return int(row[0])


def test_the_application_starts_without_redis(app_with: AppWith, redis: Valkey, fresh_database: None) -> None:
    with gone(redis):
        app: Flask = app_with()
        cast = Cast(app)
        assert cast.agent.get(f"/v1/vehicles/{cast.corolla}").status_code == 200
    assert cast.agent.get(f"/v1/vehicles/{cast.corolla}").status_code == 200
