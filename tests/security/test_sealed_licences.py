"""With LICENCE_KEY no licence number stands in the database in the clear, and all that needs one goes on."""

import logging
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from fleet import config, openapi, sealing
from fleet.config import ConfigError, Settings
from fleet.db import db
from fleet.embedded import Databases
from fleet.models.audit import AuditEvent
from fleet.models.people import Customer
from fleet.services import licences, secrets
from tests.cast import Answer, Cast, Person
from tests.security.test_boot import SAFE, SECRET
from tests.security.test_sentinels import tables_of
from tests.source import ROOT

CUSTOMERS = "/v1/customers"
KEY, OTHER_KEY = "licence-key-of-the-tests-" + "k" * 16, "another-licence-key-of-the-tests-" + "o" * 16
NEW_SECRET = "new-secret-key-of-the-licences-" + "n" * 16
NUMBER, SECOND = "LIC-7Q4Z81-X", "LIC-9W2Y65-V"
DORA = {
    "first_name": "Dora",
    "last_name": "Reis",
    "email": "dora@example.com",
    "phone": "+351 21 000 00 00",
    "driver_license_number": NUMBER,
    "driver_license_expiry": "2031-05-01",
}
Set = Callable[..., None]


@pytest.fixture
def sealed(cast: Cast, set_to: Set) -> Cast:
    set_to(licence_key=KEY)
    return cast


def taken_in(person: Person, *, key: str | None = None, **changed: Any) -> Answer:
    headers = {"key": key} if key else {}
    return person.post(CUSTOMERS, {**DORA, **changed}, **headers)


def stored(customer_id: Any) -> Customer:
    found: Customer = Customer.get_by_id(customer_id)
    return found


def in_the_clear(databases: Databases, *numbers: str) -> set[str]:
    """Which tables hold one of these numbers, as text or among bytes."""
    spelled = [spelling for number in numbers for spelling in (number, number.encode().hex())]
    return {name for name, text in tables_of(databases).items() if any(spelling in text for spelling in spelled)}


class TestAtRest:
    def test_no_table_holds_the_number(self, sealed: Cast, databases: Databases) -> None:
        created = taken_in(sealed.agent, key="k1")
        path = created.headers["Location"]
        assert sealed.agent.patch(path, {"driver_license_number": SECOND}, key="k2", version="1").status_code == 200
        assert sealed.manager.post(f"{path}/deactivate", key="k3").status_code == 200
        assert sealed.agent.get(path).json["driver_license_number"] == SECOND
        assert in_the_clear(databases, NUMBER, SECOND) == set()
        assert db.one("SELECT count(*) FROM idempotency_record") == (3,)

    def test_without_a_key_it_is_as_it_was(self, cast: Cast, databases: Databases) -> None:
        customer = stored(taken_in(cast.agent, key="k1").json["id"])
        assert (customer.driver_license_number, customer.driver_license_sealed) == (NUMBER, None)
        assert in_the_clear(databases, NUMBER) == {"customer", "idempotency_record"}, "the search of these tests finds it"

    def test_an_answer_is_given_again_to_the_letter(self, sealed: Cast) -> None:
        first, again = (taken_in(sealed.agent, key="k1") for _ in range(2))
        assert (again.headers["Idempotency-Replayed"], again.get_data()) == ("true", first.get_data())
        assert again.json["driver_license_number"] == NUMBER

    def test_an_answer_that_was_kept_before_the_key_came_is_given_too(self, cast: Cast, set_to: Set) -> None:
        first = taken_in(cast.agent, key="k1")
        set_to(licence_key=KEY)
        assert taken_in(cast.agent, key="k1").get_data() == first.get_data()

    def test_a_kept_answer_cannot_be_moved_to_another_key(self, sealed: Cast) -> None:
        taken_in(sealed.agent, key="k1")
        db.execute_sql("UPDATE idempotency_record SET key = 'k2'")
        refused = taken_in(sealed.agent, key="k2")
        assert (refused.status_code, refused.json["code"]) == (422, "idempotency_key_reused")

    def test_every_answer_that_shows_one_is_kept_sealed(self, app: Flask) -> None:
        showing = [
            declared.identity
            for _, _, declared, _ in openapi.operations(app)
            if declared.idempotent and "driver_license_number" in getattr(declared.answer, "model_fields", {})
        ]
        assert len(showing) >= 4 and all(showing)

    def test_no_service_keeps_such_an_answer_by_itself(self, app: Flask) -> None:
        shown = [declared for _, _, declared, _ in openapi.operations(app) if declared.identity]
        assert shown and not any(declared.claimed_by_service for declared in shown), "it would be kept in the clear"

    def test_a_seal_that_was_moved_to_another_customer_tells_nothing(
        self, sealed: Cast, caplog: pytest.LogCaptureFixture
    ) -> None:
        mine = taken_in(sealed.agent).headers["Location"]
        other = taken_in(sealed.agent, email="x@example.com", driver_license_number=SECOND).json["id"]
        theirs = "SELECT driver_license_sealed FROM customer WHERE id = %s"
        moved = f"UPDATE customer SET driver_license_sealed = ({theirs}) WHERE id = %s"
        db.execute_sql(moved, (other, mine.rpartition("/")[2]))
        with caplog.at_level(logging.ERROR):
            shown = sealed.agent.get(mine)
        assert (shown.status_code, shown.json["driver_license_number"]) == (200, None)
        assert "cannot be read" in caplog.text

    def test_neither_half_can_be_written_without_the_other(self, sealed: Cast) -> None:
        customer_id = taken_in(sealed.agent).json["id"]
        for change in ("driver_license_number = 'X'", "driver_license_sealed = NULL", "driver_license_digest = NULL"):
            with pytest.raises(Exception, match="customer_driver_license_stored"):
                db.execute_sql(f"UPDATE customer SET {change} WHERE id = %s", (customer_id,))


