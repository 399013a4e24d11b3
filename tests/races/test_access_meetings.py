"""Two at once where two can happen to the last admin, to sessions and to passwords."""

from collections.abc import Callable
from typing import Any

import pytest
import time_machine

from fleet import clock, passwords
from fleet.db import db
from fleet.rules.throttle import FREE_FAILURES
from tests.cast import PASSWORD, Answer, Cast, Person, request
from tests.races.meeting import Meeting
from tests.races.mutation import without
from tests.races.scenes import count
from tests.races.together import together

NEW = "another fine passphrase"
DORA = {
    "email": "dora@example.com",
    "password": "a passphrase of dora",
    "first_name": "Dora",
    "last_name": "Lima",
    "phone": "+351910000000",
}
Call = Callable[[], Answer]


def posting(cast: Cast, path: str, body: Any) -> Call:
    """A request without credentials."""
    return lambda: request(cast.app, "POST", path, body)


def signing_in(cast: Cast, password: str = PASSWORD) -> Call:
    return posting(cast, "/v1/auth/login", {"email": cast.ana.email, "password": password})


def refreshing(cast: Cast, token: str) -> Call:
    return posting(cast, "/v1/auth/refresh", {"refresh_token": token})


def changing_password(cast: Cast, new: str = NEW) -> Call:
    body = {"current_password": PASSWORD, "new_password": new}
    return lambda: cast.ana.post("/v1/auth/password", body)


def deactivating(by: Person, whom: Person) -> Call:
    return lambda: by.post(f"/v1/users/{whom.user_id}/deactivate")


def stepping_down(admin: Person) -> Call:
    return lambda: admin.put(f"/v1/users/{admin.user_id}/roles", {"roles": ["driver"]}, version="1")


def admins() -> int:
    return count("user_account WHERE 'admin' = ANY (roles) AND deactivated_at IS NULL")


def status_of_me(cast: Cast, access_token: str) -> int:
    headers = {"Authorization": f"Bearer {access_token}"}
    return request(cast.app, "GET", "/v1/auth/me", headers=headers).status_code


# --- the last admin ---------------------------------------------------------------------------------------------------


def test_two_admins_who_deactivate_each_other_at_once_leave_one(cast: Cast, meet: Meeting) -> None:
    second = cast.person("admin")
    one, other = meet(deactivating(cast.admin, second), deactivating(second, cast.admin))
    assert admins() == 1, "no admin is left"
    assert (one.said, other.said) == ((200, None), (409, "last_admin"))
    assert other.waited


def test_two_admins_who_step_down_at_once_leave_one(cast: Cast, meet: Meeting) -> None:
    second = cast.person("admin")
    one, other = meet(stepping_down(second), stepping_down(cast.admin))
    assert admins() == 1, "no admin is left"
    assert (one.said, other.said) == ((200, None), (409, "last_admin"))


@pytest.mark.parametrize(
    "race",
    [
        test_two_admins_who_deactivate_each_other_at_once_leave_one,
        test_two_admins_who_step_down_at_once_leave_one,
    ],
)
def test_without_the_lock_no_admin_is_left(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, race: Callable[..., None]
) -> None:
    with without(monkeypatch, "active_admins_for_update"), pytest.raises(AssertionError, match="no admin is left"):
        race(cast, meet)


def test_a_user_is_deactivated_once(cast: Cast, meet: Meeting) -> None:
    one, other = meet(deactivating(cast.admin, cast.ana), deactivating(cast.admin, cast.ana))
    assert (one.said, other.said) == ((200, None), (409, "invalid_state")), "deactivated twice"


def test_without_either_lock_the_second_one_is_told_of_a_version_instead(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        without(monkeypatch, "active_admins_for_update"),
        without(monkeypatch, "user_for_update"),
        pytest.raises(AssertionError, match="deactivated twice"),
    ):
        test_a_user_is_deactivated_once(cast, meet)


# --- sessions and passwords -------------------------------------------------------------------------------------------


