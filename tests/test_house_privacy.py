"""The table of what is personal is true: of the database, of retention, of exports and erasures, of masks."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from fleet.auth import SESSION_LIFETIME
from fleet.db import db
from fleet.idempotency import KEPT_HOURS
from fleet.models.sealed import SEALED
from fleet.rules.masking import COLUMNS_MASKED, MASK, masked
from fleet.rules.privacy import TABLES, Fate, Kind
from fleet.rules.throttle import HEALS_AFTER
from fleet.services import people, preferences, retention
from tests import privacy_page
from tests.books import SCRATCH, issued
from tests.cast import Cast, at, insert, iso

WORD = "Zanzibar"
# What says nothing without the row that it stands in, has a name that others have too, or is free text of the books.
NOT_BY_NAME = {
    "user_session.created_at", "api_key.name", "rental_charge.description", "invoice_line.description", "refund.reason",
}  # fmt: skip
SWEPT = {
    "outbox": retention.CONFIRMED_KEPT,
    "inbox": retention.RECEIVED_KEPT,
    "idempotency_record": timedelta(hours=KEPT_HOURS),
    "user_session": retention.SESSIONS_KEPT,
    "refresh_token": SESSION_LIFETIME,
    "account_token": retention.ACCOUNT_TOKENS_KEPT,
    "login_throttle": HEALS_AFTER,
    "webhook_delivery": retention.DELIVERIES_KEPT,
    "event": retention.EVENTS_KEPT,
    "process_report": retention.PROCESSES_KEPT,
}
Rows = list[dict[str, Any]]


def personal() -> list[tuple[str, str]]:
    return [(table, column) for table, said in TABLES.items() for column in said.people]


def test_every_column_of_every_table_is_classified_once(app: Flask) -> None:
    there = db.rows("SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'")
    said = [(table, column) for table, columns in TABLES.items() for column, _ in columns.kinds()]
    assert sorted(said) == sorted(there), "classify it in fleet/rules/privacy.py"


def test_rows_are_kept_as_long_as_is_said(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {table: said.kept for table, said in TABLES.items() if said.kept} == SWEPT
    monkeypatch.setattr(retention, "_in_batches", lambda past: dict.fromkeys(past, 0))
    assert retention.forget_old().keys() == {*SWEPT, "discarded"}
    assert f"{retention.DISCARDED_KEPT.days} days where somebody discarded it" in TABLES["outbox"].since


def test_what_is_said_to_be_encrypted_is_what_a_rotation_seals_anew() -> None:
    said = {(table, column) for table, columns in TABLES.items() for column in columns.sealed.split()}
    assert {(place.table, place.column) for place in SEALED} == said


@pytest.mark.parametrize(
    ("table", "column"),
    [(table, column) for table, said in TABLES.items() for column, kind in said.kinds() if kind is not Kind.PUBLIC
     and kind is not Kind.INTERNAL and f"{table}.{column}" not in NOT_BY_NAME],
)  # fmt: skip
def test_what_is_personal_or_secret_is_masked_in_audit_rows_and_logs(table: str, column: str) -> None:
    assert masked({column: WORD}) == {column: MASK}
    assert column in COLUMNS_MASKED


def test_every_exception_from_masking_is_a_column_and_is_needed() -> None:
    assert all(masked({name.partition(".")[2]: WORD}) != {name.partition(".")[2]: MASK} for name in NOT_BY_NAME)
    assert {tuple(name.split(".")) for name in NOT_BY_NAME} <= set(personal())


def test_the_page_says_what_the_table_says() -> None:
    assert privacy_page.PAGE.read_text() == privacy_page.page(), "run `python -m tests.privacy_page`"


@pytest.fixture
def ana(cast: Cast) -> Cast:
    """Ana, with a value in every personal column that belongs to a person."""
    person, customer_id = cast.ana, cast.ana.customer_id
    db.execute_sql("UPDATE user_account SET phone = '+351 210 000 001' WHERE id = %s", (person.user_id,))
    sensitive = {"address": WORD, "date_of_birth": "1990-02-28", "language": "de"}
    sets = ", ".join(f"{name} = %s" for name in sensitive)
    db.execute_sql(f"UPDATE customer SET {sets} WHERE id = %s", (*sensitive.values(), customer_id))
    key = {"name": WORD, "permissions": ["rentals.read"], "expires_at": iso(at(30))}
    secret = person.post("/v1/api-keys", key).json["key"]
    assert person.get("/v1/rentals", Authorization=f"Bearer {secret}").status_code == 200
    invoice = issued(cast, SCRATCH, notes=WORD, cancel_reason=WORD)
    insert("rental_charge", rental_id=invoice.rental_id, type="toll", description=WORD, amount=185)
    paid = {"invoice_id": str(invoice.id), "amount": 100, "currency": "EUR", "method": "cash", "reference": WORD}
    assert cast.agent.post("/v1/payments", paid, key="p").status_code == 201
    shown = preferences.shown(person.actor, customer_id).choices()  # type: ignore[arg-type]
    preferences.choose(person.actor, customer_id, expected_version=None, choices=shown)  # type: ignore[arg-type]
    person.get("/v1/auth/me")
    return cast


def found(place: str, tree: Any) -> list[Any]:
    """What stands at a path such as `invoices.lines.description`; a list on the way means each of its members."""
    if isinstance(tree, list):
        return [value for member in tree for value in found(place, member)]
    name, _, rest = place.partition(".")
    return found(rest, tree[name]) if rest else [tree[name]]


def test_an_export_has_every_personal_value_that_is_said_to_be_in_it(ana: Cast) -> None:
    answer = ana.ana.get(f"/v1/customers/{ana.ana.customer_id}/export")
    assert answer.status_code == 200
    for table, column in personal():
        held = TABLES[table].people[column]
        if held.export:
            assert any(found(held.export, answer.json)), f"{table}.{column} is not at {held.export}"
        else:
            assert held.why, f"{table}.{column}: why is it not in the export?"


def test_an_erasure_leaves_no_personal_value_but_what_is_said_to_be_kept(ana: Cast) -> None:
    before = {table: rows_of(table, ana) for table, _ in personal()}
    assert ana.manager.post(f"/v1/customers/{ana.ana.customer_id}/erase").status_code == 200
    for table, column in personal():
        held, rows = TABLES[table].people[column], before[table]
        after = {row["key"]: row for row in rows_of(table, ana)}
        was = {row["key"]: row[column] for row in rows if row[column] is not None}
        if held.fate is Fate.OVERWRITTEN:
            assert was and not [key for key, value in was.items() if after[key][column] == value], f"{table}.{column}"
        elif held.fate is Fate.DELETED:
            assert was and not was.keys() & after.keys(), f"{table}.{column}"
        elif held.fate is Fate.EXPIRES:
            assert TABLES[table].kept, f"{table}.{column} says that it goes, and nothing makes it go"
        else:
            assert held.why, f"{table}.{column}: why is it kept?"


OF_ANA = {
    "customer": "id = %(customer)s",
    "user_account": "id = %(user)s",
    "user_session": "user_id = %(user)s",
    "api_key": "user_id = %(user)s",
    "notification_preference": "customer_id = %(customer)s",
    "rental": "customer_id = %(customer)s",
    "idempotency_record": "actor = 'user:' || %(user)s OR encode(body, 'escape') LIKE '%%' || %(customer)s || '%%'",
}


def rows_of(table: str, cast: Cast) -> Rows:
    """Ana's rows of a table, each with a key to know it again by."""
    where = OF_ANA.get(table, "false")
    names = {"user": str(cast.ana.user_id), "customer": str(cast.ana.customer_id)}
    key = "customer_id" if table == "notification_preference" else "key" if table == "idempotency_record" else "id"
    columns = [*TABLES[table].people]
    listed = ", ".join(columns)
    rows = db.rows(f"SELECT {key if where != 'false' else 'NULL'}, {listed} FROM {table} WHERE {where}", names)
    return [{"key": row[0], **dict(zip(columns, row[1:], strict=True))} for row in rows]


