"""Who works here may have a second factor: a code works once, guesses count, and a lost telephone locks nobody out for good."""

from datetime import timedelta

import pytest
import time_machine

from fleet import clock, config
from fleet.auth import secret_hash
from fleet.db import db
from fleet.errors import NotFound
from fleet.rules.throttle import FREE_FAILURES, HEALS_AFTER
from fleet.rules.totp import STEP_S
from fleet.services import second_factors
from fleet.services.credentials import MOST_WRONG_CODES
from tests.accounts import WRONG, Telephone, audited, enrolled, login, me, promises, refresh
from tests.cast import PASSWORD, Answer, Cast, Person

PATH = "/v1/auth/second-factor"
REFUSED = (401, "invalid_credentials")


def said(answer: Answer) -> tuple[int, str | None]:
    return answer.status_code, answer.json["code"] if answer.status_code >= 400 else None


def disable(person: Person, code: str, password: str = PASSWORD) -> Answer:
    return person.post(f"{PATH}/disable", {"current_password": password, "totp": code})


# --- enrolling --------------------------------------------------------------------------------------------------------


def test_a_factor_is_in_force_when_a_code_has_confirmed_it(cast: Cast) -> None:
    begun = cast.agent.post(PATH, {"current_password": PASSWORD})
    assert begun.headers["Cache-Control"] == "no-store"
    assert begun.json["otpauth_uri"].startswith("otpauth://totp/Fleet%3Arental_agent-")
    assert f"secret={begun.json['secret']}&" in begun.json["otpauth_uri"]
    assert cast.agent.get(PATH).json == {"enabled": False, "confirmed_at": None, "recovery_codes_left": 0}
    assert login(cast.agent).status_code == 200
    confirmed = cast.agent.post(f"{PATH}/confirm", {"totp": Telephone(begun.json["secret"]).code()})
    assert len(set(confirmed.json["recovery_codes"])) == 10
    standing = cast.agent.get(PATH).json
    assert (standing["enabled"], standing["recovery_codes_left"]) == (True, 10)
    assert said(login(cast.agent)) == (401, "totp_required")
    assert audited("second_factor.enabled") == [(f"user:{cast.agent.user_id}", f"{cast.agent.user_id}")]


def test_a_factor_that_comes_into_force_ends_the_sessions_that_were_opened_without_it(cast: Cast) -> None:
    other, others = login(cast.agent).json, login(cast.manager).json
    begun = cast.agent.post(PATH, {"current_password": PASSWORD})
    assert me(cast.agent, other["access_token"]) == 200, "an enrolment changes nothing yet"
    confirmed = cast.agent.post(f"{PATH}/confirm", {"totp": Telephone(begun.json["secret"]).code()})
    assert confirmed.status_code == 200
    assert me(cast.agent, other["access_token"]) == 401
    assert refresh(cast.agent, other["refresh_token"]).status_code == 401
    assert cast.agent.get("/v1/auth/me").status_code == 200, "who put it in force goes on"
    assert me(cast.manager, others["access_token"]) == 200
    ended = db.rows("SELECT count(*) FROM user_session WHERE end_reason = 'second_factor_enabled'")
    assert db.rows("SELECT (after->>'sessions_ended')::int FROM audit_event WHERE action = 'second_factor.enabled'") == ended
    assert ended == [(1,)] and len(promises("second_factor_enabled")) == 1


def test_the_secret_is_stored_sealed_for_its_user_and_recovery_codes_as_digests(cast: Cast) -> None:
    telephone, codes = enrolled(cast.agent)
    (stored,) = db.one("SELECT secret FROM second_factor") or ()
    assert telephone.secret not in bytes(stored)
    digests = {bytes(digest) for (digest,) in db.rows("SELECT code_hash FROM recovery_code")}
    assert digests == {secret_hash(code.replace("-", "")) for code in codes}
    # Copied to another user's row it opens nothing.
    enrolled(cast.manager)
    db.execute_sql(
        "UPDATE second_factor SET secret = %s, last_step = 1 WHERE user_id = %s", (bytes(stored), cast.manager.user_id)
    )
    assert said(login(cast.manager, totp=telephone.code())) == REFUSED


def test_it_takes_the_password_to_enrol(cast: Cast) -> None:
    assert said(cast.agent.post(PATH, {"current_password": WRONG})) == REFUSED
    assert db.rows("SELECT failures FROM login_throttle") == [(1,)]
    assert db.rows("SELECT 1 FROM second_factor") == []