def test_a_session_that_the_old_password_opens_ends_with_its_change(cast: Cast, meet: Meeting) -> None:
    opened, changed = meet(signing_in(cast), changing_password(cast))
    assert (opened.said, changed.said) == ((200, None), (204, None))
    assert status_of_me(cast, opened.result.json["access_token"]) == 401, "the old password lives on"


@pytest.mark.parametrize("overtaking", ["a new password", "a deactivation"])
def test_a_password_that_was_right_when_it_was_compared_may_come_too_late(cast: Cast, meet: Meeting, overtaking: str) -> None:
    change = changing_password(cast) if overtaking == "a new password" else deactivating(cast.admin, cast.ana)
    opened, changed = meet(signing_in(cast), change, before="FOR SHARE")
    assert changed.result.status_code < 300
    assert opened.said == (401, "invalid_credentials")


def test_a_session_that_opens_while_its_user_is_deactivated_ends_too(cast: Cast, meet: Meeting) -> None:
    opened, closed = meet(signing_in(cast), deactivating(cast.admin, cast.ana))
    assert (opened.said, closed.said) == ((200, None), (200, None))
    assert count("user_session WHERE ended_at IS NULL AND user_id = %s", cast.ana.user_id) == 0


def test_without_the_lock_a_session_outlives_the_password_that_opened_it(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without(monkeypatch, "proven_user_for_share"), pytest.raises(AssertionError, match="the old password lives on"):
        test_a_session_that_the_old_password_opens_ends_with_its_change(cast, meet)


def test_of_two_changes_of_one_password_one_stands(cast: Cast, meet: Meeting) -> None:
    one, other = meet(changing_password(cast, NEW + " 1"), changing_password(cast, NEW + " 2"))
    assert (one.said, other.said) == ((204, None), (401, "invalid_credentials"))
    assert signing_in(cast, NEW + " 1")().status_code == 200


# --- refresh tokens ---------------------------------------------------------------------------------------------------


def test_twenty_uses_of_one_refresh_token_give_one_successor(cast: Cast) -> None:
    token = signing_in(cast)().json["refresh_token"]
    answers = together(20, lambda _: refreshing(cast, token)())
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19
    assert count("refresh_token") == 2
    successor = next(answer.json["refresh_token"] for answer in answers if answer.status_code == 200)
    assert refreshing(cast, successor)().status_code == 401


def test_a_session_that_is_refreshed_while_it_is_logged_out_ends(cast: Cast, meet: Meeting) -> None:
    token = signing_in(cast)().json["refresh_token"]
    renewed, ended = meet(refreshing(cast, token), posting(cast, "/v1/auth/logout", {"refresh_token": token}))
    assert (renewed.said, ended.said) == ((200, None), (204, None))
    assert status_of_me(cast, renewed.result.json["access_token"]) == 401
    assert refreshing(cast, renewed.result.json["refresh_token"])().status_code == 401


def test_a_session_that_is_logged_out_while_it_is_refreshed_stays_ended(cast: Cast, meet: Meeting) -> None:
    token = signing_in(cast)().json["refresh_token"]
    ended, renewed = meet(posting(cast, "/v1/auth/logout", {"refresh_token": token}), refreshing(cast, token))
    assert (ended.said, renewed.said) == ((204, None), (401, "unauthenticated"))


# --- crowds -----------------------------------------------------------------------------------------------------------


def test_guessing_in_parallel_gains_next_to_nothing(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "desk", passwords.Desk(threads=40))
    with time_machine.travel(clock.now(), tick=False):
        answers = together(20, lambda _: signing_in(cast, "not the right password")())
    assert {answer.status_code for answer in answers} == {401}
    (guesses,) = db.rows("SELECT failures FROM login_throttle")[0]
    assert FREE_FAILURES <= guesses < FREE_FAILURES + passwords.AT_ONCE


def test_two_who_sign_up_with_one_e_mail_at_once_become_one_user(cast: Cast, meet: Meeting) -> None:
    one, other = meet(posting(cast, "/v1/auth/register", DORA), posting(cast, "/v1/auth/register", DORA))
    assert (one.said, other.said) == ((201, None), (409, "duplicate"))
