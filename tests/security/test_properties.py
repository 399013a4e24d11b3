"""What the service keeps cannot be set by a body, and what is secret does not leave: asked of every model there is (API3)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from pydantic import BaseModel

from fleet import openapi
from fleet.db import db
from fleet.http import Operation
from fleet.models.base import Model
from tests.cast import Cast
from tests.endpoints import endpoint
from tests.security.matrix_scenes import SCENES, Ask, Stage
from tests.security.test_matrix import send

# Written by the service alone. Where a body may say one of them after all, it is said here, with the reason.
SERVER_OWNED = {
    "id", "role", "roles", "status", "version", "owner_id", "user_id", "customer_id", "created_by", "created_at", "updated_at",
    "deactivated_at", "erased_at", "retired_at", "number", "price", "base_amount", "total_amount", "net_amount", "tax_amount",
    "settled_amount", "pending_amount", "refunded_amount", "paid", "captured_at", "approved_by", "requested_by",
    "needs_approval", "password_hash", "key_hash", "token_hash", "secret",
}  # fmt: skip
SETTABLE = {
    ("CreateUser", "roles"): "an admin says who somebody is",
    ("SetRoles", "roles"): "an admin says who somebody is",
    ("RegisterVehicle", "status"): "new or in service, nothing else",
    ("MoveVehicle", "status"): "it is the transition that is asked for",
    ("ReplayLetters", "status"): "a filter",
    ("CreateCustomer", "user_id"): "staff say whose account it is; a customer is refused",
    ("ChangeCustomer", "user_id"): "staff say whose account it is; a customer is refused",
    ("ReserveRental", "customer_id"): "staff book for a customer; a customer for themself",
}
SECRET_NAME = re.compile(r"hash|password|secret|token|sealed|(^|_)key$|private|salt|pin$|cvc|cvv|card_number")
# What is shown once, when it is made, or to whom it belongs.
SHOWN = {
    ("NewApiKeyView", "key"): "at its creation",
    ("NewWebhookEndpointView", "secret"): "at its creation and rotation",
    ("TokensView", "access_token"): "at the sign-in",
    ("TokensView", "refresh_token"): "at the sign-in",
    ("PaymentBegun", "client_secret"): "to who pays",
    ("NewSecondFactorView", "secret"): "at its creation",
    ("TokensView", "token_type"): "the word Bearer",
    ("WebhookEndpointView", "previous_secret_until"): "a time",
    ("NewWebhookEndpointView", "previous_secret_until"): "a time",
}

Described = tuple[str, str, Operation]


@pytest.fixture(scope="module")
def operations(app: Flask) -> dict[str, Described]:
    found = openapi.operations(app)
    return {rule.endpoint.replace(".", "_"): (method, rule.rule, declared) for rule, method, declared, _ in found}


def models_inside(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model, and those of its fields."""
    yield model
    for inner in re.findall(r"#/\$defs/(\w+)", str(model.model_json_schema())):
        yield from (kind for kind in _all_of(BaseModel) if kind.__name__ == inner)