def test_another_enrolment_replaces_one_that_was_not_confirmed_and_none_that_is_in_force(cast: Cast) -> None:
    first = Telephone(cast.agent.post(PATH, {"current_password": PASSWORD}).json["secret"])
    telephone, _ = enrolled(cast.agent)
    assert telephone.secret != first.secret
    assert said(cast.agent.post(PATH, {"current_password": PASSWORD})) == (409, "invalid_state")
    assert said(cast.agent.post(f"{PATH}/confirm", {"totp": telephone.code()})) == (409, "invalid_state")
    assert login(cast.agent, totp=telephone.code()).status_code == 200


def test_guesses_at_the_confirming_code_count(cast: Cast) -> None:
    telephone = Telephone(cast.agent.post(PATH, {"current_password": PASSWORD}).json["secret"])
    for _ in range(FREE_FAILURES):
        assert said(cast.agent.post(f"{PATH}/confirm", {"totp": telephone.wrong()})) == REFUSED
    assert said(cast.agent.post(f"{PATH}/confirm", {"totp": telephone.code()})) == REFUSED
    assert db.rows("SELECT failures FROM login_throttle") == [(FREE_FAILURES,)]


def test_there_is_nothing_to_confirm_without_an_enrolment(cast: Cast) -> None:
    assert said(cast.agent.post(f"{PATH}/confirm", {"totp": "123456"})) == (409, "invalid_state")


@pytest.mark.parametrize("code", ["12345", "1234567", "١٢٣٤٥٦", "abcdef", "123456\n"])
def test_what_is_no_code_is_refused_as_input(cast: Cast, code: str) -> None:
    assert said(cast.agent.post(f"{PATH}/confirm", {"totp": code})) == (422, "validation_error")


def test_customers_have_none_and_machines_neither(cast: Cast) -> None:
    assert said(cast.ana.post(PATH, {"current_password": PASSWORD})) == (403, "forbidden")
    permissions = ["auth.session", "second_factor.enrol"]
    key = cast.agent.post("/v1/api-keys", {"name": "robot", "permissions": permissions}).json["key"]
    client, sent = cast.app.test_client(), {"Authorization": f"Bearer {key}"}
    both = {"current_password": PASSWORD, "totp": "123456"}
    bodies = {"": {"current_password": PASSWORD}, "/confirm": {"totp": "123456"}, "/disable": both, "/recovery-codes": both}
    answers = [client.post(PATH + path, json=body, headers=sent) for path, body in bodies.items()]
    assert [answer.status_code for answer in answers] == [403] * 4


# --- signing in -------------------------------------------------------------------------------------------------------


def test_a_missing_code_is_told_to_who_knows_the_password_alone(cast: Cast) -> None:
    enrolled(cast.agent)
    assert said(login(cast.agent)) == (401, "totp_required")
    assert "WWW-Authenticate" in login(cast.agent).headers
    assert said(login(cast.agent, WRONG)) == REFUSED
    for _ in range(FREE_FAILURES):
        login(cast.agent, WRONG)
    assert said(login(cast.agent)) == REFUSED  # it rests: nothing is told


def test_a_code_works_once_and_none_before_it_does(cast: Cast) -> None:
    telephone, _ = enrolled(cast.agent, drift=-1)
    with time_machine.travel(clock.now() + timedelta(seconds=10 * STEP_S), tick=False):
        code, before = telephone.code(), telephone.code(-1)
        assert login(cast.agent, totp=code).status_code == 200
        assert said(login(cast.agent, totp=code)) == REFUSED
        assert said(login(cast.agent, totp=before)) == REFUSED
        assert login(cast.agent, totp=telephone.code(1)).status_code == 200


def test_the_code_that_confirmed_the_factor_does_not_sign_in(cast: Cast) -> None:
    with time_machine.travel(clock.now(), tick=False):
        telephone, _ = enrolled(cast.agent, drift=0)
        assert said(login(cast.agent, totp=telephone.code())) == REFUSED


@pytest.mark.parametrize(("drift", "taken"), [(-2, False), (-1, True), (1, True), (2, False)])
def test_a_telephones_clock_may_be_one_step_off(cast: Cast, drift: int, taken: bool) -> None:
    telephone, _ = enrolled(cast.agent)
    with time_machine.travel(clock.now() + timedelta(minutes=5), tick=False):
        assert login(cast.agent, totp=telephone.code(drift)).status_code == (200 if taken else 401)


