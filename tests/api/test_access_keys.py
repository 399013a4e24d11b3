from datetime import timedelta
from typing import Any

import pytest
import time_machine

from fleet import auth, clock
from fleet.db import db
from tests.cast import Answer, Cast, Person, iso, request

ROBOT: dict[str, Any] = {"name": "robot", "permissions": ["vehicles.read", "auth.session"]}


def create(person: Person, **changed: Any) -> Answer:
    return person.post("/v1/api-keys", {**ROBOT, **changed})


def with_key(cast: Cast, key: str, method: str, path: str, body: Any = None) -> Answer:
    return request(cast.app, method, path, body, {"Authorization": f"Bearer {key}"})


def test_a_key_is_shown_once_and_stored_as_its_digest(cast: Cast) -> None:
    created = create(cast.agent)
    assert created.status_code == 201
    key = created.json.pop("key")
    assert key.startswith("flt_")
    assert key.startswith(created.json["prefix"])
    assert len(key) > len(created.json["prefix"]) + 30
    (stored,) = db.one("SELECT key_hash FROM api_key") or ()
    assert bytes(stored) == auth.secret_hash(key)
    shown = cast.agent.get(created.headers["Location"])
    assert shown.json == {name: value for name, value in created.json.items() if name != "key"}
    assert cast.agent.get("/v1/api-keys").json["data"] == [shown.json]


def test_a_key_does_what_it_was_made_for_and_no_more(cast: Cast) -> None:
    key = create(cast.agent).json["key"]
    shown = with_key(cast, key, "GET", "/v1/auth/me").json
    assert shown["permissions"] == sorted(ROBOT["permissions"])
    refused = with_key(cast, key, "GET", "/v1/api-keys")
    assert (refused.status_code, refused.json["code"]) == (403, "forbidden")


def test_a_key_holds_only_what_its_owner_holds(cast: Cast) -> None:
    for permissions in (["users.manage"], ["vehicles.read", "ledger.post"], ["no.such.thing"]):
        refused = create(cast.agent, permissions=permissions)
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "permissions")
    assert create(cast.agent, permissions=[]).status_code == 422


def test_a_key_shrinks_with_its_owner(cast: Cast) -> None:
    key = create(cast.manager, permissions=["branches.manage", "auth.session"]).json["key"]
    cast.admin.put(f"/v1/users/{cast.manager.user_id}/roles", {"roles": ["driver"]}, version="1")
    assert with_key(cast, key, "GET", "/v1/auth/me").json["permissions"] == ["auth.session"]


def test_a_key_cannot_make_a_key(cast: Cast) -> None:
    key = create(cast.agent, permissions=["api_keys.manage"]).json["key"]
    refused = with_key(cast, key, "POST", "/v1/api-keys", {"name": "child", "permissions": ["api_keys.manage"]})
    assert (refused.status_code, refused.json["code"]) == (403, "forbidden")


def test_a_key_expires_after_ninety_days_unless_told_otherwise(cast: Cast) -> None:
    now = clock.now()
    with time_machine.travel(now, tick=False):
        created = create(cast.agent).json
        assert created["expires_at"] == iso(now + timedelta(days=90))
        sooner = iso(now + timedelta(days=1))
        assert create(cast.agent, expires_at=sooner).json["expires_at"] == sooner
        assert create(cast.agent, expires_at=iso(now + timedelta(days=365))).status_code == 201


@pytest.mark.parametrize("days", [-1, 0, 365.001])
def test_a_key_must_expire_within_a_year(cast: Cast, days: float) -> None:
    now = clock.now()
    with time_machine.travel(now, tick=False):
        refused = create(cast.agent, expires_at=iso(now + timedelta(days=days)))
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "expires_at")


def test_an_expired_key_is_refused(cast: Cast) -> None:
    key = create(cast.agent).json["key"]
    db.execute_sql("UPDATE api_key SET expires_at = now() - interval '1 second'")
    assert with_key(cast, key, "GET", "/v1/auth/me").status_code == 401


def test_a_revoked_key_is_refused_at_once_and_gone_from_the_list(cast: Cast) -> None:
    created = create(cast.agent)
    assert cast.agent.delete(created.headers["Location"]).status_code == 204
    assert with_key(cast, created.json["key"], "GET", "/v1/auth/me").status_code == 401
    assert cast.agent.get("/v1/api-keys").json["data"] == []
    assert cast.agent.delete(created.headers["Location"]).status_code == 404


def test_another_ones_key_is_not_found(cast: Cast) -> None:
    location = create(cast.agent).headers["Location"]
    for person in (cast.manager, cast.admin):
        assert person.get("/v1/api-keys").json["data"] == []
        assert person.get(location).status_code == 404
        assert person.delete(location).status_code == 404
    assert cast.agent.get(location).status_code == 200


def test_the_last_use_of_a_key_is_shown(cast: Cast) -> None:
    created = create(cast.agent)
    assert created.json["last_used_at"] is None
    with_key(cast, created.json["key"], "GET", "/v1/auth/me")
    assert cast.agent.get(created.headers["Location"]).json["last_used_at"] is not None


@pytest.mark.parametrize("key", ["flt_", "flt_" + "x" * 43, "flt_ünïcödé", "flt_\x7f", "flt_" + "y" * 4000])
def test_a_key_that_is_none_of_ours_is_refused(cast: Cast, key: str) -> None:
    refused = with_key(cast, key.encode().decode("latin-1"), "GET", "/v1/auth/me")
    assert (refused.status_code, refused.json["code"]) == (401, "unauthenticated")


def test_the_secret_is_kept_nowhere_not_even_for_a_replay(cast: Cast) -> None:
    created = cast.agent.post("/v1/api-keys", ROBOT, key="k1")
    assert created.status_code == 201
    assert db.rows("SELECT 1 FROM idempotency_record") == []
