from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from fleet import clock
from fleet.db import db
from fleet.services import licences
from tests.books import DAYS, issued, posted, rental_to_bill
from tests.cast import Cast, Person, at, insert, iso

CUSTOMERS = "/v1/customers"
DORA = {
    "first_name": "Dora",
    "last_name": "Reis",
    "email": "Dora.Reis@Example.com",
    "phone": "+351 21 000 00 00",
    "driver_license_number": "l-12 345 x",
    "driver_license_expiry": "2031-05-01",
    "address": "Rua Nova 1, Porto",
    "date_of_birth": "1990-02-28",
}


def profile_of(person: Person) -> str:
    return f"{CUSTOMERS}/{person.customer_id}"


class TestTakingIn:
    def test_an_agent_takes_a_customer_in(self, cast: Cast) -> None:
        created = cast.agent.post(CUSTOMERS, DORA)
        assert created.status_code == 201, created.json
        customer = created.json
        assert (customer["email"], customer["driver_license_number"]) == ("dora.reis@example.com", "L-12345X")
        assert (customer["status"], customer["user_id"], customer["language"]) == ("active", None, "en")
        assert (customer["date_of_birth"], customer["driver_license_expiry"]) == ("1990-02-28", "2031-05-01")
        shown = cast.agent.get(created.headers["Location"])
        assert (shown.json, shown.headers["ETag"]) == (customer, '"1"')

    @pytest.mark.parametrize("field", ["email", "driver_license_number"])
    def test_an_address_or_a_licence_belongs_to_one_customer_however_it_is_spelled(
        self, cast: Cast, field: str
    ) -> None:
        cast.agent.post(CUSTOMERS, DORA)
        other = {**DORA, "email": "other@example.com", "driver_license_number": "OTHER"}
        spelled = {"email": "DORA.reis@example.COM", "driver_license_number": "L-12345 x"}
        refused = cast.agent.post(CUSTOMERS, {**other, field: spelled[field]})
        assert (refused.status_code, refused.json["code"]) == (409, "duplicate")

    @pytest.mark.parametrize("field", ["first_name", "email", "phone", "driver_license_number", "driver_license_expiry"])
    def test_what_a_handover_needs_is_required(self, cast: Cast, field: str) -> None:
        refused = cast.agent.post(CUSTOMERS, {name: value for name, value in DORA.items() if name != field})
        assert [(item["field"], item["code"]) for item in refused.json["errors"]] == [(field, "required")]

    @pytest.mark.parametrize("field", ["id", "status", "version", "erased_at", "created_at", "role"])
    def test_what_the_service_keeps_cannot_be_set(self, cast: Cast, field: str) -> None:
        refused = cast.agent.post(CUSTOMERS, {**DORA, field: "1"})
        assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("email", "nobody"),
            ("driver_license_number", "  "),
            ("driver_license_expiry", "soon"),
            ("date_of_birth", "2026-02-30"),
            ("first_name", ""),
            ("last_name", "A\u0007B"),
            ("language", "english"),
            ("user_id", "1"),
        ],
    )
    def test_a_value_that_makes_no_sense_is_named(self, cast: Cast, field: str, value: str) -> None:
        refused = cast.agent.post(CUSTOMERS, {**DORA, field: value})
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, field)

    def test_nobody_is_born_tomorrow(self, cast: Cast) -> None:
        tomorrow = clock.now().date() + timedelta(days=1)
        refused = cast.agent.post(CUSTOMERS, {**DORA, "date_of_birth": tomorrow.isoformat()})
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "out_of_range")

    def test_an_agent_says_whose_account_it_is(self, cast: Cast) -> None:
        newcomer = cast.person("customer")
        created = cast.agent.post(CUSTOMERS, {**DORA, "user_id": str(newcomer.user_id)})
        assert created.json["user_id"] == str(newcomer.user_id)
        assert newcomer.get(created.headers["Location"]).status_code == 200

    def test_an_account_that_is_not_there_is_refused(self, cast: Cast) -> None:
        refused = cast.agent.post(CUSTOMERS, {**DORA, "user_id": str(uuid4())})
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "not_found")

    @pytest.mark.parametrize("role", ["accountant", "maintenance_staff", "driver"])
    def test_others_take_nobody_in(self, cast: Cast, role: str) -> None:
        assert cast.staff[role].post(CUSTOMERS, DORA).status_code == 403