def test_guesses_at_the_code_count_as_failed_sign_ins(cast: Cast) -> None:
    telephone, _ = enrolled(cast.agent)
    with time_machine.travel(clock.now() + timedelta(minutes=1), tick=False):
        for _ in range(FREE_FAILURES):
            assert said(login(cast.agent, totp=telephone.wrong())) == REFUSED
        assert said(login(cast.agent, totp=telephone.code())) == REFUSED
    with time_machine.travel(clock.now() + HEALS_AFTER + timedelta(minutes=2), tick=False):
        assert login(cast.agent, totp=telephone.code()).status_code == 200


def test_who_has_the_password_does_not_guess_for_ever_and_its_owner_is_told_once(cast: Cast) -> None:
    telephone, codes = enrolled(cast.agent)
    db.execute_sql("UPDATE second_factor SET failures = %s", (MOST_WRONG_CODES - 1,))
    for _ in range(2):
        assert said(login(cast.agent, totp=telephone.wrong())) == REFUSED
    assert said(login(cast.agent, totp=telephone.code())) == REFUSED
    assert len(promises("second_factor_locked")) == 1
    assert audited("second_factor.locked") == [("system:access", f"{cast.agent.user_id}")]
    assert db.rows("SELECT failures FROM second_factor") == [(MOST_WRONG_CODES,)]
    assert login(cast.agent, totp=codes[0]).status_code == 200
    assert login(cast.agent, totp=telephone.code()).status_code == 200


def test_a_code_that_is_taken_forgives_the_wrong_ones_before_it(cast: Cast) -> None:
    telephone, _ = enrolled(cast.agent)
    login(cast.agent, totp=telephone.wrong())
    assert db.rows("SELECT failures FROM second_factor") == [(1,)]
    assert login(cast.agent, totp=telephone.code()).status_code == 200
    assert db.rows("SELECT failures FROM second_factor") == [(0,)]


def test_an_enrolment_is_to_be_confirmed_soon(cast: Cast) -> None:
    telephone = Telephone(cast.agent.post(PATH, {"current_password": PASSWORD}).json["secret"])
    with time_machine.travel(clock.now() + second_factors.ENROLMENT_LIVES + timedelta(seconds=5), tick=False):
        assert said(cast.agent.post(f"{PATH}/confirm", {"totp": telephone.code()})) == (409, "invalid_state")


def test_a_right_password_without_a_code_does_not_wipe_the_slate(cast: Cast) -> None:
    telephone, _ = enrolled(cast.agent)
    login(cast.agent, totp=telephone.wrong())
    assert said(login(cast.agent)) == (401, "totp_required")
    assert db.rows("SELECT failures FROM login_throttle") == [(1,)]


def test_the_code_of_another_user_is_worth_nothing(cast: Cast) -> None:
    enrolled(cast.agent)
    other, codes = enrolled(cast.manager)
    assert said(login(cast.agent, totp=other.code())) == REFUSED
    assert said(login(cast.agent, totp=codes[0])) == REFUSED
    assert cast.manager.get(PATH).json["recovery_codes_left"] == 10


def test_who_has_no_factor_is_asked_for_none(cast: Cast) -> None:
    assert login(cast.ana, totp="123456").status_code == 200


