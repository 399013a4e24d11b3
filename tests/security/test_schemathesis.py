"""The published document as a machine reads it: generated calls get documented answers, and never one of 5xx."""

import itertools
import os
import random
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from fleet.db import db
from fleet.services import events
from tests.books import posted
from tests.cast import Cast, at, iso
from tests.money import given_back, id_of, paid

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
# `make fuzz` takes more of each, and others every time.
FUZZ_EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
EXAMPLES = {GenerationMode.POSITIVE: FUZZ_EXAMPLES or 6, GenerationMode.NEGATIVE: FUZZ_EXAMPLES or 3}
EXAMPLES_OF_OTHER_ROLES = FUZZ_EXAMPLES or 1
SEED = random.SystemRandom().randrange(2**32) if FUZZ_EXAMPLES else 2026
# Roles that see nobody's data but their own. What is Ben's must be in no answer to them.
SEE_THEIR_OWN = {"customer", "driver", "maintenance_staff"}
HIS_NAME = "Foreigner-to-all"
# It ends the sessions that the other calls are made in.
LEFT_OUT = {"/v1/auth/logout"}
# What ends things comes last, or the other calls would find none.
FAREWELLS = ("/deactivate", "/erase", "/status")

# What the calls must have led to: a document that refuses everything would be easy to conform to.
WANTED = {
    ("admin", GenerationMode.POSITIVE): {200, 201, 400, 404, 409, 412, 422},
    ("admin", GenerationMode.NEGATIVE): {400, 404, 422},
    ("customer", GenerationMode.POSITIVE): {200, 201, 403, 404, 409, 422},
    ("customer", GenerationMode.NEGATIVE): {400, 403, 404, 422},
}

BALANCED = (("1000", "debit"), ("3000", "credit"))
# Texts that keep rules which no schema tells, each often enough to collide.
PLAUSIBLE: dict[str, list[Any]] = {
    "currency": ["EUR"],
    "timezone": ["Europe/Lisbon"],
    "tax_code": ["NONE", "PT-23"],
    "email": [f"explorer-{number}@example.com" for number in range(20)],
    "phone": ["+351210000000"],
    "password": ["correct horse battery staple"],
    "first_name": ["Ana"],
    "last_name": ["Silva"],
    "address": ["Rua Augusta 1, Lisboa"],
    "language": ["en", "de"],
    "driver_license_number": [f"L-{number}" for number in range(20)],
    "driver_license_expiry": ["2099-12-31"],
    "date_of_birth": ["1990-02-28"],
    "plate_number": [f"EX-{number:02d}-PL" for number in range(20)],
    "vin": [None, "1HGCM82633A004352"],
    "make": ["Renault"],
    "model": ["Clio"],
    "year": [2024],
    "color": ["blue"],
    "name": ["Explorers' own"],
    "memo": ["Explored"],
    "reason": ["Explored"],
    "booked_on": ["2026-06-30"],
    "measured_at": [None],
    "expires_at": [None],
    "permissions": [["branches.read"]],
    "roles": [["driver"]],
    "opening_hours": [{"mon": ["09:00-18:00"]}],
    "notes": [None, "Explored"],
    "url": ["https://203.0.114.7/hooks"],
    "event_types": [None, ["rental.reserved"]],
    "after": [0, 1],
    "lines": [[{"account": account, "side": side, "amount": 5, "currency": "EUR"} for account, side in BALANCED]],
}

Known = dict[str, list[Any]]

# Times near enough to be rented at; any others are refused before a rule of the business is reached.
schemathesis.openapi.format("date-time", st.integers(0, 60 * 24).map(lambda hours: iso(at() + timedelta(hours=hours))))


def known(cast: Cast, role: str) -> Known:
    """What exists, by the name under which it is spoken of: generated ids alone would only ever be unknown."""
    reserved = cast.agent.post(
        "/v1/rentals",
        {
            "customer_id": f"{cast.ana.customer_id}",
            "vehicle_id": f"{cast.vehicle()}",
            "start_at": iso(at(1)),
            "end_at": iso(at(3)),
        },
        key="explored",
    )
    invoice = posted(cast)
    payment = paid(cast, invoice, 5000)
    entries = cast.accountant.get("/v1/ledger/entries").json["data"]
    # Whoever explores as a customer does so as Ana, who would not survive what an admin may do to her.
    customers = [cast.ana.customer_id] if role == "customer" else [cast.ben.customer_id, cast.customer()]
    endpoint = cast.admin.post("/v1/webhook-endpoints", {"url": "https://203.0.114.7/"}).json
    events.put_in_order()
    delivery = cast.admin.get(f"/v1/webhook-endpoints/{endpoint['id']}/deliveries").json["data"][0]
    return {
        "endpoint_id": [endpoint["id"]],
        "delivery_id": [delivery["id"]],
        "rental_id": [reserved.json["id"], f"{invoice.rental_id}"],
        "invoice_id": [f"{invoice.id}"],
        "payment_id": [f"{id_of(payment)}"],
        "refund_id": [f"{id_of(given_back(cast, payment, amount=5))}"],
        "method": ["cash", "bank_transfer", "wallet"],
        "entry_id": [entries[0]["id"]],
        "code": ["1000", "9100", "9200"],
        "account": ["1000", "1100"],
        "vehicle_id": [f"{cast.corolla}", f"{cast.vehicle()}", f"{cast.vehicle()}"],
        "branch_id": [f"{cast.lisbon}"],
        "customer_id": [f"{customer}" for customer in customers],
        "session_id": [f"{cast.driver.session_id}"],
        "user_id": [f"{cast.driver.user_id}", f"{cast.mechanic.user_id}"],
        "If-Match": ['"1"'],
        **PLAUSIBLE,
        "class_id": [f"{cast.compact}"],
    }


