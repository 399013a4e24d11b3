"""Two at once where two can happen to tokens of letters, to codes and to sessions: what works once, works once."""

from collections.abc import Callable

import pytest

from fleet import clock, passwords
from fleet.db import db
from fleet.services import recovery
from tests.accounts import NEW, Postman, Telephone, audited, deliver, enrolled, login, me, post, promises, refresh
from tests.cast import PASSWORD, Answer, Cast
from tests.races.meeting import Meeting
from tests.races.scenes import count
from tests.races.together import together

RESET = "/v1/auth/password-reset"
Call = Callable[[], Answer]


@pytest.fixture
def postman(monkeypatch: pytest.MonkeyPatch) -> Postman:
    monkeypatch.setattr(passwords, "desk", passwords.Desk(threads=40))
    return Postman().install(monkeypatch)


def asked_for(cast: Cast, postman: Postman) -> str:
    """The token of a letter that Ana asked for."""
    post(cast, RESET, {"email": cast.ana.email})
    deliver("password_reset")
    return postman.token


def resetting(cast: Cast, token: str, new: str = NEW) -> Call:
    return lambda: post(cast, f"{RESET}/confirm", {"token": token, "new_password": new})


def test_twenty_uses_of_one_token_set_one_password(cast: Cast, postman: Postman) -> None:
    token = asked_for(cast, postman)
    answers = together(20, lambda number: resetting(cast, token, f"{NEW} {number}")())
    assert sorted(answer.status_code for answer in answers) == [204] + [400] * 19
    winner = next(number for number, answer in enumerate(answers) if answer.status_code == 204)
    assert login(cast.ana, f"{NEW} {winner}").status_code == 200
    assert len(audited("password.reset")) == 1
    assert len(promises("password_changed")) == 1


def test_of_two_tokens_of_one_request_that_are_used_at_once_one_works(cast: Cast, postman: Postman, meet: Meeting) -> None:
    """A letter that was tried twice brought two. The user's row comes first, or the two would wait for each other."""
    post(cast, RESET, {"email": cast.ana.email})
    [promise] = promises("password_reset")
    about = {"promise_id": promise, "asked_at": db.rows("SELECT created_at FROM outbox WHERE id = %s", (promise,))[0][0]}
    made = [recovery.new_token(cast.ana.user_id, "password_reset", **about) for _ in range(2)]
    first, second = (found[0] for found in made if found)
    one, other = meet(resetting(cast, first), resetting(cast, second, NEW + " 2"))
    assert (one.said, other.said) == ((204, None), (400, "invalid_token")), "both worked"
    assert other.waited


def test_a_token_that_is_replaced_while_it_is_used_is_used(cast: Cast, postman: Postman, meet: Meeting) -> None:
    token = asked_for(cast, postman)
    post(cast, RESET, {"email": cast.ana.email})
    used, _ = meet(resetting(cast, token), lambda: deliver("password_reset"))
    assert used.said == (204, None)
    assert login(cast.ana, NEW).status_code == 200


def test_of_two_letters_at_once_one_token_is_good(cast: Cast, postman: Postman, meet: Meeting) -> None:
    """The second waits for the user's row, then sees what the first one kept: the older of the two brings nothing."""
    for _ in range(2):
        post(cast, RESET, {"email": cast.ana.email})
    older, newer = promises("password_reset")
    asked_at = db.rows("SELECT min(created_at) FROM outbox")[0][0]

    def making(promise: str) -> Callable[[], object]:
        return lambda: recovery.new_token(cast.ana.user_id, "password_reset", promise_id=promise, asked_at=asked_at)

    one, other = meet(making(newer), making(older))
    assert one.result is not None
    assert other.result is None, "the older request ended the newer token's reign"
    assert count("account_token WHERE ended_at IS NULL") == 1


def test_a_session_that_the_old_password_opens_ends_with_its_reset(cast: Cast, postman: Postman, meet: Meeting) -> None:
    token = asked_for(cast, postman)
    opened, reset = meet(lambda: login(cast.ana), resetting(cast, token))
    assert (opened.said, reset.said) == ((200, None), (204, None))
    assert me(cast.ana, opened.result.json["access_token"]) == 401, "the old password lives on"


def test_a_session_that_opens_while_an_admin_ends_all_of_them_ends_too(cast: Cast, meet: Meeting) -> None:
    opened, ended = meet(lambda: login(cast.ana), lambda: cast.admin.delete(f"/v1/users/{cast.ana.user_id}/sessions"))
    assert (opened.said, ended.said) == ((200, None), (204, None))
    assert me(cast.ana, opened.result.json["access_token"]) == 401, "it lives on"


def test_twenty_who_bring_a_used_refresh_token_are_one_breach(cast: Cast) -> None:
    token = login(cast.ana).json["refresh_token"]
    refresh(cast.ana, token)
    answers = together(20, lambda _: refresh(cast.ana, token))
    assert {answer.status_code for answer in answers} == {401}
    assert (len(promises("session_breached")), len(audited("session.refresh_token_reused"))) == (1, 1)


