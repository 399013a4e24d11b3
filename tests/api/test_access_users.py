from typing import Any

import orjson
import pytest

from fleet import auth
from fleet.db import db
from tests.cast import PASSWORD, Answer, Cast, request

DORA: dict[str, Any] = {
    "email": "dora@example.com",
    "password": "a passphrase of dora",
    "first_name": "Dora",
    "last_name": "Lima",
    "phone": "+351910000000",
}


def register(cast: Cast, **changed: Any) -> Answer:
    return request(cast.app, "POST", "/v1/auth/register", {**DORA, **changed})


def sign_in(cast: Cast, email: str, password: str) -> int:
    return request(cast.app, "POST", "/v1/auth/login", {"email": email, "password": password}).status_code


# --- signing up -------------------------------------------------------------------------------------------------------


def test_whoever_signs_up_is_a_customer_and_can_sign_in(cast: Cast) -> None:
    created = register(cast)
    assert (created.status_code, created.json["roles"], created.json["active"]) == (201, ["customer"], True)
    assert created.headers["Location"] == f"/v1/users/{created.json['id']}"
    assert sign_in(cast, DORA["email"], DORA["password"]) == 200


@pytest.mark.parametrize(
    "field", ["roles", "role", "id", "version", "deactivated_at", "active", "password_hash", "customer_id", "permissions"]
)
def test_nobody_signs_up_with_more_than_that(cast: Cast, field: str) -> None:
    refused = register(cast, **{field: ["admin"]})
    assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")
    assert db.one("SELECT 1 FROM user_account WHERE email = %s", (DORA["email"],)) is None


def test_an_e_mail_signs_up_once_in_whatever_case(cast: Cast) -> None:
    assert register(cast).status_code == 201
    refused = register(cast, email="DORA@example.COM")
    assert (refused.status_code, refused.json["code"]) == (409, "duplicate")


def test_a_weak_password_is_refused_by_name(cast: Cast) -> None:
    for password, why in (("eleven char", "too_short"), ("Password1234", "too_common"), (DORA["email"], "is_email")):
        refused = register(cast, password=password)
        assert (refused.status_code, refused.json["code"]) == (422, "weak_password")
        assert [(item["field"], item["code"]) for item in refused.json["errors"]] == [("password", why)]


def test_a_password_is_not_trimmed(cast: Cast) -> None:
    assert register(cast, password="  spaces around it  ").status_code == 201
    assert sign_in(cast, DORA["email"], "spaces around it") == 401
    assert sign_in(cast, DORA["email"], "  spaces around it  ") == 200