def test_a_factor_that_cannot_be_read_lets_nobody_in_but_by_a_recovery_code(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    telephone, codes = enrolled(cast.agent)
    (stored,) = db.one("SELECT secret FROM second_factor") or ()
    db.execute_sql("UPDATE second_factor SET secret = %s", (bytes(stored)[:-1] + b"x",))
    assert said(login(cast.agent, totp=telephone.code())) == REFUSED
    assert "a second factor cannot be read" in caplog.messages
    assert login(cast.agent, totp=codes[0]).status_code == 200
    assert config.current().secret_key not in caplog.text


# --- recovery codes ---------------------------------------------------------------------------------------------------


def test_a_recovery_code_works_once_however_it_is_typed_and_is_audited(cast: Cast) -> None:
    _, codes = enrolled(cast.agent)
    assert login(cast.agent, totp=codes[0].lower().replace("-", " ")).status_code == 200
    assert said(login(cast.agent, totp=codes[0])) == REFUSED
    assert login(cast.agent, totp=codes[1]).status_code == 200
    assert cast.agent.get(PATH).json["recovery_codes_left"] == 8
    who = f"user:{cast.agent.user_id}"
    assert audited("second_factor.recovery_code_used") == [(who, f"{cast.agent.user_id}")] * 2


def test_guesses_at_recovery_codes_count_too(cast: Cast) -> None:
    enrolled(cast.agent)
    assert said(login(cast.agent, totp="AAAA-BBBB-CCCC-DDDD")) == REFUSED
    assert db.rows("SELECT failures FROM login_throttle") == [(1,)]


def test_new_recovery_codes_replace_the_old_ones(cast: Cast) -> None:
    telephone, old = enrolled(cast.agent)
    body = {"current_password": PASSWORD, "totp": telephone.code()}
    new = cast.agent.post(f"{PATH}/recovery-codes", body).json["recovery_codes"]
    assert len(new) == 10 and not set(new) & set(old)
    assert said(login(cast.agent, totp=old[0])) == REFUSED
    assert login(cast.agent, totp=new[0]).status_code == 200
    assert len(audited("second_factor.recovery_codes_renewed")) == 1


# --- doing without ----------------------------------------------------------------------------------------------------


def test_disabling_takes_password_and_code_and_is_audited_and_told(cast: Cast) -> None:
    telephone, _ = enrolled(cast.agent)
    assert said(disable(cast.agent, telephone.wrong())) == REFUSED
    assert said(disable(cast.agent, telephone.code(), WRONG)) == REFUSED
    assert said(login(cast.agent)) == (401, "totp_required")
    assert disable(cast.agent, telephone.code()).status_code == 204
    assert login(cast.agent).status_code == 200
    assert audited("second_factor.removed") == [(f"user:{cast.agent.user_id}", f"{cast.agent.user_id}")]
    assert len(promises("second_factor_removed")) == 1
    assert db.rows("SELECT 1 FROM recovery_code") == []


def test_a_recovery_code_disables_it_too(cast: Cast) -> None:
    _, codes = enrolled(cast.agent)
    assert disable(cast.agent, codes[0]).status_code == 204


def test_there_is_nothing_to_disable_without_a_factor(cast: Cast) -> None:
    assert said(disable(cast.agent, "123456")) == (409, "invalid_state")
    renewed = cast.agent.post(f"{PATH}/recovery-codes", {"current_password": PASSWORD, "totp": "123456"})
    assert said(renewed) == (409, "invalid_state")


def test_a_factor_outlives_the_role_that_it_came_with_and_can_be_disabled_then(cast: Cast) -> None:
    telephone, _ = enrolled(cast.agent)
    db.execute_sql("UPDATE user_account SET roles = '{customer}' WHERE id = %s", (cast.agent.user_id,))
    assert said(login(cast.agent)) == (401, "totp_required")
    assert disable(cast.agent, telephone.code()).status_code == 204


def test_an_admin_removes_a_users_factor_and_that_is_audited_and_told(cast: Cast) -> None:
    enrolled(cast.agent)
    path = f"/v1/users/{cast.agent.user_id}/second-factor"
    assert cast.admin.delete(path).status_code == 204
    assert login(cast.agent).status_code == 200
    assert audited("second_factor.removed") == [(f"user:{cast.admin.user_id}", f"{cast.agent.user_id}")]
    assert len(promises("second_factor_removed")) == 1
    assert said(cast.admin.delete(path)) == (404, "not_found")


def test_an_admins_own_factor_goes_with_password_and_code_alone(cast: Cast) -> None:
    enrolled(cast.admin)
    assert said(cast.admin.delete(f"/v1/users/{cast.admin.user_id}/second-factor")) == (403, "forbidden")
    assert said(login(cast.admin)) == (401, "totp_required")


def test_nobody_else_removes_the_factor_of_others(cast: Cast) -> None:
    enrolled(cast.agent)
    assert said(cast.manager.delete(f"/v1/users/{cast.agent.user_id}/second-factor")) == (403, "forbidden")


def test_whoever_owns_the_machine_lets_the_last_admin_in_again(cast: Cast) -> None:
    enrolled(cast.admin)
    run = cast.app.test_cli_runner().invoke
    assert run(args=["remove-second-factor", cast.admin.email]).exit_code == 0
    assert login(cast.admin).status_code == 200
    [(actor, _)] = audited("second_factor.removed")
    assert actor.startswith("cli:")
    for email in ("nobody@example.com", cast.admin.email):
        with pytest.raises(NotFound):
            second_factors.remove_by_operator("cli:test", email=email)
        assert run(args=["remove-second-factor", email]).exit_code == 1