def _all_of(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in kind.__subclasses__():
        yield child
        yield from _all_of(child)


class TestWhatTheServiceKeeps:
    def test_no_body_has_a_field_of_the_services_own(self, operations: dict[str, Described]) -> None:
        bodies = {item.body for _, _, item in operations.values() if item.body}
        found = {(kind.__name__, name) for body in bodies for kind in models_inside(body) for name in kind.model_fields}
        assert {pair for pair in found if pair[1] in SERVER_OWNED} == set(SETTABLE)

    def test_a_body_that_sets_one_is_refused_and_changes_nothing(self, crew: Cast, operations: dict[str, Described]) -> None:
        """The body is right but for these fields, and sent by one who may do everything."""
        stage, asked = Stage(crew, crew.ben, crew.admin), 0
        for name, (_, _, declared) in operations.items():
            if declared.body is None:
                continue
            ask = SCENES[name](stage)
            foreign = SERVER_OWNED - set(declared.body.model_fields)
            body = {**ask.body, **dict.fromkeys(foreign, "1")}
            answer = send(crew.app, ask.by or crew.admin, operations[name], Ask(ask.ids, body))
            told = {item["field"] for item in answer.json["errors"] if item["code"] == "unknown_field"}
            assert (answer.status_code, answer.json["code"], told) == (422, "unknown_field", foreign), name
            asked += 1
        assert asked > 30

    def test_every_body_refuses_what_it_does_not_know(self, operations: dict[str, Described]) -> None:
        for _, _, declared in operations.values():
            for kind in models_inside(declared.body) if declared.body else ():
                assert (kind.model_config["extra"], kind.model_config["strict"]) == ("forbid", True), kind


class TestWhatIsSecret:
    def test_no_answer_has_a_field_for_it(self, operations: dict[str, Described]) -> None:
        views = {item.answer for _, _, item in operations.values() if item.answer}
        found = {(kind.__name__, name) for view in views for kind in models_inside(view) for name in kind.model_fields}
        assert {pair for pair in found if SECRET_NAME.search(pair[1])} == set(SHOWN)

    def test_nothing_that_is_stored_of_it_is_in_any_answer_to_an_admin(
        self, crew: Cast, operations: dict[str, Described]
    ) -> None:
        """Every read there is, of things that have secrets, searched for all that lies in columns of secrets."""
        endpoint(crew, "https://203.0.114.7/hooks")
        reads = [name for name, (method, _, _) in operations.items() if method == "GET"]
        stages = {name: Stage(crew, crew.admin if name.startswith("api_keys") else crew.ben, crew.admin) for name in reads}
        asks = {name: SCENES[name](stage) if name in SCENES else Ask() for name, stage in stages.items()}
        hidden = stored_secrets()
        assert len(hidden) > 20
        for name, ask in asks.items():
            answer = send(crew.app, crew.admin, operations[name], ask)
            assert answer.status_code == 200, (name, answer.get_data())
            assert not [secret for secret in hidden if secret.encode() in answer.get_data()], name


def stored_secrets() -> set[str]:
    """All that lies in columns whose name says that it is secret, in the spellings in which it could leave."""
    columns = db.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' "
        "AND column_name ~ 'hash|secret|sealed|password|fingerprint' AND data_type IN ('text', 'bytea')"
    )
    assert {(table, column) for table, column, _ in columns} >= {
        ("user_account", "password_hash"), ("api_key", "key_hash"), ("refresh_token", "token_hash"),
    }  # fmt: skip
    found: set[str] = set()
    for table, column, kind in columns:
        spelled = (f"encode({column}, 'hex')", f"encode({column}, 'base64')") if kind == "bytea" else (column,)
        for sql in spelled:
            found |= {value for (value,) in db.rows(f"SELECT {sql} FROM {table} WHERE {column} IS NOT NULL") if len(value) > 8}
    return found


def test_the_books_and_the_log_have_no_operation_that_changes_them(operations: dict[str, Described]) -> None:
    writes = {
        (method, pattern)
        for method, pattern, _ in operations.values()
        if re.search(r"/(ledger|audit-events|events|invoices|notifications)(/|$)", pattern) and method != "GET"
    }
    assert writes == {
        ("POST", "/v1/ledger/entries"), ("POST", "/v1/ledger/accounts"),
        ("POST", "/v1/ledger/entries/<uuid:entry_id>/reverse"),
    }  # fmt: skip


PAN = "4242 4242 4242 4242"


@pytest.mark.parametrize("number", [PAN, PAN.replace(" ", ""), PAN.replace(" ", "-"), "5555555555554444", "378282246310005"])
def test_a_card_number_is_accepted_in_no_words_of_a_payment(crew: Cast, operations: dict[str, Described], number: str) -> None:
    for name, field in (("payments_create", "reference"), ("payments_request_refund", "reason")):
        ask = SCENES[name](Stage(crew, crew.ben, crew.agent))
        words: Any = f"paid with {number}"
        answer = send(crew.app, crew.agent, operations[name], Ask(ask.ids, {**ask.body, field: words}))
        assert (answer.status_code, answer.json["errors"][0]["field"]) == (422, field)
        assert number not in answer.get_data(as_text=True)


def test_no_model_of_a_payment_has_a_place_for_a_cards_number_or_code(operations: dict[str, Described]) -> None:
    names = {name for _, _, item in operations.values() if item.body for name in item.body.model_fields}
    columns = {name for kind in Model.__subclasses__() for name in kind._meta.fields}
    assert not {name for name in names | columns if re.search(r"cvc|cvv|pan$|card_number|expiry_month|exp_", name)}
