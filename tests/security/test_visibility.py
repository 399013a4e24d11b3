"""No list, filter, search or body shows more than is one's own. Single things are asked for by test_matrix.py."""

from dataclasses import dataclass
from uuid import UUID

import pytest

from fleet import clock
from tests.books import issued
from tests.cast import Cast, at, iso
from tests.money import given_back, paid

UNKNOWN = UUID("01a2175a-3166-71f2-8520-7980a10af0f7")


@dataclass(frozen=True)
class Belongings:
    """What is Ana's: a rental with its invoice, a payment of it and a refund of that."""

    cast: Cast
    customer_id: UUID


@pytest.fixture(scope="module")
def belongings(crew: Cast) -> Belongings:
    assert crew.ana.customer_id is not None
    given_back(crew, paid(crew, issued(crew)), amount=5)
    return Belongings(crew, crew.ana.customer_id)


class TestForeignThings:
    @pytest.mark.parametrize("role", ["maintenance_staff", "driver"])
    def test_the_workshop_and_drivers_see_no_renter(self, belongings: Belongings, role: str) -> None:
        person = belongings.cast.staff[role]
        own = f"/v1/customers/{belongings.customer_id}"
        for path in ("/v1/customers", own, "/v1/rentals", "/v1/invoices", "/v1/payments", "/v1/users"):
            assert person.get(path).status_code == 403

    def test_a_customer_without_a_profile_sees_nothing(self, belongings: Belongings) -> None:
        newcomer = belongings.cast.person("customer")
        for path in ("/v1/rentals", "/v1/invoices", "/v1/payments", "/v1/customers", "/v1/api-keys"):
            assert newcomer.get(path).get_json() == {"data": [], "next_cursor": None}

    @pytest.mark.parametrize("thing", ["rentals", "invoices", "payments"])
    def test_no_filter_widens_what_one_sees(self, belongings: Belongings, thing: str) -> None:
        ben = belongings.cast.ben
        for query in (f"customer_id={belongings.customer_id}", f"customer_id={UNKNOWN}", "limit=200", ""):
            assert ben.get(f"/v1/{thing}?{query}").get_json() == {"data": [], "next_cursor": None}
        seen = belongings.cast.ana.get(f"/v1/{thing}?customer_id={belongings.customer_id}").get_json()["data"]
        assert {row["customer_id"] for row in seen} == {f"{belongings.customer_id}"}

    def test_a_search_finds_only_oneself(self, belongings: Belongings) -> None:
        ben = belongings.cast.ben
        for query in ("q=Ana", "q=%25", "q=_", "q=", "status=active"):
            found = ben.get(f"/v1/customers?{query}").get_json().get("data", [])
            assert {row["id"] for row in found} <= {f"{ben.customer_id}"}, query

    def test_a_body_cannot_tell_another_customer_from_none(self, belongings: Belongings) -> None:
        crew, answers = belongings.cast, []
        for customer_id in (belongings.customer_id, UNKNOWN):
            window = {"start_at": iso(at(9)), "end_at": iso(at(10))}
            wish = {"customer_id": f"{customer_id}", "vehicle_id": f"{crew.corolla}"}
            answer = crew.ben.post("/v1/rentals", {**wish, **window}, key=f"{clock.new_id()}")
            answers.append((answer.status_code, answer.get_json()["code"], answer.get_json()["errors"]))
        assert answers[0] == answers[1]
        assert answers[0][0] == 422

    def test_a_key_of_another_caller_replays_nothing(self, belongings: Belongings) -> None:
        crew = belongings.cast
        for person in (crew.ana, crew.ben):
            wish = {
                "customer_id": f"{person.customer_id}",
                "vehicle_id": f"{crew.vehicle()}",
                "start_at": iso(at(20)),
                "end_at": iso(at(21)),
            }
            answer = person.post("/v1/rentals", wish, key="the-same")
            assert (answer.status_code, answer.get_json()["customer_id"]) == (201, f"{person.customer_id}")
            assert "Idempotency-Replayed" not in answer.headers
