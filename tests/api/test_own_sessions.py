"""Whoever signs in sees where, and ends what they do not know; it works at the next request, also of who was just seen."""

from datetime import timedelta

import pytest
import time_machine

from fleet import clock
from fleet.db import db
from tests.accounts import audited, deliver, login, me, promises, refresh
from tests.cast import Cast

UNKNOWN = "01a2175a-3166-71f2-8520-7980a10af0f7"


def test_a_user_sees_their_live_sessions_newest_first_and_which_is_the_current_one(cast: Cast) -> None:
    login(cast.ben)
    gone = login(cast.ana).json
    cast.app.test_client().post("/v1/auth/logout", json={"refresh_token": gone["refresh_token"]})
    newer = login(cast.ana).json
    shown = cast.ana.get("/v1/auth/sessions").json["data"]
    assert [row["current"] for row in shown] == [False, True]
    assert shown[1]["id"] == f"{cast.ana.session_id}"
    assert set(shown[0]) == {"id", "created_at", "last_used_at", "expires_at", "current"}
    assert newer["refresh_token"] not in f"{shown}"


def test_a_session_shows_when_it_was_last_refreshed(cast: Cast) -> None:
    token = login(cast.ana).json["refresh_token"]
    with time_machine.travel(clock.now() + timedelta(hours=2), tick=False):
        refresh(cast.ana, token)
        row = cast.ana.get("/v1/auth/sessions").json["data"][0]
        assert row["last_used_at"] == clock.now().isoformat().replace("+00:00", "Z")
    assert row["created_at"] < row["last_used_at"]


def test_a_session_that_expired_is_not_shown_and_not_ended(cast: Cast) -> None:
    login(cast.ana)
    (session_id,) = db.one("SELECT id FROM user_session WHERE user_id = %s ORDER BY id DESC", (cast.ana.user_id,)) or ()
    db.execute_sql("UPDATE user_session SET expires_at = now() - interval '1 s' WHERE id = %s", (session_id,))
    assert len(cast.ana.get("/v1/auth/sessions").json["data"]) == 1
    assert cast.ana.delete(f"/v1/auth/sessions/{session_id}").status_code == 404


def test_one_session_is_ended_at_once_and_no_other(cast: Cast) -> None:
    stolen, mine = login(cast.ana).json, login(cast.ana).json
    assert me(cast.ana, stolen["access_token"]) == 200  # remembered from here on
    session_id = cast.ana.get("/v1/auth/sessions").json["data"][1]["id"]
    assert cast.ana.delete(f"/v1/auth/sessions/{session_id}").status_code == 204
    assert me(cast.ana, stolen["access_token"]) == 401
    assert refresh(cast.ana, stolen["refresh_token"]).status_code == 401
    assert me(cast.ana, mine["access_token"]) == 200
    assert cast.ana.delete(f"/v1/auth/sessions/{session_id}").status_code == 404


def test_the_current_session_may_be_ended_too(cast: Cast) -> None:
    assert cast.ana.delete(f"/v1/auth/sessions/{cast.ana.session_id}").status_code == 204
    assert cast.ana.get("/v1/auth/me").status_code == 401


def test_another_ones_session_and_an_unknown_one_are_not_found(cast: Cast) -> None:
    for session_id in (cast.ben.session_id, UNKNOWN):
        refused = cast.ana.delete(f"/v1/auth/sessions/{session_id}")
        assert (refused.status_code, refused.json["code"]) == (404, "not_found")
    assert cast.ben.get("/v1/auth/me").status_code == 200


def test_all_others_are_ended_at_once_and_nobody_elses(cast: Cast) -> None:
    others = [login(cast.ana).json for _ in range(2)]
    assert [me(cast.ana, one["access_token"]) for one in others] == [200, 200]
    assert cast.ana.delete("/v1/auth/sessions").status_code == 204
    assert [me(cast.ana, one["access_token"]) for one in others] == [401, 401]
    assert [cast.ana.get("/v1/auth/me").status_code, cast.ben.get("/v1/auth/me").status_code] == [200, 200]
    assert len(cast.ana.get("/v1/auth/sessions").json["data"]) == 1


def test_an_api_key_sees_and_ends_no_session(cast: Cast) -> None:
    key = cast.ana.post("/v1/api-keys", {"name": "robot", "permissions": ["auth.session"]}).json["key"]
    client, sent = cast.app.test_client(), {"Authorization": f"Bearer {key}"}
    own = f"/v1/auth/sessions/{cast.ana.session_id}"
    answers = [client.get("/v1/auth/sessions", headers=sent), client.delete("/v1/auth/sessions", headers=sent)]
    answers.append(client.delete(own, headers=sent))
    assert [answer.status_code for answer in answers] == [403, 403, 403]
    assert cast.ana.get("/v1/auth/me").status_code == 200


def test_an_admin_ends_all_sessions_of_a_user_and_that_is_audited(cast: Cast) -> None:
    tokens = login(cast.ana).json
    assert cast.admin.delete(f"/v1/users/{cast.ana.user_id}/sessions").status_code == 204
    assert [cast.ana.get("/v1/auth/me").status_code, me(cast.ana, tokens["access_token"])] == [401, 401]
    assert audited("sessions.end") == [(f"user:{cast.admin.user_id}", f"{cast.ana.user_id}")]
    assert login(cast.ana).status_code == 200


def test_an_unknown_user_has_no_sessions_to_end(cast: Cast) -> None:
    assert cast.admin.delete(f"/v1/users/{UNKNOWN}/sessions").status_code == 404
    assert audited("sessions.end") == []


@pytest.mark.parametrize("role", ["fleet_manager", "rental_agent", "customer"])
def test_nobody_else_ends_the_sessions_of_others(cast: Cast, role: str) -> None:
    assert cast.staff[role].delete(f"/v1/users/{cast.ben.user_id}/sessions").status_code == 403
    assert cast.ben.get("/v1/auth/me").status_code == 200


# --- a refresh token in two hands -------------------------------------------------------------------------------------


def test_a_breach_is_audited_and_its_user_is_told_once(cast: Cast) -> None:
    token = login(cast.ana).json["refresh_token"]
    refresh(cast.ana, token)
    for _ in range(3):
        assert refresh(cast.ana, token).status_code == 401
    (session_id,) = db.one("SELECT id FROM user_session WHERE end_reason = 'refresh_token_reused'") or ()
    assert audited("session.refresh_token_reused") == [("system:sessions", f"{session_id}")]
    assert len(promises("session_breached")) == 1


def test_a_dead_token_of_a_session_that_was_logged_out_tells_of_no_breach(cast: Cast) -> None:
    token = login(cast.ana).json["refresh_token"]
    cast.app.test_client().post("/v1/auth/logout", json={"refresh_token": token})
    assert refresh(cast.ana, token).status_code == 401
    assert promises("session_breached") == [] == audited("session.refresh_token_reused")
    deliver("session_breached")
