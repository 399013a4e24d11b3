"""What one may not see is not found: another's thing and an unknown thing get the same answer, whatever is asked of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from fleet import auth, clock, openapi
from fleet.http import PUBLIC, Operation
from fleet.models.invoices import Invoice
from tests.books import issued
from tests.cast import Cast, Person, at, insert, iso
from tests.money import given_back, id_of, paid

UNKNOWN = UUID("01a2175a-3166-71f2-8520-7980a10af0f7")

# A body that is right, for each operation that a customer may call on one thing.
BODIES: dict[str, Any] = {
    "ChangeCustomer": {"first_name": "Stolen"},
    "CancelRental": {"reason": "mischief"},
    "ChangeRental": {"notes": "mischief"},
    "ChooseNotifications": {"kinds": {"rental_reminder": {"email": False}}},
}


PERSONAL = ("rental_id", "invoice_id", "customer_id", "key_id", "payment_id", "refund_id", "session_id")


@dataclass(frozen=True)
class Belongings:
    """What is Ana's."""

    cast: Cast
    rental_id: UUID
    invoice_id: UUID
    customer_id: UUID
    key_id: UUID
    payment_id: UUID
    refund_id: UUID
    session_id: UUID

    @property
    def by_parameter(self) -> dict[str, UUID]:
        return {name: getattr(self, name) for name in PERSONAL}


@pytest.fixture(scope="module")
def belongings(crew: Cast) -> Belongings:
    invoice: Invoice = issued(crew)
    assert crew.ana.customer_id is not None and invoice.rental_id is not None
    key_id = insert(
        "api_key",
        user_id=crew.ana.user_id,
        name="Ana's",
        prefix="flt_aaaa",
        key_hash=b"a" * 32,
        permissions=["branches.read"],
        expires_at=at(30),
    )
    payment = paid(crew, invoice)
    refund_id = id_of(given_back(crew, payment, amount=5))
    parts = (crew.ana.customer_id, key_id, id_of(payment), refund_id)
    return Belongings(crew, invoice.rental_id, invoice.id, *parts, login_of(crew))


def login_of(crew: Cast) -> UUID:
    """A session of Ana's beside the one that she asks in."""
    return insert("user_session", user_id=crew.ana.user_id, expires_at=at(30))


def customers_operations(crew: Cast) -> Iterator[tuple[str, str, Operation]]:
    """Every operation on one thing that customers may call on their own."""
    for rule, method, declared, _ in openapi.operations(crew.app):
        personal = {name for name in rule.arguments if name in PERSONAL}
        if personal and declared.permission in auth.ROLES["customer"]:
            yield method, rule.rule.replace("<uuid:", "<"), declared


def ask(person: Person, method: str, pattern: str, declared: Operation, ids: dict[str, UUID]) -> tuple[int, Any]:
    path = pattern
    for name, value in ids.items():
        path = path.replace(f"<{name}>", f"{value}")
    body = BODIES[declared.body.__name__] if declared.body else None
    answer = person.call(method, path, body, version="1") if declared.if_match else person.call(method, path, body)
    said = answer.get_json() if answer.is_json else {}
    return answer.status_code, {name: value for name, value in said.items() if name != "request_id"}


class TestForeignThings:
    def test_another_customers_thing_and_an_unknown_one_get_the_same_answer(self, belongings: Belongings) -> None:
        ben, asked = belongings.cast.ben, 0
        for method, pattern, declared in customers_operations(belongings.cast):
            foreign = ask(ben, method, pattern, declared, belongings.by_parameter)
            unknown = ask(ben, method, pattern, declared, dict.fromkeys(belongings.by_parameter, UNKNOWN))
            assert foreign == unknown, (method, pattern)
            assert foreign[0] == 404, (method, pattern, foreign)
            asked += 1
        assert asked >= 8

    def test_their_owner_gets_another_one(self, belongings: Belongings) -> None:
        for method, pattern, declared in customers_operations(belongings.cast):
            if method == "GET":
                assert ask(belongings.cast.ana, method, pattern, declared, belongings.by_parameter)[0] == 200, pattern

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


def filled(pattern: str) -> str:
    """A path of the pattern that leads to nothing."""
    return "".join(
        part if number == 0 else ("9999" if part.startswith("code>") else f"{UNKNOWN}") + part.partition(">")[2]
        for number, part in enumerate(pattern.replace("<uuid:", "<").split("<"))
    )


class TestRoles:
    @pytest.mark.parametrize("role", auth.ROLES)
    def test_a_role_may_call_what_the_table_says_and_nothing_else(self, crew: Cast, role: str) -> None:
        person, wrong = crew.person(role), []
        for rule, method, declared, _ in openapi.operations(crew.app):
            if declared.permission == PUBLIC:
                continue
            answer = person.call(method, filled(rule.rule), None)
            refused = answer.status_code == 403
            assert answer.status_code < 500 and answer.status_code != 401, (method, rule.rule)
            if refused is (declared.permission in auth.ROLES[role]):
                wrong.append((method, rule.rule, answer.status_code))
        assert not wrong

    def test_without_credentials_only_the_written_list_is_open(self, crew: Cast) -> None:
        client, opened = crew.app.test_client(), set()
        for rule, method, _, _ in openapi.operations(crew.app):
            answer = client.open(filled(rule.rule), method=method, data=b"{", content_type="application/json")
            if answer.status_code == 401:
                assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            else:
                opened.add(f"{method} {rule.rule}")
        assert opened == OPEN


OPEN = {
    "GET /.well-known/jwks.json",
    "GET /health",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
    "GET /openapi.json",
    "GET /v1/auth/email-verification",
    "GET /v1/auth/password-reset",
    "GET /v1/unsubscribe",
    "POST /v1/auth/email-verification/confirm",
    "POST /v1/auth/login",
    "POST /v1/auth/logout",
    "POST /v1/auth/password-reset",
    "POST /v1/auth/password-reset/confirm",
    "POST /v1/auth/refresh",
    "POST /v1/auth/register",
    "POST /v1/unsubscribe",
}
