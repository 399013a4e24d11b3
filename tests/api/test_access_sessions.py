from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask

from fleet import auth, clock, passwords
from fleet.db import Database, db
from fleet.rules.throttle import FREE_FAILURES, HEALS_AFTER
from tests.cast import PASSWORD, Answer, Cast, Person, request

WRONG = "not the right password"
NEW = "another fine passphrase"


def post(app: Flask, path: str, body: Any, **headers: str) -> Answer:
    """A request without credentials."""
    return request(app, "POST", path, body, headers)


def login(person: Person, password: str = PASSWORD) -> Answer:
    return post(person.app, "/v1/auth/login", {"email": person.email, "password": password})


def refresh(app: Flask, refresh_token: str) -> Answer:
    return post(app, "/v1/auth/refresh", {"refresh_token": refresh_token})


def me(app: Flask, access_token: str) -> Answer:
    return request(app, "GET", "/v1/auth/me", headers={"Authorization": f"Bearer {access_token}"})


def deactivate(person: Person) -> None:
    db.execute_sql("UPDATE user_account SET deactivated_at = now() WHERE id = %s", (person.user_id,))


def exhaust(person: Person) -> None:
    """Fail so often that the account rests."""
    for _ in range(FREE_FAILURES):
        assert login(person, WRONG).status_code == 401


# --- signing in -------------------------------------------------------------------------------------------------------


def test_the_right_password_opens_a_session(cast: Cast) -> None:
    answer = login(cast.ana)
    assert answer.status_code == 200
    assert set(answer.json) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 900)
    assert answer.headers["Cache-Control"] == "no-store"
    assert me(cast.app, answer.json["access_token"]).json["user"]["email"] == cast.ana.email


def test_the_e_mail_is_recognised_in_any_case(cast: Cast) -> None:
    answer = post(cast.app, "/v1/auth/login", {"email": cast.ana.email.upper(), "password": PASSWORD})
    assert answer.status_code == 200


def test_me_shows_the_user_with_roles_permissions_and_the_renters_profile(cast: Cast) -> None:
    shown = cast.ana.get("/v1/auth/me").json
    assert shown["user"]["id"] == str(cast.ana.user_id)
    assert shown["roles"] == ["customer"]
    assert set(shown["permissions"]) == auth.ROLES["customer"]
    assert shown["customer_id"] == str(cast.ana.customer_id)
    assert cast.agent.get("/v1/auth/me").json["customer_id"] is None


def test_failed_sign_ins_are_alike_whatever_is_wrong(cast: Cast) -> None:
    deactivated, resting = cast.person("customer"), cast.person("customer")
    deactivate(deactivated)
    exhaust(resting)
    refused = {
        "unknown": post(cast.app, "/v1/auth/login", {"email": "nobody@example.com", "password": PASSWORD}),
        "wrong": login(cast.ana, WRONG),
        "deactivated": login(deactivated),
        "resting": login(resting),
    }
    assert {kind: answer.status_code for kind, answer in refused.items()} == dict.fromkeys(refused, 401)
    said = [_without_request_id(answer) for answer in refused.values()]
    assert all(one == said[0] for one in said)
    assert said[0][0]["code"] == "invalid_credentials"
    assert "WWW-Authenticate" in said[0][1]


def _without_request_id(answer: Answer) -> tuple[dict[str, Any], dict[str, str]]:
    body = {name: value for name, value in answer.json.items() if name != "request_id"}
    own = {"X-Request-ID", "RateLimit-Remaining", "RateLimit-Reset", "Content-Length"}
    return body, {name: value for name, value in answer.headers.items() if name not in own}


