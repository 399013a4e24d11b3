"""What the code says twice, in Python and in the database, is the same."""

from importlib import import_module

import peewee
import pytest
from flask import Flask

from fleet import errors
from fleet.db import Statement, db
from fleet.models.base import Model
from fleet.rules import lifecycles
from fleet.rules.postings import CHART
from tests import source

TYPES = {
    "UUID": "uuid",
    "TEXT": "text",
    "INT": "integer",
    "SMALLINT": "smallint",
    "BIGINT": "bigint",
    "DATE": "date",
    "TIMESTAMPTZ": "timestamp with time zone",
    "BLOB": "bytea",
    "JSONB": "jsonb",
    "BOOL": "boolean",
    "TSTZRANGE": "tstzrange",
}

# Unique rules that no input of a client can break.
MADE_BY_US = {
    "api_key_hash_key": "a digest of 256 random bits",
    "rental_number_key": "drawn from a sequence",
    "invoice_number_key": "drawn from a locked counter",
    "vehicle_block_rental_key": "a rental makes its one block itself",
    "vehicle_class_id_currency": "the id alone is unique",
    "audit_seal_event_key": "sealed by the one sealer, from what has no seal",
    "event_position_key": "counted by the sequencer",
    "webhook_delivery_once": "an event gets its place once, and is queued with it",
    "invoice_owner_currency": "the id alone is unique",
    "payment_gateway_reference_key": "given by the gateway to the one payment that it was asked for",
    "refund_gateway_reference_key": "given by the gateway to the one refund that it was asked for",
    "dispute_gateway_reference_key": "looked up under the lock of its payment",
    "dispute_one_open": "a payment that is disputed cannot be disputed again",
    "schema_migration_name": "written by migrations",
}

Column = tuple[str, bool]


def models() -> list[type[Model]]:
    """Every table that the code reads as a model: all subclasses with a table of their own."""
    found, families = [], [Model]
    while families:
        family = families.pop()
        families += family.__subclasses__()
        found += [family] if family.__module__ != "fleet.models.base" else []
    return sorted(found, key=lambda model: model._meta.table_name)


def columns_of(table: str) -> dict[str, Column]:
    """A table's columns with their type and whether they may be NULL."""
    rows = db.rows(
        "SELECT column_name, data_type, is_nullable = 'YES' FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name = %s",
        (table,),
    )
    return {name: (kind, nullable) for name, kind, nullable in rows}


def told_by(field: peewee.Field) -> Column:
    """The type and nullability that a field expects of its column."""
    if type(field).__name__ == "ArrayField":
        return "ARRAY", field.null
    kind = field.rel_field.field_type if isinstance(field, peewee.ForeignKeyField) else field.field_type
    return TYPES[kind], field.null


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_a_model_is_its_table(app: Flask, model: type[Model]) -> None:
    columns = columns_of(model._meta.table_name)
    fields = {field.column_name: told_by(field) for field in model._meta.sorted_fields}
    assert fields == {name: columns.get(name) for name in fields}


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_a_model_leaves_out_only_what_the_database_fills_in(app: Flask, model: type[Model]) -> None:
    table = model._meta.table_name
    needed = db.rows(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s "
        "AND is_nullable = 'NO' AND column_default IS NULL AND is_identity = 'NO' AND is_generated = 'NEVER'",
        (table,),
    )
    assert {name for (name,) in needed} - {field.column_name for field in model._meta.sorted_fields} == set()


def test_the_database_allows_the_transitions_that_the_rules_allow(app: Flask) -> None:
    kept = set(db.rows("SELECT thing, from_status, to_status FROM lifecycle_transition"))
    drawn = {
        (lifecycle.thing, old, new)
        for lifecycle in vars(lifecycles).values()
        if isinstance(lifecycle, lifecycles.Lifecycle)
        for old, following in lifecycle.transitions.items()
        for new in following
    }
    assert kept == drawn


def test_every_lifecycle_is_guarded_by_the_database(app: Flask) -> None:
    things = {item.thing for item in vars(lifecycles).values() if isinstance(item, lifecycles.Lifecycle)}
    guarded = db.rows("SELECT tgname FROM pg_trigger WHERE tgname LIKE '%%_transition'")
    assert {name for (name,) in guarded} == {f"{thing}_transition" for thing in things}


@pytest.mark.parametrize("thing", ["vehicle", "rental", "invoice", "webhook_delivery", "payment", "refund", "dispute"])
def test_the_states_that_a_table_takes_are_those_of_its_lifecycle(app: Flask, thing: str) -> None:
    found = db.one("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", (f"{thing}_status",))
    assert found is not None
    lifecycle = getattr(lifecycles, thing)
    assert set(found[0].split("'")[1::2]) == lifecycle.states


def test_the_chart_of_accounts_is_the_one_that_the_rules_post_to(app: Flask, fresh_database: None) -> None:
    kept = set(db.rows("SELECT code, name, kind, normal_side, contra FROM ledger_account"))
    assert kept == {(item.code, item.name, item.kind, item.normal_side, item.contra) for item in CHART}


def test_every_constraint_that_has_an_error_exists(app: Flask) -> None:
    rows = db.rows(
        "SELECT conname FROM pg_constraint UNION SELECT relname FROM pg_class WHERE relkind = 'i' "
        "UNION SELECT tgname FROM pg_trigger UNION "
        "SELECT (regexp_matches(prosrc, 'CONSTRAINT = ''(\\w+)''', 'g'))[1] FROM pg_proc"
    )
    assert set(errors.CONSTRAINTS) - {name for (name,) in rows} == set()


def test_every_unique_rule_over_input_has_an_error(app: Flask) -> None:
    """A duplicate that nobody mapped would be answered as our own defect."""
    rows = db.rows(
        "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid "
        "WHERE x.indisunique AND NOT x.indisprimary AND t.relnamespace = 'public'::regnamespace"
    )
    assert {name for (name,) in rows} - set(errors.CONSTRAINTS) - set(MADE_BY_US) == set()


def test_every_constraint_has_a_name_of_its_own(app: Flask) -> None:
    """Names that PostgreSQL makes up (`table_check1`) mean nothing to whoever reads the log."""
    rows = db.rows("SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace")
    assert not [name for (name,) in rows if name.endswith(("_check", "_check1", "_check2"))]


def test_statements_prepared_under_one_name_are_one_statement() -> None:
    from_models = [text for name in source.of_room("fleet.models") for text in statement_names(name)]
    assert len(from_models) == len(set(from_models))


def statement_names(name: str) -> list[str]:
    """The names under which a file prepares statements."""
    return [item.name for item in vars(import_module(name)).values() if isinstance(item, Statement)]