def test_signing_up_twice_with_one_key_makes_one_user(cast: Cast) -> None:
    headers = {"Idempotency-Key": "sign-up-1"}
    first, second = (request(cast.app, "POST", "/v1/auth/register", DORA, headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.data == first.data
    assert second.headers["Idempotency-Replayed"] == "true"


def test_a_password_cannot_be_guessed_from_the_fingerprint_of_its_request(cast: Cast) -> None:
    body = orjson.dumps(DORA)
    request(cast.app, "POST", "/v1/auth/register", body, {"Idempotency-Key": "sign-up-1"})
    (stored,) = db.one("SELECT fingerprint FROM idempotency_record") or ()
    assert bytes(stored) != auth.secret_hash("application/json\n\n" + body.decode())


# --- what an admin does -----------------------------------------------------------------------------------------------


def test_an_admin_adds_users_with_any_known_roles(cast: Cast) -> None:
    body = {**DORA, "roles": ["rental_agent", "accountant", "rental_agent"]}
    created = cast.admin.post("/v1/users", body)
    assert (created.status_code, created.json["roles"]) == (201, ["accountant", "rental_agent"])
    assert created.headers["ETag"] == '"1"'
    assert cast.admin.get(created.headers["Location"]).json == created.json


@pytest.mark.parametrize("roles", [[], ["owner"], ["admin", "owner"], "admin", [1], None])
def test_roles_are_a_list_of_known_ones(cast: Cast, roles: Any) -> None:
    assert cast.admin.post("/v1/users", {**DORA, "roles": roles}).status_code == 422
    refused = cast.admin.put(f"/v1/users/{cast.ana.user_id}/roles", {"roles": roles}, version="1")
    assert refused.status_code == 422


def test_only_admins_manage_users(cast: Cast) -> None:
    path = f"/v1/users/{cast.ana.user_id}"
    for role, person in cast.staff.items():
        if role == "admin":
            continue
        refused = [
            person.get("/v1/users"),
            person.post("/v1/users", {**DORA, "roles": ["admin"]}),
            person.get(path),
            person.patch(path, {"first_name": "X"}, version="1"),
            person.put(f"{path}/roles", {"roles": ["admin"]}, version="1"),
            person.post(f"{path}/deactivate"),
        ]
        assert {(answer.status_code, answer.json["code"]) for answer in refused} == {(403, "forbidden")}, role


def test_users_are_listed_newest_first_and_found_by_role_and_e_mail(cast: Cast) -> None:
    newest = cast.admin.post("/v1/users", {**DORA, "roles": ["driver"]}).json
    assert cast.admin.get("/v1/users?limit=1").json["data"] == [newest]
    drivers = cast.admin.get("/v1/users?role=driver").json["data"]
    assert [user["id"] for user in drivers] == [newest["id"], str(cast.driver.user_id)]
    assert [user["id"] for user in cast.admin.get("/v1/users?email=DORA@example.com").json["data"]] == [newest["id"]]
    assert cast.admin.get("/v1/users?role=owner").status_code == 422


def test_a_user_is_changed_by_whoever_read_the_latest_version(cast: Cast) -> None:
    path = f"/v1/users/{cast.ana.user_id}"
    assert cast.admin.patch(path, {"first_name": "Anna"}).status_code == 428
    changed = cast.admin.patch(path, {"first_name": "Anna", "phone": None}, version="1")
    assert (changed.status_code, changed.json["first_name"], changed.json["version"]) == (200, "Anna", 2)
    assert cast.admin.patch(path, {"first_name": "Ann"}, version="1").status_code == 412
    assert cast.admin.patch(path, {}, version="2").status_code in {200, 422}
    assert cast.admin.patch(path, {"first_name": None}, version="2").status_code == 422


@pytest.mark.parametrize("field", ["email", "roles", "password", "password_hash", "deactivated_at", "active", "version"])
def test_what_is_not_a_name_or_phone_is_not_changed_there(cast: Cast, field: str) -> None:
    refused = cast.admin.patch(f"/v1/users/{cast.ana.user_id}", {field: "x"}, version="1")
    assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")


def test_an_unknown_user_is_not_found(cast: Cast) -> None:
    path = "/v1/users/01890000-0000-7000-8000-000000000000"
    found = [
        cast.admin.get(path),
        cast.admin.patch(path, {"first_name": "X"}, version="1"),
        cast.admin.put(f"{path}/roles", {"roles": ["driver"]}, version="1"),
        cast.admin.post(f"{path}/deactivate"),
    ]
    assert [answer.status_code for answer in found] == [404] * 4


def test_new_roles_count_from_the_next_request_on(cast: Cast) -> None:
    path = f"/v1/users/{cast.agent.user_id}/roles"
    assert cast.agent.get("/v1/users").status_code == 403
    assert cast.admin.put(path, {"roles": ["admin"]}).status_code == 428
    assert cast.admin.put(path, {"roles": ["admin"]}, version="7").status_code == 412
    assert cast.admin.put(path, {"roles": ["admin"]}, version="1").status_code == 200
    assert cast.agent.get("/v1/users").status_code == 200
    assert cast.admin.put(path, {"roles": ["driver"]}, version="2").status_code == 200
    assert cast.agent.get("/v1/users").status_code == 403


def test_a_deactivated_user_is_out_from_the_next_request_on_with_their_keys(cast: Cast) -> None:
    key = cast.ana.post("/v1/api-keys", {"name": "robot", "permissions": ["auth.session"]}).json["key"]
    with_key = {"Authorization": f"Bearer {key}"}
    assert request(cast.app, "GET", "/v1/auth/me", headers=with_key).status_code == 200
    closed = cast.admin.post(f"/v1/users/{cast.ana.user_id}/deactivate")
    assert (closed.status_code, closed.json["active"]) == (200, False)
    assert closed.json["deactivated_at"] is not None
    assert cast.ana.get("/v1/auth/me").status_code == 401
    assert request(cast.app, "GET", "/v1/auth/me", headers=with_key).status_code == 401
    assert sign_in(cast, cast.ana.email, PASSWORD) == 401
    assert db.one("SELECT end_reason FROM user_session WHERE id = %s", (cast.ana.session_id,)) == ("deactivated",)
    assert cast.ben.get("/v1/auth/me").status_code == 200


def test_a_deactivation_honours_the_version_where_one_is_sent_and_happens_once(cast: Cast) -> None:
    path = f"/v1/users/{cast.ana.user_id}/deactivate"
    assert cast.admin.post(path, version="7").status_code == 412
    assert cast.admin.post(path, version="1").status_code == 200
    again = cast.admin.post(path)
    assert (again.status_code, again.json["code"]) == (409, "invalid_state")


def test_the_last_active_admin_stays(cast: Cast) -> None:
    path = f"/v1/users/{cast.admin.user_id}"
    refused = [
        cast.admin.post(f"{path}/deactivate"),
        cast.admin.put(f"{path}/roles", {"roles": ["fleet_manager"]}, version="1"),
    ]
    assert [(answer.status_code, answer.json["code"]) for answer in refused] == [(409, "last_admin")] * 2
    kept = cast.admin.put(f"{path}/roles", {"roles": ["admin", "fleet_manager"]}, version="1")
    assert kept.status_code == 200


def test_an_admin_may_go_when_another_one_is_active(cast: Cast) -> None:
    second, third = cast.person("admin"), cast.person("admin")
    assert cast.admin.post(f"/v1/users/{second.user_id}/deactivate").status_code == 200
    demoted = cast.admin.put(f"/v1/users/{cast.admin.user_id}/roles", {"roles": ["driver"]}, version="1")
    assert demoted.status_code == 200
    assert third.post(f"/v1/users/{third.user_id}/deactivate").json["code"] == "last_admin"


def test_no_answer_carries_a_hash(cast: Cast) -> None:
    answers = [
        register(cast),
        cast.admin.get("/v1/users"),
        cast.admin.get(f"/v1/users/{cast.ana.user_id}"),
        cast.admin.patch(f"/v1/users/{cast.ana.user_id}", {"first_name": "Anna"}, version="1"),
        cast.ana.get("/v1/auth/me"),
        cast.ana.post("/v1/api-keys", {"name": "robot", "permissions": ["auth.session"]}),
        cast.ana.get("/v1/api-keys"),
    ]
    for answer in answers:
        assert answer.status_code < 300
        assert b"hash" not in answer.data
        assert b"argon2" not in answer.data
