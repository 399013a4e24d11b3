"""A forgotten password is set anew by whoever reads the letter, once, soon, and without telling anybody who has an account."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import time_machine

from fleet import clock
from fleet.auth import secret_hash
from fleet.db import Database, db
from fleet.rules.throttle import FREE_FAILURES
from fleet.services import recovery
from tests.accounts import NEW, WRONG, Postman, audited, deliver, enrolled, login, me, post, promises, refresh
from tests.cast import PASSWORD, Answer, Cast, Person

RESET, VERIFY = "/v1/auth/password-reset", "/v1/auth/email-verification"


@pytest.fixture
def postman(monkeypatch: pytest.MonkeyPatch) -> Postman:
    return Postman().install(monkeypatch)


def reset_token(person: Person, postman: Postman) -> str:
    assert post_of(person, RESET, {"email": person.email}).status_code == 202
    deliver("password_reset")
    return postman.token


def post_of(person: Person, path: str, body: Any) -> Answer:
    """A request of somebody who is not signed in."""
    client: Any = person.app.test_client()
    answer: Answer = client.post(path, json=body)
    return answer


def confirm(person: Person, token: str, new: str = NEW) -> Answer:
    return post_of(person, f"{RESET}/confirm", {"token": token, "new_password": new})


def refused(answer: Answer) -> tuple[int, str]:
    return answer.status_code, answer.json["code"]


# --- asking -----------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_same_whether_or_not_somebody_has_the_address(cast: Cast) -> None:
    deactivated = cast.person("customer")
    db.execute_sql("UPDATE user_account SET deactivated_at = now() WHERE id = %s", (deactivated.user_id,))
    emails = [cast.ana.email, cast.ana.email.upper(), deactivated.email, "nobody@example.com"]
    answers = [post(cast, RESET, {"email": email}) for email in emails]
    own = {"X-Request-ID", "RateLimit-Remaining", "RateLimit-Reset"}
    said = [(one.status_code, one.data, {k: v for k, v in one.headers.items() if k not in own}) for one in answers]
    assert said[0][0] == 202
    assert all(one == said[0] for one in said)


def test_asking_costs_the_same_statements_whether_or_not_somebody_has_the_address(cast: Cast) -> None:
    done: list[list[str]] = []
    for email in (cast.ana.email, "nobody@example.com"):
        with statements_of() as sent:
            post(cast, RESET, {"email": email})
        done.append(sent)
    assert done[0] == done[1]
    assert len(done[0]) >= 2


@contextmanager
def statements_of() -> Iterator[list[str]]:
    """The SQL that is sent in the block, without its parameters."""
    sent: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        execute, run = Database._execute, Database._run

        def noting_execute(self: Database, sql: str, params: Any) -> Any:
            sent.append(sql)
            return execute(self, sql, params)

        def noting_run(self: Database, statement: Any, params: Any, **how: Any) -> Any:
            sent.append(statement.name)
            return run(self, statement, params, **how)

        patch.setattr(Database, "_execute", noting_execute)
        patch.setattr(Database, "_run", noting_run)
        yield sent


def test_nobody_who_is_not_there_or_not_active_gets_a_letter(cast: Cast, postman: Postman) -> None:
    db.execute_sql("UPDATE user_account SET deactivated_at = now() WHERE id = %s", (cast.ben.user_id,))
    for email in (cast.ben.email, "nobody@example.com"):
        post(cast, RESET, {"email": email})
    assert len(promises("password_reset")) == 2
    deliver("password_reset")
    assert (postman.mails, promises("password_reset")) == ([], [])
    assert db.rows("SELECT 1 FROM outbox WHERE dead_at IS NOT NULL") == []


def test_a_stranger_fills_nobodys_letter_box(cast: Cast, postman: Postman) -> None:
    for _ in range(7):
        post(cast, RESET, {"email": cast.ana.email})
        deliver("password_reset")
    assert len(postman.mails) == 5
    hour = "interval '61 minutes'"
    db.execute_sql(f"UPDATE account_token SET created_at = created_at - {hour}, expires_at = expires_at - {hour}")
    post(cast, RESET, {"email": cast.ana.email})
    deliver("password_reset")
    assert len(postman.mails) == 6


@pytest.mark.parametrize("every_s", [1, 290, 420])
def test_a_flood_leaves_its_victim_a_token_that_works(cast: Cast, every_s: int) -> None:
    """A stranger asks for letters all the time: whenever the owner asks too, they get one, or the last one still works."""
    begun, token = clock.now(), ""
    for after_s in sorted({*range(0, 8 * every_s, every_s), 1790, 1810, 2700, 3599}):
        with time_machine.travel(begun + timedelta(seconds=after_s), tick=False):
            promise, asked_at = f"{clock.new_id()}", clock.now()
            made = recovery.new_token(cast.ana.user_id, "password_reset", promise_id=promise, asked_at=asked_at)
            token = made[0] if made else token
            good = "SELECT token_hash FROM account_token WHERE ended_at IS NULL AND expires_at > %s"
            assert [bytes(digest) for (digest,) in db.rows(good, (asked_at,))] == [secret_hash(token)]
    with time_machine.travel(begun + timedelta(hours=1), tick=False):
        assert confirm(cast.ana, token).status_code == 204


# --- the token --------------------------------------------------------------------------------------------------------


def test_the_token_is_in_the_letter_alone(cast: Cast, postman: Postman, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    token = reset_token(cast.ana, postman)
    assert confirm(cast.ana, token).status_code == 204
    tables = db.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    kept = "".join(f"{db.rows(f'SELECT t::text FROM {name} t')}" for (name,) in tables)
    assert token not in kept and token not in caplog.text
    assert secret_hash(token).hex() in kept
    assert db.rows("SELECT payload FROM outbox WHERE topic = 'notifications.password_reset'") == [({},)]


def test_a_new_password_ends_all_sessions_and_the_old_password(cast: Cast, postman: Postman) -> None:
    stranger, tokens = login(cast.ben).json, login(cast.ana).json
    assert me(cast.ana, tokens["access_token"]) == 200
    assert confirm(cast.ana, reset_token(cast.ana, postman)).status_code == 204
    assert [me(cast.ana, tokens["access_token"]), cast.ana.get("/v1/auth/me").status_code] == [401, 401]
    assert refresh(cast.ana, tokens["refresh_token"]).status_code == 401
    assert [login(cast.ana).status_code, login(cast.ana, NEW).status_code] == [401, 200]
    assert me(cast.ben, stranger["access_token"]) == 200
    assert audited("password.reset") == [(f"user:{cast.ana.user_id}", f"{cast.ana.user_id}")]
    assert len(promises("password_changed")) == 1


def test_who_was_locked_out_by_a_guesser_gets_in_again(cast: Cast, postman: Postman) -> None:
    for _ in range(FREE_FAILURES):
        login(cast.ana, WRONG)
    assert confirm(cast.ana, reset_token(cast.ana, postman)).status_code == 204
    assert login(cast.ana, NEW).status_code == 200


def test_a_token_works_once(cast: Cast, postman: Postman) -> None:
    token = reset_token(cast.ana, postman)
    assert confirm(cast.ana, token).status_code == 204
    assert refused(confirm(cast.ana, token, NEW + " 2")) == (400, "invalid_token")
    assert login(cast.ana, NEW).status_code == 200


def test_a_token_lives_for_half_an_hour(cast: Cast, postman: Postman) -> None:
    token = reset_token(cast.ana, postman)
    with time_machine.travel(clock.now() + timedelta(minutes=30, seconds=1), tick=False):
        assert refused(confirm(cast.ana, token)) == (400, "invalid_token")
    assert confirm(cast.ana, token).status_code == 204


def test_a_newer_request_ends_the_older_token(cast: Cast, postman: Postman) -> None:
    older = reset_token(cast.ana, postman)
    newer = reset_token(cast.ana, postman)
    assert refused(confirm(cast.ana, older)) == (400, "invalid_token")
    assert confirm(cast.ana, newer).status_code == 204


def test_a_new_password_by_other_means_ends_the_token(cast: Cast, postman: Postman) -> None:
    token = reset_token(cast.ana, postman)
    changed = cast.ana.post("/v1/auth/password", {"current_password": PASSWORD, "new_password": NEW})
    assert changed.status_code == 204
    assert refused(confirm(cast.ana, token, NEW + " 2")) == (400, "invalid_token")


def test_a_closed_account_is_not_opened_by_a_token(cast: Cast, postman: Postman) -> None:
    token = reset_token(cast.ana, postman)
    assert cast.admin.post(f"/v1/users/{cast.ana.user_id}/deactivate").status_code == 200
    assert refused(confirm(cast.ana, token)) == (400, "invalid_token")


@pytest.mark.parametrize("token", ["x", "é" * 43, "A" * 43, "x" * 256])
def test_what_is_no_token_sets_no_password(cast: Cast, token: str) -> None:
    assert refused(confirm(cast.ana, token)) == (400, "invalid_token")


def test_a_weak_password_is_refused_by_name_and_leaves_the_token(cast: Cast, postman: Postman) -> None:
    token = reset_token(cast.ana, postman)
    for weak, code in (("short", "too_short"), (cast.ana.email, "is_email")):
        answer = confirm(cast.ana, token, weak)
        assert refused(answer) == (422, "weak_password")
        assert [(item["field"], item["code"]) for item in answer.json["errors"]] == [("new_password", code)]
    assert confirm(cast.ana, token).status_code == 204


def test_tokens_of_the_two_purposes_are_not_interchangeable(cast: Cast, postman: Postman) -> None:
    reset = reset_token(cast.ana, postman)
    assert refused(post(cast, f"{VERIFY}/confirm", {"token": reset})) == (400, "invalid_token")
    cast.ana.post(VERIFY)
    deliver("email_verification")
    assert refused(confirm(cast.ana, postman.token)) == (400, "invalid_token")
    assert confirm(cast.ana, reset).status_code == 204


def test_a_second_factor_outlives_a_new_password(cast: Cast, postman: Postman) -> None:
    telephone, _ = enrolled(cast.agent)
    assert confirm(cast.agent, reset_token(cast.agent, postman)).status_code == 204
    assert refused(login(cast.agent, NEW)) == (401, "totp_required")
    assert login(cast.agent, NEW, totp=telephone.code()).status_code == 200


# --- the address ------------------------------------------------------------------------------------------------------


def test_whoever_registers_is_asked_to_show_that_the_address_is_theirs(cast: Cast, postman: Postman) -> None:
    dora = {"email": "dora@example.com", "password": NEW, "first_name": "Dora", "last_name": "L", "phone": "+351910000000"}
    created = post(cast, "/v1/auth/register", dora)
    assert created.json["email_verified_at"] is None
    deliver("email_verification")
    [mail] = postman.mails
    assert mail.to == dora["email"]
    assert post(cast, f"{VERIFY}/confirm", {"token": postman.token}).status_code == 204
    shown = cast.admin.get(f"/v1/users/{created.json['id']}").json
    assert shown["email_verified_at"] is not None
    assert refused(post(cast, f"{VERIFY}/confirm", {"token": postman.token})) == (400, "invalid_token")


def test_the_letter_can_be_asked_for_again_until_the_address_is_verified(cast: Cast, postman: Postman) -> None:
    assert cast.ana.post(VERIFY).status_code == 202
    deliver("email_verification")
    first = postman.token
    assert cast.ana.post(VERIFY).status_code == 202
    deliver("email_verification")
    assert refused(post(cast, f"{VERIFY}/confirm", {"token": first})) == (400, "invalid_token")
    assert post(cast, f"{VERIFY}/confirm", {"token": postman.token}).status_code == 204
    assert cast.ana.get("/v1/auth/me").json["user"]["email_verified_at"] is not None
    assert refused(cast.ana.post(VERIFY)) == (409, "invalid_state")


def test_a_token_for_the_address_lives_for_a_day(cast: Cast, postman: Postman) -> None:
    cast.ana.post(VERIFY)
    deliver("email_verification")
    with time_machine.travel(clock.now() + timedelta(hours=24, seconds=1), tick=False):
        assert refused(post(cast, f"{VERIFY}/confirm", {"token": postman.token})) == (400, "invalid_token")
    assert post(cast, f"{VERIFY}/confirm", {"token": postman.token}).status_code == 204


def test_who_sets_a_password_by_letter_has_shown_their_address_too(cast: Cast, postman: Postman) -> None:
    confirm(cast.ana, reset_token(cast.ana, postman))
    assert db.one("SELECT email_verified_at IS NOT NULL FROM user_account WHERE id = %s", (cast.ana.user_id,)) == (True,)


@pytest.mark.parametrize("path", ["/v1/auth/register", "/v1/users"])
def test_nobody_says_of_themselves_that_they_are_verified(cast: Cast, path: str) -> None:
    body = {"email": "e@example.com", "password": NEW, "first_name": "E", "last_name": "F", "phone": "+351910000000"}
    roles = {"roles": ["driver"]} if path == "/v1/users" else {}
    answer = cast.admin.post(path, {**body, **roles, "email_verified_at": "2026-01-01T00:00:00Z"})
    assert refused(answer) == (422, "unknown_field")


def test_an_erased_customer_leaves_neither_tokens_nor_a_verified_address(cast: Cast, postman: Postman) -> None:
    confirm(cast.ana, reset_token(cast.ana, postman))
    assert cast.manager.post(f"/v1/customers/{cast.ana.customer_id}/erase").status_code < 300
    assert db.rows("SELECT 1 FROM account_token") == []
    assert db.one("SELECT email_verified_at FROM user_account WHERE id = %s", (cast.ana.user_id,)) == (None,)


# --- the pages behind the links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "lang", "said"),
    [
        (RESET, "de", "Neues Passwort festlegen"),
        (RESET, None, "Set a new password"),
        (VERIFY, "fr", "Confirmez votre adresse e-mail"),
        (VERIFY, "es", "Confirme su dirección de correo"),
    ],
)
def test_a_page_speaks_the_language_of_its_letter_and_runs_no_script_but_its_own(
    cast: Cast, path: str, lang: str | None, said: str
) -> None:
    page = cast.app.test_client().get(path, query_string={"lang": lang} if lang else {})
    assert (page.status_code, page.mimetype, page.headers["Cache-Control"]) == (200, "text/html", "no-store")
    assert said in page.text and f'data-to="{path}/confirm"' in page.text
    assert ("new_password" in page.text) == (path == RESET)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe" not in policy


def test_the_policy_names_the_script_that_is_in_the_page(cast: Cast) -> None:
    page = cast.app.test_client().get(RESET)
    script = page.text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("query", ["lang=xx", "lang=en&lang=de", "token=abc"])
def test_a_page_takes_nothing_but_a_language(cast: Cast, query: str) -> None:
    assert cast.app.test_client().get(f"{RESET}?{query}").status_code == 422
