import pytest

from fleet.db import db
from tests.cast import Cast, request

STRONG = "a passphrase of the boss"


def run(cast: Cast, *args: str, typed: str | None = None) -> tuple[int, str]:
    result = cast.app.test_cli_runner().invoke(args=["create-admin", *args], input=typed)
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def no_password_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_ADMIN_PASSWORD", raising=False)


def user(email: str) -> tuple[object, ...] | None:
    return db.one("SELECT roles, deactivated_at FROM user_account WHERE email = %s", (email,))


def sign_in(cast: Cast, email: str, password: str) -> int:
    return request(cast.app, "POST", "/v1/auth/login", {"email": email, "password": password}).status_code


def test_the_password_comes_from_the_environment(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_ADMIN_PASSWORD", STRONG)
    code, output = run(cast, "Boss@Example.com")
    assert code == 0
    assert STRONG not in output
    assert user("boss@example.com") == (["admin"], None)
    assert sign_in(cast, "boss@example.com", STRONG) == 200
    [(actor,)] = db.rows("SELECT actor FROM audit_event WHERE action = 'users.create'")
    assert actor.startswith("cli:")


def test_or_else_from_standard_input_with_its_spaces(cast: Cast) -> None:
    assert run(cast, "boss@example.com", typed=f" {STRONG} \n")[0] == 0
    assert sign_in(cast, "boss@example.com", f" {STRONG} ") == 200


def test_who_is_there_already_does_not_become_an_admin(cast: Cast) -> None:
    code, output = run(cast, cast.ana.email, typed=STRONG)
    assert (code, output.strip()) == (1, f"Error: there is a user {cast.ana.email} already")
    assert user(cast.ana.email) == (["customer"], None)


@pytest.mark.parametrize(
    ("email", "typed", "said"),
    [
        ("nobody", STRONG, "email: must be an e-mail address"),
        ("boss@example.com", "short", "password: must have at least 12 characters"),
        ("boss@example.com", "", "no password: set FLEET_ADMIN_PASSWORD, or pipe it in"),
        ("boss@example.com", "Password1234", "password: is among the first that anybody would guess"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_done(cast: Cast, email: str, typed: str, said: str) -> None:
    code, output = run(cast, email, typed=typed)
    assert (code, output.strip()) == (1, f"Error: {said}")
    assert user(email) is None