def test_failed_sign_ins_cost_the_same_work_whatever_is_wrong(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    deactivated, resting = cast.person("customer"), cast.person("customer")
    deactivate(deactivated)
    exhaust(resting)
    with work_of(monkeypatch) as unknown:
        post(cast.app, "/v1/auth/login", {"email": "nobody@example.com", "password": PASSWORD})
    assert unknown.count("argon2") == 1
    assert len(unknown) > 2
    for person, password in ((cast.ana, WRONG), (deactivated, PASSWORD), (resting, PASSWORD)):
        with work_of(monkeypatch) as work:
            assert login(person, password).status_code == 401
        assert work == unknown


@contextmanager
def work_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is done in the block, in order: SQL statements (without their parameters) and password comparisons."""
    done: list[str] = []
    compare, execute = auth._hasher.verify, Database.execute_sql

    class Watched:
        def verify(self, stored: str, password: str) -> bool:
            done.append("argon2")
            return compare(stored, password)

    def watched(self: Database, sql: str, params: Any = None) -> Any:
        done.append(sql)
        return execute(self, sql, params)

    with monkeypatch.context() as patched:
        patched.setattr(auth, "_hasher", Watched())
        patched.setattr(Database, "execute_sql", watched)
        yield done


# --- the throttle -----------------------------------------------------------------------------------------------------


def test_after_a_few_failures_the_account_rests_even_for_the_right_password(cast: Cast) -> None:
    exhaust(cast.ana)
    assert login(cast.ana).status_code == 401
    assert login(cast.ben).status_code == 200


def test_the_account_heals_by_itself(cast: Cast) -> None:
    exhaust(cast.ana)
    with time_machine.travel(clock.now() + HEALS_AFTER + timedelta(seconds=1), tick=False):
        assert login(cast.ana).status_code == 200


def test_attempts_during_the_rest_do_not_prolong_it(cast: Cast) -> None:
    exhaust(cast.ana)
    before = db.one("SELECT failures, last_failure_at FROM login_throttle")
    for _ in range(3):
        login(cast.ana, WRONG)
    assert db.one("SELECT failures, last_failure_at FROM login_throttle") == before


def test_a_stubborn_guesser_waits_longer_each_time(cast: Cast) -> None:
    exhaust(cast.ana)
    with time_machine.travel(clock.now() + timedelta(seconds=6), tick=False) as travel:
        login(cast.ana, WRONG)
        travel.shift(timedelta(seconds=6))
        assert login(cast.ana).status_code == 401
        travel.shift(timedelta(seconds=6))
        assert login(cast.ana).status_code == 200


def test_the_right_password_wipes_the_slate(cast: Cast) -> None:
    login(cast.ana, WRONG)
    assert login(cast.ana).status_code == 200
    assert db.rows("SELECT 1 FROM login_throttle") == []


def test_failures_long_ago_are_forgotten(cast: Cast) -> None:
    for _ in range(FREE_FAILURES - 1):
        login(cast.ana, WRONG)
    with time_machine.travel(clock.now() + HEALS_AFTER + timedelta(seconds=1), tick=False):
        login(cast.ana, WRONG)
        assert db.rows("SELECT failures FROM login_throttle") == [(1,)]


def test_the_throttle_keeps_no_address(cast: Cast) -> None:
    login(cast.ana, WRONG)
    (stored,) = db.one("SELECT account_hash FROM login_throttle") or ()
    assert len(stored) == 32


def test_a_storm_of_sign_ins_is_turned_away_at_once(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "desk", passwords.Desk(threads=3))
    with passwords.desk.turn():
        refused = login(cast.ana)
    assert (refused.status_code, refused.json["code"]) == (503, "dependency_unavailable")
    assert refused.headers["Retry-After"] == "1"
    assert login(cast.ana).status_code == 200


# --- carrying on and ending -------------------------------------------------------------------------------------------


def test_a_refresh_gives_a_new_pair_and_the_old_token_is_dead(cast: Cast) -> None:
    first = login(cast.ana).json
    second = refresh(cast.app, first["refresh_token"])
    assert second.status_code == 200
    assert second.json["refresh_token"] != first["refresh_token"]
    assert me(cast.app, second.json["access_token"]).status_code == 200
    assert refresh(cast.app, first["refresh_token"]).status_code == 401


def test_a_token_that_comes_back_ends_its_whole_family_and_no_other(cast: Cast) -> None:
    first, other = login(cast.ana).json, login(cast.ana).json
    second = refresh(cast.app, first["refresh_token"]).json
    assert refresh(cast.app, first["refresh_token"]).status_code == 401
    assert refresh(cast.app, second["refresh_token"]).status_code == 401
    assert me(cast.app, second["access_token"]).status_code == 401
    assert me(cast.app, other["access_token"]).status_code == 200
    reasons = db.rows("SELECT end_reason FROM user_session WHERE ended_at IS NOT NULL")
    assert reasons == [("refresh_token_reused",)]


def test_a_refresh_token_lives_as_long_as_a_session_from_when_it_was_handed_out(cast: Cast) -> None:
    token = login(cast.ana).json["refresh_token"]
    start = clock.now()
    with time_machine.travel(start + auth.SESSION_LIFETIME - timedelta(minutes=1), tick=False):
        token = refresh(cast.app, token).json["refresh_token"]
    with time_machine.travel(start + 2 * auth.SESSION_LIFETIME, tick=False):
        assert refresh(cast.app, token).status_code == 401


@pytest.mark.parametrize("token", ["nonsense", "flt_nonsense", "é" * 40, "x" * 256])
def test_a_token_that_is_none_of_ours_refreshes_nothing(cast: Cast, token: str) -> None:
    assert refresh(cast.app, token).status_code == 401


def test_an_access_token_is_no_refresh_token_and_the_other_way_round(cast: Cast) -> None:
    tokens = login(cast.ana).json
    assert refresh(cast.app, tokens["access_token"]).status_code in {401, 422}
    assert me(cast.app, tokens["refresh_token"]).status_code == 401


def test_a_logout_ends_the_session_at_once(cast: Cast) -> None:
    tokens, other = login(cast.ana).json, login(cast.ana).json
    ended = post(cast.app, "/v1/auth/logout", {"refresh_token": tokens["refresh_token"]})
    assert (ended.status_code, ended.data) == (204, b"")
    assert me(cast.app, tokens["access_token"]).status_code == 401
    assert refresh(cast.app, tokens["refresh_token"]).status_code == 401
    assert me(cast.app, other["access_token"]).status_code == 200


def test_a_logout_with_a_dead_token_of_the_session_works_too(cast: Cast) -> None:
    old = login(cast.ana).json["refresh_token"]
    tokens = refresh(cast.app, old).json
    assert post(cast.app, "/v1/auth/logout", {"refresh_token": old}).status_code == 204
    assert me(cast.app, tokens["access_token"]).status_code == 401


def test_logging_out_twice_or_with_nothing_of_ours_is_no_failure(cast: Cast) -> None:
    tokens = login(cast.ana).json
    for token in (tokens["refresh_token"], tokens["refresh_token"], "nonsense"):
        assert post(cast.app, "/v1/auth/logout", {"refresh_token": token}).status_code == 204


def test_secrets_are_stored_as_digests_only(cast: Cast) -> None:
    tokens = login(cast.ana).json
    (stored,) = db.one("SELECT token_hash FROM refresh_token") or ()
    assert bytes(stored) == auth.secret_hash(tokens["refresh_token"])


# --- changing the password --------------------------------------------------------------------------------------------


def change(access_token: str, cast: Cast, current: str = PASSWORD, new: str = NEW) -> Answer:
    body = {"current_password": current, "new_password": new}
    return post(cast.app, "/v1/auth/password", body, Authorization=f"Bearer {access_token}")


def test_a_new_password_ends_all_other_sessions_and_nothing_else(cast: Cast) -> None:
    mine, other = login(cast.ana).json, login(cast.ana).json
    key = cast.ana.post("/v1/api-keys", {"name": "robot", "permissions": ["auth.session"]}).json["key"]
    stranger = login(cast.ben).json
    assert change(mine["access_token"], cast).status_code == 204
    assert me(cast.app, other["access_token"]).status_code == 401
    assert refresh(cast.app, other["refresh_token"]).status_code == 401
    assert me(cast.app, mine["access_token"]).status_code == 200
    assert refresh(cast.app, mine["refresh_token"]).status_code == 200
    assert me(cast.app, key).status_code == 200
    assert me(cast.app, stranger["access_token"]).status_code == 200
    assert login(cast.ana).status_code == 401
    assert login(cast.ana, NEW).status_code == 200


def test_the_wrong_current_password_changes_nothing_and_counts_as_a_failed_sign_in(cast: Cast) -> None:
    token = login(cast.ana).json["access_token"]
    for _ in range(FREE_FAILURES):
        refused = change(token, cast, current=WRONG)
        assert (refused.status_code, refused.json["code"]) == (401, "invalid_credentials")
    assert change(token, cast).status_code == 401
    with time_machine.travel(clock.now() + timedelta(seconds=30), tick=False):
        assert login(cast.ana).status_code == 200


def test_guesses_at_the_current_password_count_with_an_idempotency_key_too(cast: Cast) -> None:
    cast.ana.post("/v1/auth/password", {"current_password": WRONG, "new_password": NEW}, key="k")
    assert db.rows("SELECT failures FROM login_throttle") == [(1,)]


def test_a_weak_new_password_is_refused_by_name(cast: Cast) -> None:
    refused = cast.ana.post("/v1/auth/password", {"current_password": PASSWORD, "new_password": "short"})
    assert (refused.status_code, refused.json["code"]) == (422, "weak_password")
    assert [(item["field"], item["code"]) for item in refused.json["errors"]] == [("new_password", "too_short")]
    refused = cast.ana.post("/v1/auth/password", {"current_password": PASSWORD, "new_password": cast.ana.email})
    assert refused.json["errors"][0]["code"] == "is_email"


def test_an_api_key_cannot_change_the_password(cast: Cast) -> None:
    key = cast.ana.post("/v1/api-keys", {"name": "robot", "permissions": ["auth.session"]}).json["key"]
    assert change(key, cast).status_code == 403