class TestUse:
    def test_those_who_hand_over_see_it(self, sealed: Cast) -> None:
        path = taken_in(sealed.agent, user_id=str(sealed.person("customer").user_id)).headers["Location"]
        seen = [sealed.staff[role].get(path).json["driver_license_number"] for role in ("rental_agent", "accountant")]
        assert seen == [NUMBER, None]
        listed = sealed.agent.get(CUSTOMERS).json["data"]
        assert NUMBER in [customer["driver_license_number"] for customer in listed]

    def test_the_person_sees_it_in_their_profile_and_export(self, sealed: Cast) -> None:
        newcomer = sealed.person("customer")
        path = taken_in(newcomer).headers["Location"]
        export = newcomer.get(f"{path}/export").json
        assert newcomer.get(path).json["driver_license_number"] == export["profile"]["driver_license_number"] == NUMBER

    def test_an_erasure_empties_all_of_it(self, sealed: Cast, databases: Databases) -> None:
        created = taken_in(sealed.agent, key="k1")
        sealed.agent.patch(created.headers["Location"], {"phone": "+351 1"}, key="k2", version="1")
        assert sealed.manager.post(f"{created.headers['Location']}/erase").status_code == 200
        customer = stored(created.json["id"])
        assert (customer.driver_license_sealed, customer.driver_license_digest) == (None, None)
        assert (customer.driver_license_number or "").startswith("erased ")
        assert db.one("SELECT count(*) FROM idempotency_record") == (0,), "though nothing in them can be read"
        assert taken_in(sealed.agent).status_code == 201, "the number is free again"

    def test_an_erasure_finds_an_answer_however_its_address_was_spelled(self, sealed: Cast) -> None:
        customer_id = taken_in(sealed.agent).json["id"]
        path = f"{CUSTOMERS}/{customer_id.upper()}"
        assert sealed.agent.patch(path, {"phone": "+351 1"}, key="k1", version="1").status_code == 200
        assert sealed.manager.post(f"{CUSTOMERS}/{customer_id}/erase").status_code == 200
        assert db.one("SELECT count(*) FROM idempotency_record") == (0,)


