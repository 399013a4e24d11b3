"""The role matrix: every operation, asked by every role for its own, another's and an unknown thing (OWASP API1, API5)."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from fleet import auth, openapi
from fleet.breakers import Breaker, Rules
from fleet.gateways.stripe_cards import StripeCards, is_outage
from fleet.http import PUBLIC, Operation
from tests.cast import Answer, Cast, Person, request
from tests.security import matrix
from tests.security.matrix import CALLERS, Row
from tests.security.matrix_scenes import SCENES, Ask, Stage
from tests.stripe_server import SECRET, stripe_server

UNKNOWN = UUID("01a2175a-3166-71f2-8520-7980a10af0f7")
# What belongs to one customer, or to one user. Everything else is nobody's in particular.
PERSONAL = {"rental_id", "invoice_id", "customer_id", "key_id", "payment_id", "refund_id", "session_id"}
# Their bodies name a customer or an invoice, which may be another's.
NAMED_IN_THE_BODY = {"rentals_reserve", "payments_create"}
# Theirs of the user who calls, whatever their role.
OF_THE_CALLER = ("api_keys_", "sessions_end")
# There are more answers than yes and no: a body that names another's thing is not valid, and who cannot have a second factor
# has none to end.
REFUSALS = {401, 403, 404, 409, 422}
STAFF = set(auth.ROLES) - {"customer"}
# The written list of what needs no credentials. Whoever adds to it says so here.
OPEN = {
    "access_jwks", "access_login", "access_logout", "access_refresh", "card_events_take", "notifications_ask_to_unsubscribe",
    "notifications_unsubscribe", "operations_health", "operations_live", "operations_openapi_document",
    "operations_prometheus", "operations_ready", "recovery_ask_for_reset", "recovery_reset", "recovery_reset_page",
    "recovery_verification_page", "recovery_verify", "users_register",
}  # fmt: skip

ROWS = {name: list(found) for name, found in itertools.groupby(matrix.rows(), lambda row: row.operation)}


@pytest.fixture(scope="module")
def stage(crew: Cast) -> Iterator[Cast]:
    """The cast, with a card gateway."""
    with stripe_server() as (_, address):
        wiring = crew.app.extensions["fleet"]
        breaker = Breaker("stripe-of-the-matrix", Rules(), is_failure=is_outage)
        wiring.cards = StripeCards("sk_test_1", address, SECRET, breaker=breaker)
        yield crew
        del wiring.cards


@pytest.fixture(scope="module")
def operations(app: Flask) -> dict[str, tuple[str, str, Operation]]:
    """(method, pattern, declaration) by operation id."""
    found = openapi.operations(app)
    return {rule.endpoint.replace(".", "_"): (method, rule.rule, declared) for rule, method, declared, _ in found}


def asked(stage: Cast, row: Row, role: str, *, standing: Ask) -> Ask:
    """What the caller asks with: a thing of its own for a call that is to succeed, one that stays for a refusal."""
    if row.statuses[role] in REFUSALS and row.object == "unknown":
        return replace(standing, ids=dict.fromkeys(standing.ids, UNKNOWN), by=None)
    if row.statuses[role] in REFUSALS:
        return replace(standing, by=None)
    owner = stage.renter("Own", "Er")
    caller = stage.staff[role] if role != "nobody" else owner
    if role == "customer" and row.object == "own":
        caller = owner
    if row.operation.startswith(OF_THE_CALLER):
        owner = caller
    made = scene_of(row.operation)(Stage(stage, owner, caller))
    return made if made.by else replace(made, by=caller)


def scene_of(operation: str) -> Any:
    return SCENES.get(operation, lambda stage: Ask())


def send(app: Flask, person: Person | None, operation: tuple[str, str, Operation], ask: Ask) -> Answer:
    method, pattern, declared = operation
    path = re.sub(r"<(?:\w+:)?(\w+)>", lambda match: f"{ask.ids.get(match[1], UNKNOWN)}", pattern)
    headers = {**ask.headers, **(person.headers if person else {})}
    if declared.key_required:
        headers["Idempotency-Key"] = f"{uuid4()}"
    if declared.if_match and method != "POST":
        headers["If-Match"] = '"0"' if "notification-preferences" in path else '"1"'
    return request(app, method, f"{path}?{ask.query}" if ask.query else path, ask.body, headers)


@pytest.mark.parametrize("name", ROWS)
def test_each_role_may_do_what_the_matrix_says(
    stage: Cast, operations: dict[str, tuple[str, str, Operation]], name: str
) -> None:
    wrong, standing = [], scene_of(name)(Stage(stage, stage.ben, stage.ana))
    said: dict[tuple[str, str], Any] = {}
    for row, role in itertools.product(ROWS[name], CALLERS):
        if row.object == "foreign" and role in STAFF and row.statuses[role] not in REFUSALS:
            continue  # to them it is what "own" is
        ask = asked(stage, row, role, standing=standing)
        person = None if role == "nobody" else ask.by or stage.staff[role]
        answer = send(stage.app, person, operations[name], ask)
        if answer.status_code != row.statuses[role]:
            wrong.append((row.object, role, answer.status_code, answer.get_json(silent=True)))
        elif answer.status_code == 404:
            said[row.object, role] = {**answer.json, "request_id": None}
    assert not wrong
    for role in CALLERS:
        if ("foreign", role) in said and ROWS[name][-1].object == "unknown":
            assert said["foreign", role] == said["unknown", role], role


class TestTheTable:
    """The matrix leaves nothing out."""

    def test_staff_may_do_to_one_customers_things_what_they_may_do_to_anothers(self) -> None:
        for name, found in ROWS.items():
            if found[0].object == "own" and not name.startswith(OF_THE_CALLER):
                assert {found[0].statuses[role] == found[1].statuses[role] for role in STAFF} == {True}, name

    def test_every_operation_has_its_rows(self, operations: dict[str, tuple[str, str, Operation]]) -> None:
        assert set(ROWS) == set(operations)

    def test_every_operation_is_asked_for_own_foreign_and_unknown_things(
        self, operations: dict[str, tuple[str, str, Operation]]
    ) -> None:
        for name, (_, pattern, _) in operations.items():
            objects = [row.object for row in ROWS[name]]
            variables = set(re.findall(r"<(?:\w+:)?(\w+)>", pattern))
            if name in NAMED_IN_THE_BODY:
                assert objects == ["own", "foreign"], name
            elif variables & PERSONAL:
                assert objects == ["own", "foreign", "unknown"], name
            else:
                assert objects == (["any", "unknown"] if variables else ["-"]), name

    def test_whoever_may_is_seen_to_succeed(self) -> None:
        """Or a service that refuses everybody would pass."""
        for name, found in ROWS.items():
            assert any(200 <= status < 300 for status in found[0].statuses.values()), name

    def test_every_role_is_asked(self) -> None:
        assert (*auth.ROLES, "nobody") == CALLERS


class TestWithoutCredentials:
    def test_only_the_written_list_is_open(self, operations: dict[str, tuple[str, str, Operation]]) -> None:
        assert {name for name, (_, _, declared) in operations.items() if declared.permission == PUBLIC} == OPEN
        assert {name for name, found in ROWS.items() if all(row.statuses["nobody"] != 401 for row in found)} == OPEN

    def test_nobody_is_told_how_to_sign_in_before_the_body_is_looked_at(
        self, app: Flask, operations: dict[str, tuple[str, str, Operation]]
    ) -> None:
        for name in sorted(set(operations) - OPEN):
            answer = send(app, None, operations[name], Ask(body=b"{"))
            assert (answer.status_code, answer.json["code"]) == (401, "unauthenticated"), name
            assert answer.headers["WWW-Authenticate"].startswith("Bearer"), name