def mend(case: Case, ids: Known, chance: random.Random) -> None:
    """Put what exists in the place of what was generated: everywhere, or here and there."""
    likely = chance.choice([0.3, 1.0, 1.0])
    parts: list[Any] = [case.path_parameters, case.query, case.headers, case.body]
    for part in parts:
        for name in list(part) if isinstance(part, MutableMapping) else ():
            if name in ids and chance.random() < likely:
                part[name] = chance.choice(ids[name])


@dataclass(frozen=True)
class Explorer:
    """Who calls with generated input, one after the other, and how often each operation."""

    cast: Cast
    roles: tuple[str, ...]
    mode: GenerationMode
    examples: int


def explore(explorer: Explorer, operation: APIOperation, ids: Known) -> set[tuple[str, int]]:
    """Call the operation with generated input, and hold each answer to the document. Returns who got which status."""
    chance, mode, turns = random.Random(SEED), explorer.mode, itertools.cycle(explorer.roles)
    answered: set[tuple[str, int]] = set()

    @seed(SEED)
    @settings(
        max_examples=explorer.examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(mode))
    def call(case: Case) -> None:
        if mode is GenerationMode.POSITIVE:
            mend(case, ids, chance)
        role = next(turns)
        answer = case.call_and_validate(headers=explorer.cast.staff[role].headers, checks=CHECKS)
        foreign = foreign_to(explorer.cast, role)
        assert not [words for words in foreign if words.encode() in answer.content], f"a {role} got somebody else's data"
        answered.add((role, answer.status_code))

    call()
    return answered


def operations(cast: Cast, mode: GenerationMode) -> Iterator[APIOperation]:
    """Every operation of the document, served by the application in this process."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", cast.app)
    results: list[Any] = list(schema.get_all_operations())
    found = [result.ok() for result in results]
    for operation in sorted(found, key=lambda one: one.method == "delete" or one.path.endswith(FAREWELLS)):
        takes_input = operation.body or operation.query or operation.path_parameters
        if operation.path not in LEFT_OUT and (takes_input or mode is GenerationMode.POSITIVE):
            yield operation


def failures_of(explorer: Explorer, ids: Known) -> tuple[list[str], set[tuple[str, int]]]:
    """What was wrong with any operation's answers, and who got which status."""
    failures: list[str] = []
    answered: set[tuple[str, int]] = set()
    for operation in operations(explorer.cast, explorer.mode):
        try:
            answered |= explore(explorer, operation, ids)
        except (BaseExceptionGroup, AssertionError) as failure:
            inner = failure.exceptions if isinstance(failure, BaseExceptionGroup) else [failure]
            failures += [f"{operation.label}: {item}" for item in inner]
    return failures, answered


def foreign_to(cast: Cast, role: str) -> tuple[str, ...]:
    """What is Ben's alone: his address of e-mail, and the name in his profile."""
    if role not in SEE_THEIR_OWN:
        return ()
    return (cast.ben.email, HIS_NAME, f"{cast.ben.user_id}")


@pytest.fixture
def explored(cast: Cast) -> Cast:
    """The cast, and what is Ben's: a profile under a name of its own, a rental, an invoice and a payment."""
    db.execute_sql("UPDATE customer SET last_name = %s WHERE id = %s", (HIS_NAME, cast.ben.customer_id))
    wish = {"customer_id": f"{cast.ben.customer_id}", "vehicle_id": f"{cast.vehicle()}"}
    made = cast.agent.post("/v1/rentals", {**wish, "start_at": iso(at(1)), "end_at": iso(at(3))}, key="Ben's")
    assert made.status_code == 201
    paid(cast, posted(cast, renter=cast.ben), 5000)
    return cast


@pytest.mark.slow
@pytest.mark.parametrize("mode", EXAMPLES, ids=["valid", "invalid"])
@pytest.mark.parametrize("role", ["admin", "customer"])
def test_generated_calls_get_documented_answers(explored: Cast, role: str, mode: GenerationMode) -> None:
    failures, answered = failures_of(Explorer(explored, (role,), mode, EXAMPLES[mode]), known(explored, role))
    assert not failures, "\n\n".join(failures)
    assert {(role, status) for status in WANTED[role, mode]} <= answered, "they did not get far enough to prove anything"


@pytest.mark.slow
def test_so_do_those_of_every_other_role(explored: Cast) -> None:
    """Each operation once by each of them; what they may do is a part of what an admin may."""
    roles = tuple(set(explored.staff) - {"admin", "customer"})
    explorer = Explorer(explored, tuple(sorted(roles)), GenerationMode.POSITIVE, EXAMPLES_OF_OTHER_ROLES * len(roles))
    failures, answered = failures_of(explorer, known(explored, "customer"))
    assert not failures, "\n\n".join(failures)
    assert {(role, status) for role in roles for status in (200, 403)} <= answered