# --- codes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def wide_desk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who stand in one line at the desk would not meet; those of two processes do."""
    monkeypatch.setattr(passwords, "AT_ONCE", 20)
    monkeypatch.setattr(passwords, "desk", passwords.Desk(threads=40))


@pytest.mark.usefixtures("wide_desk")
@pytest.mark.parametrize(
    ("kind", "point"), [("code", 'UPDATE "second_factor"'), ("recovery code", 'UPDATE "recovery_code"')]
)
def test_of_two_uses_of_one_code_at_once_one_opens_a_session(cast: Cast, meet: Meeting, kind: str, point: str) -> None:
    telephone, codes = enrolled(cast.agent)
    code = telephone.code() if kind == "code" else codes[0]
    one, other = meet(lambda: login(cast.agent, totp=code), lambda: login(cast.agent, totp=code), before=point)
    assert (one.said, other.said) == ((401, "invalid_credentials"), (200, None))


@pytest.mark.usefixtures("wide_desk")
@pytest.mark.parametrize("kind", ["code", "recovery code"])
def test_twenty_uses_of_one_code_open_one_session(cast: Cast, kind: str) -> None:
    telephone, codes = enrolled(cast.agent)
    code = telephone.code() if kind == "code" else codes[0]
    answers = together(20, lambda _: login(cast.agent, totp=code))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 19


def test_of_two_confirmations_at_once_one_gives_recovery_codes(cast: Cast, meet: Meeting) -> None:
    telephone = Telephone(cast.agent.post("/v1/auth/second-factor", {"current_password": PASSWORD}).json["secret"])

    def confirming() -> Answer:
        return cast.agent.post("/v1/auth/second-factor/confirm", {"totp": telephone.code()})

    one, other = meet(confirming, confirming)
    assert (one.said, other.said) == ((200, None), (409, "invalid_state"))
    assert count("recovery_code") == 10


def confirming_a_factor(cast: Cast) -> Call:
    begun = cast.agent.post("/v1/auth/second-factor", {"current_password": PASSWORD})
    telephone = Telephone(begun.json["secret"])
    return lambda: cast.agent.post("/v1/auth/second-factor/confirm", {"totp": telephone.code()})


@pytest.mark.usefixtures("wide_desk")
def test_a_sign_in_that_proved_the_password_alone_opens_nothing_under_a_new_factor(cast: Cast, meet: Meeting) -> None:
    opened, confirmed = meet(lambda: login(cast.agent), confirming_a_factor(cast), before="FOR SHARE")
    assert (opened.said, confirmed.said) == ((401, "invalid_credentials"), (200, None)), "a session without a code"


@pytest.mark.usefixtures("wide_desk")
def test_a_sign_in_waits_for_the_factor_that_comes_into_force_and_finds_it(cast: Cast, meet: Meeting) -> None:
    confirmed, opened = meet(confirming_a_factor(cast), lambda: login(cast.agent))
    assert (confirmed.said, opened.waited) == ((200, None), True), "a session without a code"
    assert opened.said == (401, "invalid_credentials")


@pytest.mark.usefixtures("wide_desk")
def test_a_session_that_opens_while_a_factor_comes_into_force_ends_with_the_others(cast: Cast, meet: Meeting) -> None:
    opened, confirmed = meet(lambda: login(cast.agent), confirming_a_factor(cast))
    assert (opened.said, confirmed.said) == ((200, None), (200, None))
    assert me(cast.agent, opened.result.json["access_token"]) == 401, "it lives on without a code"


def test_codes_that_are_renewed_while_their_factor_is_removed_go_with_it(cast: Cast, meet: Meeting) -> None:
    telephone, _ = enrolled(cast.agent)
    body = {"current_password": PASSWORD, "totp": telephone.code()}
    renewed, removed = meet(
        lambda: cast.agent.post("/v1/auth/second-factor/recovery-codes", body),
        lambda: cast.admin.delete(f"/v1/users/{cast.agent.user_id}/second-factor"),
        before='INSERT INTO "recovery_code"',
    )
    assert (renewed.said, removed.said) == ((200, None), (204, None))
    assert removed.waited
    assert count("recovery_code") == 0


def test_a_code_that_is_used_while_its_factor_is_removed_waits_for_nobody(cast: Cast, meet: Meeting) -> None:
    """Both come to the code before its factor, or each would hold what the other one wants."""
    _, codes = enrolled(cast.agent)
    opened, removed = meet(
        lambda: login(cast.agent, totp=codes[0]),
        lambda: cast.admin.delete(f"/v1/users/{cast.agent.user_id}/second-factor"),
        before='UPDATE "second_factor"',
    )
    assert (opened.said, removed.said) == ((200, None), (204, None))
    assert removed.waited


def test_an_account_that_closes_while_the_letter_is_written_gets_no_token(cast: Cast) -> None:
    """The address was read before: an erasure in between must find nothing that comes after it."""
    db.execute_sql("UPDATE user_account SET deactivated_at = now() WHERE id = %s", (cast.ana.user_id,))
    promise = f"{clock.new_id()}"
    assert recovery.new_token(cast.ana.user_id, "password_reset", promise_id=promise, asked_at=clock.now()) is None
    assert db.rows("SELECT 1 FROM account_token") == []