class TestOwnProfile:
    def test_a_new_user_creates_one_profile_and_it_is_theirs(self, cast: Cast) -> None:
        newcomer = cast.person("customer")
        created = newcomer.post(CUSTOMERS, DORA)
        assert (created.status_code, created.json["user_id"]) == (201, str(newcomer.user_id))
        assert newcomer.get("/v1/auth/me").json["customer_id"] == created.json["id"]
        second = newcomer.post(CUSTOMERS, {**DORA, "email": "x@example.com", "driver_license_number": "OTHER"})
        assert (second.status_code, second.json["code"]) == (409, "duplicate")

    def test_nobody_says_whose_their_profile_is(self, cast: Cast) -> None:
        newcomer = cast.person("customer")
        for user_id in (cast.agent.user_id, newcomer.user_id):
            refused = newcomer.post(CUSTOMERS, {**DORA, "user_id": str(user_id)})
            assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "user_id")

    @pytest.mark.parametrize("value", ["agent", None])
    def test_nobody_gives_their_profile_away(self, cast: Cast, value: str | None) -> None:
        change = {"user_id": str(cast.agent.user_id) if value else None}
        refused = cast.ana.patch(profile_of(cast.ana), change, version="1")
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "user_id")

    def test_customers_see_and_change_their_own_profile_whole(self, cast: Cast) -> None:
        changed = cast.ana.patch(profile_of(cast.ana), {"phone": "123456", "date_of_birth": "1980-01-01"}, version="1")
        assert (changed.status_code, changed.json["phone"], changed.headers["ETag"]) == (200, "123456", '"2"')
        assert changed.json["date_of_birth"] == "1980-01-01"
        assert changed.json["driver_license_number"].startswith("L")

    def test_another_ones_profile_is_as_unknown_as_one_that_is_not_there(self, cast: Cast) -> None:
        bens, nobodys = profile_of(cast.ben), f"{CUSTOMERS}/{uuid4()}"
        for method, suffix, body in (
            ("GET", "", None),
            ("PATCH", "", {"phone": "1"}),
            ("GET", "/export", None),
        ):
            foreign = cast.ana.call(method, bens + suffix, body, version="1")
            unknown = cast.ana.call(method, nobodys + suffix, body, version="1")
            assert (foreign.status_code, unknown.status_code) == (404, 404)
            assert {**foreign.json, "request_id": 0} == {**unknown.json, "request_id": 0}
        assert cast.agent.get(bens).json["version"] == 1

    def test_a_customers_list_and_search_hold_their_own_profile_only(self, cast: Cast) -> None:
        for query in ("", "?q=Ben", f"?q={cast.ben.email}", "?status=active", "?limit=200"):
            found = [customer["id"] for customer in cast.ana.get(CUSTOMERS + query).json["data"]]
            assert set(found) <= {str(cast.ana.customer_id)}
        assert cast.person("customer").get(CUSTOMERS).json == {"data": [], "next_cursor": None}

    @pytest.mark.parametrize("suffix", ["deactivate", "erase"])
    def test_customers_do_not_close_profiles(self, cast: Cast, suffix: str) -> None:
        assert cast.ana.post(f"{profile_of(cast.ana)}/{suffix}").status_code == 403


class TestIdentity:
    @pytest.mark.parametrize(
        ("role", "sees"),
        [("rental_agent", True), ("fleet_manager", True), ("admin", True), ("accountant", False)],
    )
    def test_licence_and_birth_date_are_for_those_who_hand_vehicles_over(
        self, cast: Cast, role: str, sees: bool
    ) -> None:
        path = cast.agent.post(CUSTOMERS, DORA).headers["Location"]
        person = cast.staff[role]
        for customer in (person.get(path).json, person.get(f"{CUSTOMERS}?q=dora").json["data"][0]):
            assert customer["last_name"] == "Reis"
            assert (customer["driver_license_number"], customer["date_of_birth"]) == (
                ("L-12345X", "1990-02-28") if sees else (None, None)
            )

    @pytest.mark.parametrize("role", ["maintenance_staff", "driver"])
    def test_the_workshop_and_drivers_do_not_learn_who_rents(self, cast: Cast, role: str) -> None:
        for path in (CUSTOMERS, profile_of(cast.ana), f"{profile_of(cast.ana)}/export"):
            assert cast.staff[role].get(path).status_code == 403

    def test_accountants_export_nobody(self, cast: Cast) -> None:
        assert cast.accountant.get(f"{profile_of(cast.ana)}/export").status_code == 403


