"""/admin/cache, and what is cached: whoever changed something reads it as it is, and nobody sees more than before."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from redis import Redis

from fleet import cache, clock
from fleet.cache import Cache
from fleet.db import db
from fleet.embedded import Databases
from fleet.services import vehicles
from tests.cast import Cast, at, insert, iso, request
from tests.statements import counted


@pytest.fixture(autouse=True)
def redis(databases: Databases) -> Iterator[Redis]:
    """With nothing cached."""
    with Redis.from_url(databases.redis_url) as client:
        client.flushdb()
        yield client


def looks(cast: Cast, namespace: str) -> dict[str, Any]:
    answer = cast.manager.get("/admin/cache")
    assert answer.status_code == 200
    return next(row for row in answer.json["namespaces"] if row["namespace"] == namespace)


@pytest.fixture
def things(cast: Cast) -> dict[str, tuple[str, dict[str, Any]]]:
    """The address of one thing of each kind, and a change of it."""
    unused = insert("branch", code="OPO", name="Porto", timezone="Europe/Lisbon", currency="EUR")
    return {
        "vehicles": (f"/v1/vehicles/{cast.corolla}", {"color": "red"}),
        "vehicle_classes": (f"/v1/vehicle-classes/{cast.compact}", {"name": "Small"}),
        "branches": (f"/v1/branches/{unused}", {"name": "Porto Airport"}),
    }


KINDS = ("vehicles", "vehicle_classes", "branches")


@pytest.mark.parametrize("kind", KINDS)
class TestSingleReads:
    def test_a_second_read_asks_the_database_only_who_asks(
        self, cast: Cast, things: dict, kind: str, statements: list[str]
    ) -> None:
        path, _ = things[kind]
        first = cast.ana.known().get(path)
        statements.clear()
        second = cast.ben.known().get(path)
        assert (second.status_code, second.get_data()) == (200, first.get_data())
        assert second.headers["ETag"] == first.headers["ETag"] == f'"{first.json["version"]}"'
        statements.clear()
        assert cast.ana.get(path).status_code == 200
        assert statements == [""]  # nothing but the check that travels ahead of it

    def test_who_changes_it_reads_the_change(self, cast: Cast, things: dict, kind: str) -> None:
        path, change = things[kind]
        before = cast.manager.get(path)
        changed = cast.manager.patch(path, change, version=before.json["version"])
        assert changed.status_code == 200
        after = cast.manager.get(path)
        assert after.json == changed.json
        assert cast.manager.get(path, If_None_Match=before.headers["ETag"]).status_code == 200
        assert cast.manager.get(path, If_None_Match=after.headers["ETag"]).status_code == 304

    def test_a_change_that_was_refused_changes_nothing(self, cast: Cast, things: dict, kind: str) -> None:
        path, change = things[kind]
        before = cast.manager.get(path)
        assert cast.manager.patch(path, change, version="99").status_code == 412
        assert cast.manager.get(path).json == before.json

    def test_a_session_that_ended_reads_nothing_that_is_cached(self, cast: Cast, things: dict, kind: str) -> None:
        path, _ = things[kind]
        assert cast.ana.get(path).status_code == 200
        db.execute_sql("UPDATE user_session SET ended_at = now(), end_reason = 'logout' WHERE id = %s", (cast.ana.session_id,))
        assert cast.ana.get(path).status_code == 401
        assert request(cast.app, "GET", path).status_code == 401

    def test_what_is_removed_is_not_found(self, cast: Cast, things: dict, kind: str) -> None:
        path, _ = things[kind]
        if kind == "vehicle_classes":
            db.execute_sql("UPDATE vehicle SET class_id = NULL, daily_rate = 1")
        version = cast.manager.get(path).json["version"]
        assert cast.manager.delete(path, version=version).status_code == 204
        assert cast.manager.get(path).status_code == 404


def test_an_identifier_of_another_kind_finds_nothing_that_is_cached(cast: Cast) -> None:
    assert cast.ana.get(f"/v1/vehicles/{cast.corolla}").status_code == 200
    assert cast.ana.get(f"/v1/branches/{cast.corolla}").status_code == 404


def test_a_return_shows_at_once_on_the_vehicle(cast: Cast) -> None:
    """The vehicle changes with the rental: odometer and branch."""
    path = f"/v1/vehicles/{cast.corolla}"
    cast.agent.get(path)
    reading = cast.agent.post(f"{path}/odometer-readings", {"reading_km": 1234})
    assert reading.status_code == 201
    assert cast.agent.get(path).json["odometer_km"] == 1234
    moved = cast.manager.post(f"{path}/status", {"status": "out_of_service"}, key="once")
    assert cast.agent.get(path).json == moved.json


def test_a_transaction_that_fails_after_its_change_invalidates_nothing_and_stores_nothing(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}"
    before = cast.agent.get(path).json
    with pytest.raises(RuntimeError), db.transaction():
        vehicles.change(cast.manager.actor, cast.corolla, expected_version=None, changes={"color": "red"})
        assert vehicles.shown(cast.manager.actor, cast.corolla)["color"] == "red"
        raise RuntimeError
    assert cast.agent.get(path).json == before


def summary(cast: Cast, start: float = 1, end: float = 3, extra: str = "") -> Any:
    return cast.ana.get(f"/v1/availability/summary?start_at={iso(at(start))}&end_at={iso(at(end))}{extra}")


def taken(vehicle_id: UUID, start: float, end: float) -> None:
    period = f"[{at(start)},{at(end)})"
    insert("vehicle_block", vehicle_id=vehicle_id, kind="manual", start_at=at(start), end_at=at(end), occupied=period)


class TestSummary:
    def test_it_counts_what_is_free_by_class(self, cast: Cast) -> None:
        cast.vehicle(daily_rate=3900)
        cast.vehicle(class_id=None, daily_rate=9900, currency="USD")
        cast.vehicle(status="out_of_service")
        taken(cast.vehicle(), 2, 4)
        answer = summary(cast)
        assert answer.status_code == 200
        assert answer.json["data"] == [
            {"class_id": f"{cast.compact}", "currency": "EUR", "free": 2, "lowest_daily_rate": 3900},
            {"class_id": None, "currency": "USD", "free": 1, "lowest_daily_rate": 9900},
        ]
        assert summary(cast, extra=f"&branch_id={UUID(int=1)}").json["data"] == []
        assert [row["free"] for row in summary(cast, extra=f"&class_id={cast.compact}").json["data"]] == [2]

    def test_it_is_read_once_for_all_who_ask_within_seconds_and_says_how_old_it_is(
        self, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = summary(cast)
        taken(cast.corolla, 1, 2)
        assert summary(cast).json == first.json
        listed = cast.ana.get(f"/v1/availability?start_at={iso(at(1))}&end_at={iso(at(3))}")
        assert listed.json["data"] == []
        monkeypatch.setattr("time.time", lambda: clock.now().timestamp() + 2 * cache.AVAILABILITY.ttl_s)
        later = summary(cast).json
        assert (later["data"], later["as_of"] > first.json["as_of"]) == ([], True)

    def test_another_window_is_another_summary(self, cast: Cast) -> None:
        taken(cast.corolla, 1, 2)
        assert (summary(cast).json["data"], len(summary(cast, 10, 12).json["data"])) == ([], 1)

    def test_a_window_that_could_not_be_rented_is_refused_though_it_was_cached_for_who_may(self, cast: Cast) -> None:
        path = f"/v1/availability/summary?start_at={iso(at(-10))}&end_at={iso(at(-8))}"
        assert cast.manager.get(path).status_code == 200
        refused = cast.ana.get(path)
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "period_in_past")

    def test_it_takes_one_statement(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        cast.ana.known()
        sent = counted(monkeypatch)
        summary(cast)
        assert len(sent) == 1


class TestForOperators:
    def test_the_hit_rate_is_told_by_namespace(self, cast: Cast) -> None:
        before = looks(cast, "vehicles")
        for _ in range(4):
            cast.ana.get(f"/v1/vehicles/{cast.corolla}")
        after = looks(cast, "vehicles")
        assert {name: after[name] - before[name] for name in ("hits", "misses", "stale", "refreshes", "errors")} == {
            "hits": 3, "misses": 1, "stale": 0, "refreshes": 0, "errors": 0,
        }  # fmt: skip
        assert 0 < after["hit_rate"] < 1
        assert (after["enabled"], after["ttl_s"]) == (True, 30)

    def test_permissions_count_as_they_are_remembered(self, cast: Cast) -> None:
        before = looks(cast, "permissions")
        cast.ana.known().known()
        after = looks(cast, "permissions")
        assert (after["misses"] - before["misses"], after["hits"] - before["hits"]) == (1, 1)

    def test_every_namespace_is_listed(self, cast: Cast) -> None:
        answer = cast.manager.get("/admin/cache").json
        assert [row["namespace"] for row in answer["namespaces"]] == [*cache.NAMESPACES, "permissions"]
        assert answer["breaker"] == "closed"

    @pytest.mark.parametrize(
        ("body", "left"), [(None, 0), ({}, 0), ({"namespace": "vehicles"}, 1), ({"namespace": "branches"}, 1)]
    )
    def test_a_flush_empties_what_it_names_and_nothing_else(self, cast: Cast, redis: Redis, body: Any, left: int) -> None:
        cast.ana.get(f"/v1/vehicles/{cast.corolla}")
        cast.ana.get(f"/v1/branches/{cast.lisbon}")
        redis.set("fleet-limit:of-somebody", 1)
        flushed = cast.admin.post("/admin/cache/flush", body)
        assert (flushed.status_code, flushed.json) == (200, {"removed": 2 - left})
        kept: Any = redis.keys(f"{cache.PREFIX}*")
        assert len(kept) == left
        assert redis.exists("fleet-limit:of-somebody")

    def test_a_flush_is_on_the_record(self, cast: Cast) -> None:
        cast.admin.post("/admin/cache/flush", {"namespace": "vehicles"})
        [event] = cast.admin.get("/admin/audit-events?action=cache.flush").json["data"]
        assert (event["actor"], event["object_id"]) == (f"user:{cast.admin.user_id}", "vehicles")

    def test_a_flush_under_a_key_is_made_once(self, cast: Cast) -> None:
        first = cast.admin.post("/admin/cache/flush", {}, key="flush")
        again = cast.admin.post("/admin/cache/flush", {}, key="flush")
        assert (again.json, again.headers["Idempotency-Replayed"]) == (first.json, "true")

    @pytest.mark.parametrize("headers", [{}, {"key": "flush"}])
    def test_redis_is_asked_while_no_transaction_is_open(
        self, cast: Cast, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
    ) -> None:
        def flush(*_: object) -> int:
            return 3 if not db.in_transaction() else -1

        monkeypatch.setattr(Cache, "flush", flush)
        assert cast.admin.post("/admin/cache/flush", {}, **headers).json == {"removed": 3}

    @pytest.mark.parametrize("headers", [{}, {"key": "flush"}])
    def test_who_may_act_no_longer_deletes_nothing(self, cast: Cast, redis: Redis, headers: dict[str, str]) -> None:
        cast.admin.known().get(f"/v1/vehicles/{cast.corolla}")
        ended = "UPDATE user_session SET ended_at = now(), end_reason = 'logout' WHERE id = %s"
        db.execute_sql(ended, (cast.admin.session_id,))
        assert cast.admin.post("/admin/cache/flush", {}, **headers).status_code == 401
        kept: Any = redis.keys(f"{cache.PREFIX}*")
        assert len(kept) == 1

    def test_a_namespace_that_is_none_is_refused(self, cast: Cast) -> None:
        assert cast.admin.post("/admin/cache/flush", {"namespace": "permissions"}).status_code == 422
        assert cast.admin.post("/admin/cache/flush", {"namespace": "*"}).status_code == 422

    def test_only_operators_see_and_only_admins_flush(self, cast: Cast) -> None:
        seen = {role: person.get("/admin/cache").status_code for role, person in cast.staff.items()}
        assert {role for role, status in seen.items() if status == 200} == {"admin", "fleet_manager"}
        flushed = {role: person.post("/admin/cache/flush").status_code for role, person in cast.staff.items()}
        assert {role for role, status in flushed.items() if status == 200} == {"admin"}
        assert set(flushed.values()) == {200, 403}