def test_what_is_said_to_be_erased_is_looked_at() -> None:
    gone = {table for table, column in personal() if TABLES[table].people[column].fate in {Fate.OVERWRITTEN, Fate.DELETED}}
    assert gone <= set(OF_ANA)


@pytest.mark.parametrize("role", ["admin", "fleet_manager", "rental_agent", "accountant"])
def test_licence_and_birth_date_are_for_those_who_hand_over(ana: Cast, role: str) -> None:
    path = f"/v1/customers/{ana.ana.customer_id}"
    for shown in (ana.staff[role].get(path).json, *ana.staff[role].get("/v1/customers").json["data"]):
        if shown["id"] == str(ana.ana.customer_id):
            seen = {shown["driver_license_number"] is not None, shown["date_of_birth"] is not None}
            assert seen == {role != "accountant"}
    own = ana.ana.get(path).json
    assert own["driver_license_number"] and own["date_of_birth"] == "1990-02-28"


def test_who_hands_nothing_over_sees_no_renter(ana: Cast) -> None:
    assert set(people._IDENTITY) == {name for name, held in TABLES["customer"].people.items() if held.kind is Kind.SENSITIVE}
    for person in (ana.mechanic, ana.driver, ana.ben):
        assert person.get(f"/v1/customers/{ana.ana.customer_id}").status_code in {403, 404}