class TestList:
    @pytest.mark.parametrize(
        ("q", "found"),
        [
            ("dora", True),
            ("DORA R", True),
            ("rei", True),
            ("dora.reis@ex", True),
            ("ora", False),
            ("%", False),
            ("_ora", False),
            ("d\\", False),
        ],
    )
    def test_a_search_finds_how_a_name_or_an_address_begins(self, cast: Cast, q: str, found: bool) -> None:
        cast.agent.post(CUSTOMERS, DORA)
        listed = cast.agent.call("GET", f"{CUSTOMERS}?q={q.replace('%', '%25')}", None).json["data"]
        assert [customer["first_name"] for customer in listed] == (["Dora"] if found else [])

    def test_customers_are_listed_newest_first_and_by_status(self, cast: Cast) -> None:
        cast.agent.post(f"{profile_of(cast.ana)}/deactivate")
        names = [customer["first_name"] for customer in cast.agent.get(CUSTOMERS).json["data"]]
        assert names == ["Ben", "Ana"]
        for status, name in (("active", "Ben"), ("deactivated", "Ana")):
            listed = cast.agent.get(f"{CUSTOMERS}?status={status}").json["data"]
            assert [customer["first_name"] for customer in listed] == [name]

    def test_a_list_and_a_single_read_take_one_statement(
        self, cast: Cast, statements: list[str]
    ) -> None:
        cast.agent.known()
        for path in (f"{CUSTOMERS}?q=a&status=active", profile_of(cast.ana)):
            statements.clear()
            assert cast.agent.get(path).status_code == 200
            assert len(statements) == 1


class TestChanging:
    def test_two_edits_of_one_version_do_not_bury_each_other(self, cast: Cast) -> None:
        path = profile_of(cast.ana)
        assert cast.agent.patch(path, {"phone": "1"}).status_code == 428
        assert cast.agent.patch(path, {"phone": "2"}, version="1").json["version"] == 2
        assert cast.agent.patch(path, {"phone": "3"}, version="1").status_code == 412
        assert cast.agent.get(path).json["phone"] == "2"

    def test_a_field_is_emptied_only_where_it_may_be(self, cast: Cast) -> None:
        path = cast.agent.post(CUSTOMERS, DORA).headers["Location"]
        emptied = cast.agent.patch(path, {"address": None, "date_of_birth": None}, version="1")
        assert (emptied.json["address"], emptied.json["date_of_birth"]) == (None, None)
        assert cast.agent.patch(path, {"email": None}, version="2").status_code == 422

    def test_another_ones_address_cannot_be_taken(self, cast: Cast) -> None:
        refused = cast.ana.patch(profile_of(cast.ana), {"email": cast.ben.email.upper()}, version="1")
        assert (refused.status_code, refused.json["code"]) == (409, "duplicate")

    def test_status_is_not_a_field_to_edit(self, cast: Cast) -> None:
        refused = cast.agent.patch(profile_of(cast.ana), {"status": "deactivated"}, version="1")
        assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")

    def test_accountants_change_nobody(self, cast: Cast) -> None:
        assert cast.accountant.patch(profile_of(cast.ana), {"phone": "1"}, version="1").status_code == 403


class TestDeactivating:
    def test_a_customer_is_deactivated_once(self, cast: Cast) -> None:
        path = f"{profile_of(cast.ana)}/deactivate"
        closed = cast.agent.post(path)
        assert (closed.status_code, closed.json["status"], closed.headers["ETag"]) == (200, "deactivated", '"2"')
        again = cast.agent.post(path)
        assert (again.status_code, again.json["code"]) == (409, "invalid_state")

    def test_a_version_is_honoured_where_it_is_sent(self, cast: Cast) -> None:
        path = f"{profile_of(cast.ana)}/deactivate"
        assert cast.agent.post(path, version="7").status_code == 412
        assert cast.agent.post(path, version="1").status_code == 200

    def test_a_customer_whose_rental_is_under_way_can_be_deactivated(self, cast: Cast) -> None:
        rental_to_bill(cast, status="active", actual_end_at=None, end_odometer_km=None)
        assert cast.agent.post(f"{profile_of(cast.ana)}/deactivate").status_code == 200

    def test_an_unknown_customer_cannot_be_deactivated(self, cast: Cast) -> None:
        assert cast.agent.post(f"{CUSTOMERS}/{uuid4()}/deactivate").status_code == 404


