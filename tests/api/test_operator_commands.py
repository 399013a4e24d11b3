"""Commands of the operator run for whoever is on the machine, and say in one line what is wrong."""

import getpass
import os

import peewee
import pytest

from fleet.services import reconciliation, second_factors, secrets, users
from tests.accounts import audited, enrolled
from tests.cast import Cast

DRIVERS_WORDS = 'connection to server at "10.0.0.7", port 5432 failed'


@pytest.mark.parametrize(
    ("service", "name", "args"),
    [
        (users, "create_admin", ["create-admin", "boss@example.com"]),
        (second_factors, "remove_by_operator", ["remove-second-factor", "boss@example.com"]),
        (secrets, "reseal", ["secrets", "reseal"]),
        (reconciliation, "prove", ["ledger", "prove"]),
    ],
)
def test_a_database_that_is_away_is_told_in_a_line(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, service: object, name: str, args: list[str]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise peewee.OperationalError(DRIVERS_WORDS)

    monkeypatch.setenv("FLEET_ADMIN_PASSWORD", "a passphrase of the boss")
    monkeypatch.setattr(service, name, away)
    result = cast.app.test_cli_runner().invoke(args=args)
    assert isinstance(result.exception, SystemExit) and result.exit_code == 1
    assert result.output.startswith("Error: ") and "10.0.0.7" not in result.output


def test_whoever_has_no_name_on_the_machine_removes_a_factor_too(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 10001")

    monkeypatch.setattr(getpass, "getuser", nameless)
    enrolled(cast.admin)
    assert cast.app.test_cli_runner().invoke(args=["remove-second-factor", cast.admin.email]).exit_code == 0
    assert [actor for actor, _ in audited("second_factor.removed")] == [f"cli:{os.getuid()}"]