class TestUniqueness:
    @pytest.mark.parametrize("index_alone", [False, True])
    def test_one_number_belongs_to_one_customer(
        self, sealed: Cast, monkeypatch: pytest.MonkeyPatch, index_alone: bool
    ) -> None:
        assert taken_in(sealed.agent).status_code == 201
        if index_alone:
            monkeypatch.setattr(licences, "licence_taken", lambda *_, **__: False)
        refused = taken_in(sealed.agent, email="x@example.com", driver_license_number=" lic-7q4z81-x")
        assert (refused.status_code, refused.json["code"]) == (409, "duplicate")

    def test_a_customer_may_send_their_own_again(self, sealed: Cast) -> None:
        path = taken_in(sealed.agent).headers["Location"]
        assert sealed.agent.patch(path, {"driver_license_number": NUMBER}, version="1").status_code == 200
        refused = sealed.agent.patch(f"{CUSTOMERS}/{sealed.ana.customer_id}", {"driver_license_number": NUMBER}, version="1")
        assert refused.json["code"] == "duplicate"

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            ({}, {"licence_key": KEY}),
            ({"licence_key": KEY}, {"licence_key_previous": (KEY,)}),
            ({"licence_key": KEY}, {"licence_key": OTHER_KEY, "licence_key_previous": (KEY,)}),
        ],
        ids=["plain before", "plain beside", "another key before"],
    )
    def test_it_is_seen_however_it_was_stored(
        self, cast: Cast, set_to: Set, first: dict[str, Any], then: dict[str, Any]
    ) -> None:
        set_to(**first)
        assert taken_in(cast.agent).status_code == 201
        set_to(**{"licence_key": "", **then})
        assert taken_in(cast.agent, email="x@example.com").json["code"] == "duplicate"

    def test_the_digest_tells_nothing_without_the_key(self, sealed: Cast) -> None:
        digest = bytes(stored(taken_in(sealed.agent).json["id"]).driver_license_digest or b"")
        assert digest == sealing.blind_index(NUMBER.encode(), key=KEY) != sealing.blind_index(NUMBER.encode(), key=OTHER_KEY)
        assert sealing.name_of_index_key(KEY) != sealing.name_of_key(KEY), "one secret never does for two uses"