class TestExport:
    def test_a_person_gets_everything_that_is_stored_about_them_and_nothing_of_others(self, cast: Cast) -> None:
        invoice = issued(cast, DAYS, notes="Needs a child seat")
        issued(cast, DAYS, renter=cast.ben)
        insert("rental_charge", rental_id=invoice.rental_id, type="toll", description="Bridge", amount=185)
        insert(
            "notification",
            kind="invoice_issued",
            channel="email",
            customer_id=cast.ana.customer_id,
            invoice_id=invoice.id,
            status="sending",
        )
        found = cast.ana.get(f"{profile_of(cast.ana)}/export").json
        assert found["complete"] is True
        assert found["profile"] == cast.ana.get(profile_of(cast.ana)).json
        assert (found["account"]["email"], found["account"]["roles"]) == (cast.ana.email, ["customer"])
        [rental] = found["rentals"]
        assert (rental["id"], rental["notes"]) == (str(invoice.rental_id), "Needs a child seat")
        assert rental["charges"] == [{"type": "toll", "description": "Bridge", "amount": 185}]
        [exported] = found["invoices"]
        assert exported == cast.ana.get(f"/v1/invoices/{invoice.id}").json
        assert [note["kind"] for note in found["notifications"]] == ["invoice_issued"]
        assert "password" not in str(found)

    def test_an_export_of_somebody_without_an_account_or_rentals_is_complete_too(self, cast: Cast) -> None:
        path = cast.agent.post(CUSTOMERS, DORA).headers["Location"]
        found = cast.agent.get(f"{path}/export").json
        assert (found["account"], found["rentals"], found["invoices"]) == (None, [], [])

    def test_an_export_takes_as_many_statements_for_ten_rentals_as_for_one(
        self, cast: Cast, statements: list[str]
    ) -> None:
        counted = []
        cast.ana.known()
        for count in (1, 9):
            for _ in range(count):
                rental_to_bill(cast)
            statements.clear()
            cast.ana.get(f"{profile_of(cast.ana)}/export")
            counted.append(len(statements))
        assert counted[0] == counted[1]