class TestSealingWhatIsThere:
    def run(self, cast: Cast) -> tuple[int, str]:
        ran = cast.app.test_cli_runner().invoke(args=["secrets", "seal-licences"])
        return ran.exit_code, ran.output

    def test_all_are_sealed_in_batches_and_another_run_finds_it_done(
        self, cast: Cast, set_to: Set, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(licences, "_BATCH", 2)
        numbers = {row.id: f"{row.driver_license_number}" for row in (stored(cast.customer()) for _ in range(3))}
        erased = taken_in(cast.agent).headers["Location"]
        cast.manager.post(f"{erased}/erase")
        set_to(licence_key=KEY)
        assert self.run(cast) == (0, "sealed: 5\n")
        assert self.run(cast) == (0, "sealed: 0\n")
        assert in_the_clear(databases, *numbers.values()) == set()
        for customer_id, number in numbers.items():
            assert cast.agent.get(f"{CUSTOMERS}/{customer_id}").json["driver_license_number"] == number
        events = AuditEvent.select().where(AuditEvent.action == "secrets.seal_licence")
        assert {UUID(event.object_id) for event in events} >= set(numbers) and len(events) == 5

    def test_it_takes_a_key(self, cast: Cast) -> None:
        assert self.run(cast) == (1, "Error: LICENCE_KEY is not set\n")

    def test_what_stopped_goes_on(self, cast: Cast, set_to: Set, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(licences, "_BATCH", 1)
        set_to(licence_key=KEY)
        with monkeypatch.context() as broken:
            broken.setattr(licences.audit, "record_each", _once_and_then_fail(licences.audit.record_each))
            with pytest.raises(InterruptedError):
                licences.seal_all("cli:olga")
        assert db.one("SELECT count(*) FROM customer WHERE driver_license_number IS NULL") == (1,)
        assert licences.seal_all("cli:olga").sealed == 1

    def test_a_number_that_changes_meanwhile_is_not_put_back(
        self, cast: Cast, set_to: Set, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        set_to(licence_key=KEY)
        path = f"{CUSTOMERS}/{cast.ana.customer_id}"
        write = licences._written

        def changed_first(*args: Any) -> int:
            assert cast.agent.patch(path, {"driver_license_number": SECOND}, version="1").status_code == 200
            return write(*args)

        monkeypatch.setattr(licences, "_written", changed_first)
        assert licences.seal_all("cli:olga").sealed == 1, "Ben's"
        assert cast.agent.get(path).json["driver_license_number"] == SECOND

    def test_one_is_sealed_though_something_else_of_the_customer_changes_meanwhile(
        self, cast: Cast, set_to: Set, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else it would stay in the clear, and nobody would be told."""
        set_to(licence_key=KEY)
        write = licences._written

        def changed_first(*args: Any) -> int:
            path = f"{CUSTOMERS}/{cast.ana.customer_id}"
            assert cast.agent.patch(path, {"phone": "+351 1"}, version="1").status_code == 200
            return write(*args)

        monkeypatch.setattr(licences, "_written", changed_first)
        licences.seal_all("cli:olga")
        assert db.one("SELECT count(*) FROM customer WHERE driver_license_number IS NOT NULL") == (0,)

    def test_one_that_two_have_is_named_and_left(self, cast: Cast, set_to: Set) -> None:
        """As when a process that knew no key yet took in a number that was sealed already."""
        set_to(licence_key=KEY)
        taken_in(cast.agent)
        twin = cast.customer(driver_license_number=NUMBER)
        code, output = self.run(cast)
        assert code == 1 and f"another customer has the licence number of {twin}" in output
        assert cast.agent.get(f"{CUSTOMERS}/{twin}").json["driver_license_number"] == NUMBER


class TestChangingKeys:
    def test_seals_go_over_to_the_new_secret_key_and_digests_stay(self, sealed: Cast, set_to: Set) -> None:
        path = taken_in(sealed.agent).headers["Location"]
        old = config.current().secret_key
        set_to(secret_key=NEW_SECRET, secret_key_previous=(old,))
        assert secrets.reseal("cli:olga").resealed == 1
        set_to(secret_key_previous=())
        assert sealed.agent.get(path).json["driver_license_number"] == NUMBER
        assert taken_in(sealed.agent, email="x@example.com").json["code"] == "duplicate"

    def test_many_seals_are_taken_in_batches(self, sealed: Cast, set_to: Set, monkeypatch: pytest.MonkeyPatch) -> None:
        licences.seal_all("cli:olga")
        monkeypatch.setattr(secrets, "_BATCH", 1)
        set_to(secret_key=NEW_SECRET, secret_key_previous=(config.current().secret_key,))
        assert secrets.reseal("cli:olga").resealed == 2

    def test_digests_go_over_to_the_new_licence_key(self, sealed: Cast, set_to: Set) -> None:
        customer_id = taken_in(sealed.agent).json["id"]
        set_to(licence_key=OTHER_KEY, licence_key_previous=(KEY,))
        assert licences.seal_all("cli:olga").sealed == 3
        set_to(licence_key_previous=())
        expected = sealing.blind_index(NUMBER.encode(), key=OTHER_KEY)
        assert bytes(stored(customer_id).driver_license_digest or b"") == expected
        assert licences.seal_all("cli:olga").sealed == 0

    def test_what_no_key_opens_is_named(self, sealed: Cast, set_to: Set) -> None:
        customer_id = UUID(taken_in(sealed.agent).json["id"])
        set_to(secret_key=NEW_SECRET, secret_key_previous=(), licence_key=OTHER_KEY)
        assert licences.seal_all("cli:olga").unreadable == [customer_id]

    def test_the_runbook_says_how(self) -> None:
        said = (ROOT / "docs" / "runbooks" / "rotate-secrets.md").read_text()
        assert all(word in said for word in ("LICENCE_KEY", "LICENCE_KEY_PREVIOUS", "seal-licences"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"LICENCE_KEY": "Hidden-4711"},
        {"LICENCE_KEY": "changeme" * 8},
        {"LICENCE_KEY": SECRET},
        {"LICENCE_KEY": KEY, "STRIPE_WEBHOOK_SECRET": KEY},
        {"LICENCE_KEY": KEY, "SECRET_KEY_PREVIOUS": KEY},
        {"LICENCE_KEY": KEY, "LICENCE_KEY_PREVIOUS": KEY},
        {"LICENCE_KEY_PREVIOUS": "Hidden-4711"},
        {"LICENCE_KEY_PREVIOUS": SECRET},
    ],
)
def test_a_weak_or_shared_key_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings.load({**SAFE, **wrong})
    assert "LICENCE_KEY" in f"{refused.value}" and not any(value in f"{refused.value}" for value in wrong.values())


def test_a_good_key_is_taken() -> None:
    assert Settings.load({**SAFE, "LICENCE_KEY": KEY, "LICENCE_KEY_PREVIOUS": OTHER_KEY}).licence_keys == (KEY, OTHER_KEY)


def _once_and_then_fail(call: Callable[..., None]) -> Callable[..., None]:
    calls = iter([call])

    def failing(*args: Any, **how: Any) -> None:
        following = next(calls, None)
        if following is None:
            raise InterruptedError
        following(*args, **how)

    return failing