class TestErasing:
    def erase(self, cast: Cast, customer_id: UUID | None, **headers: str) -> Any:
        return cast.manager.post(f"{CUSTOMERS}/{customer_id}/erase", **headers)

    def test_the_person_goes_from_every_table(self, cast: Cast) -> None:
        path = cast.agent.post(CUSTOMERS, DORA, key="k").headers["Location"]
        cast.agent.patch(path, {"address": "Rua Velha 2"}, version="1", key="k")
        customer_id = UUID(path.rpartition("/")[2])
        rental_to_bill(cast, customer_id=customer_id, notes="Dora calls from +351 21 000 00 00", cancel_reason="Dora")
        booking = {"vehicle_id": str(cast.corolla), "start_at": iso(at(9)), "end_at": iso(at(10)), "notes": "Dora's dog"}
        rental = cast.agent.post("/v1/rentals", {"customer_id": str(customer_id), **booking}, key="k")
        assert cast.agent.post(f"{rental.headers['Location']}/cancel", {"reason": "Dora is ill"}).status_code == 200
        erased = self.erase(cast, customer_id, key="k")
        assert erased.status_code == 200, erased.json
        assert (erased.json["first_name"], erased.json["status"]) == ("Erased", "deactivated")
        assert erased.json["erased_at"] is not None
        for trace in ("Dora", "dora.reis", "Reis", "L-12345X", "1990-02-28", "Rua", "+351 21", "2031-05-01"):
            assert trace not in everything(), trace

    def test_the_books_stay(self, cast: Cast) -> None:
        invoice = posted(cast)
        assert self.erase(cast, cast.ana.customer_id).status_code == 200
        assert cast.accountant.get(f"/v1/invoices/{invoice.id}").json["total_amount"] == invoice.total_amount
        assert cast.accountant.get("/v1/reconciliation").json["balanced"] is True

    def test_their_account_is_emptied_and_closed_and_their_sessions_end(self, cast: Cast) -> None:
        assert self.erase(cast, cast.ana.customer_id).status_code == 200
        assert cast.ana.get("/v1/auth/me").status_code == 401
        assert cast.ana.email not in everything()
        assert db.one("SELECT deactivated_at IS NOT NULL FROM user_account WHERE id = %s", (cast.ana.user_id,)) == (True,)

    def test_their_keys_are_revoked_and_lose_their_names(self, cast: Cast) -> None:
        key = {"name": "Ana's laptop", "permissions": ["rentals.read"], "expires_at": iso(at(30))}
        secret = cast.ana.post("/v1/api-keys", key).json["key"]
        assert cast.ana.get("/v1/rentals", Authorization=f"Bearer {secret}").status_code == 200
        self.erase(cast, cast.ana.customer_id)
        assert cast.ana.get("/v1/rentals", Authorization=f"Bearer {secret}").status_code == 401
        assert "Ana's laptop" not in everything()

    def test_one_who_works_here_keeps_their_account(self, cast: Cast) -> None:
        path = cast.agent.post(CUSTOMERS, {**DORA, "user_id": str(cast.admin.user_id)}).headers["Location"]
        erased = cast.manager.post(f"{path}/erase")
        assert (erased.status_code, erased.json["user_id"]) == (200, None)
        assert cast.admin.get("/v1/auth/me").status_code == 200

    @pytest.mark.parametrize("status", ["held", "reserved", "active"])
    def test_nobody_is_erased_while_something_of_theirs_stands(self, cast: Cast, status: str) -> None:
        rental_to_bill(cast, status=status, hold_expires_at=clock.now() + timedelta(hours=1))
        refused = self.erase(cast, cast.ana.customer_id)
        assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
        assert cast.ana.get(profile_of(cast.ana)).json["first_name"] == "Ana"

    @pytest.mark.parametrize("status", ["cancelled", "expired", "no_show"])
    def test_what_is_over_keeps_nobody_from_being_erased(self, cast: Cast, status: str) -> None:
        rental_to_bill(cast, status=status)
        assert self.erase(cast, cast.ana.customer_id).status_code == 200

    def test_an_erased_person_is_not_erased_changed_or_deactivated_again(self, cast: Cast) -> None:
        self.erase(cast, cast.ana.customer_id)
        path = profile_of(cast.ana)
        for refused in (
            self.erase(cast, cast.ana.customer_id),
            cast.agent.patch(path, {"first_name": "Ana"}, version="2"),
            cast.agent.post(f"{path}/deactivate"),
        ):
            assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")

    def test_their_address_and_licence_are_free_again(self, cast: Cast) -> None:
        first = cast.agent.post(CUSTOMERS, DORA).json["id"]
        self.erase(cast, first)
        assert cast.agent.post(CUSTOMERS, DORA).status_code == 201

    def test_nobody_can_take_the_number_that_stands_for_theirs(self, cast: Cast) -> None:
        first = cast.agent.post(CUSTOMERS, DORA).json["id"]
        placeholder = licences.forgotten(UUID(first))["driver_license_number"]
        other = {**DORA, "email": "other@example.com", "driver_license_number": placeholder}
        assert cast.agent.post(CUSTOMERS, other).status_code == 201
        assert self.erase(cast, first).status_code == 200

    def test_any_number_of_people_can_be_erased(self, cast: Cast) -> None:
        for person in (cast.ana, cast.ben):
            assert self.erase(cast, person.customer_id).status_code == 200

    @pytest.mark.parametrize("role", ["rental_agent", "accountant", "customer"])
    def test_erasing_takes_a_manager(self, cast: Cast, role: str) -> None:
        assert cast.staff[role].post(f"{profile_of(cast.ana)}/erase").status_code == 403


def everything() -> str:
    """All rows of all tables, as text."""
    tables = db.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    dumps = [db.rows(f"SELECT coalesce(string_agg(t::text, ''), '') FROM {name} t")[0][0] for (name,) in tables]
    bodies = db.rows("SELECT encode(body, 'escape') FROM idempotency_record")
    return "\n".join([*dumps, *(body for (body,) in bodies)])
