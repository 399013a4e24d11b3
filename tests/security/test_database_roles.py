"""The service runs as a role that owns nothing: whatever it could be made to say, the books and the audit log stay."""

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import peewee
import psycopg2
import pytest
from flask import Flask
from psycopg2 import errors

from fleet import clock, grants
from fleet.config import Settings
from fleet.db import db, refuse_superuser
from fleet.embedded import Databases
from fleet.models.base import Model
from fleet.services import audit_chain, calendar, ledger, no_shows, outbox, reminders, reservations, retention
from tests import source
from tests.books import issued
from tests.cast import Cast
from tests.money import pay
from tests.races.scenes import reserved


@contextmanager
def connected(url: str) -> Iterator[Any]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        yield cursor


def refusal(url: str, sql: str) -> type[Exception]:
    """How a statement of this role ends."""
    with connected(url) as cursor, pytest.raises(psycopg2.Error) as refused:
        cursor.execute(sql)
    return refused.type


@pytest.fixture
def as_the_service(app: Flask, settings: Settings, databases: Databases) -> Iterator[None]:
    """This process goes on as the role that the service runs as."""
    db.close()
    db.configure(settings, url=databases.runtime_url)
    assert db.one("SELECT current_user") == (grants.RUNTIME,)
    yield
    db.close()
    db.configure(settings)


KEPT = ("audit_event", "audit_seal", "journal_entry", "journal_line", "invoice_line")
TO_WHAT_IS_KEPT = {
    "delete": "DELETE FROM {}",
    "empty": "TRUNCATE {} CASCADE",
    "disarm": "ALTER TABLE {} DISABLE TRIGGER ALL",
    "drop": "DROP TABLE {}",
}
FORBIDDEN = {
    **{f"{verb} {table}": sql.format(table) for table in KEPT for verb, sql in TO_WHAT_IS_KEPT.items()},
    "change audit_event": "UPDATE audit_event SET actor = 'cli:nobody'",
    "change audit_seal": "UPDATE audit_seal SET hash = previous",
    "change audit_unsealed": "UPDATE audit_unsealed SET event_id = event_id",
    "change journal_entry": "UPDATE journal_entry SET memo = ''",
    "change journal_line": "UPDATE journal_line SET amount = 1",
    "change invoice_line": "UPDATE invoice_line SET net_amount = 1",
    "make an anchor": "INSERT INTO audit_anchor SELECT position, key_id, hash, hash FROM audit_seal",
    "delete an anchor": "DELETE FROM audit_anchor",
    "delete an invoice": "DELETE FROM invoice",
    "delete a payment": "DELETE FROM payment",
    "delete a rental": "DELETE FROM rental",
    "delete a user": "DELETE FROM user_account",
    "empty the outbox": "TRUNCATE outbox",
    "reset a number": "SELECT setval('rental_number', 1)",
    "open a period": "INSERT INTO fiscal_period (span) VALUES ('[2090-01-01,2091-01-01)')",
    "move a period": "UPDATE fiscal_period SET span = span",
    "allow a transition": "INSERT INTO lifecycle_transition VALUES ('invoice', 'paid', 'open')",
    "change the tax": "UPDATE tax_code SET rate_bps = 0",
    "make a table": "CREATE TABLE mine (id integer)",
    "make a table for now": "CREATE TEMPORARY TABLE mine (id integer)",
    "make a function": "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "replace a guard": "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
    "drop a constraint": "ALTER TABLE payment DROP CONSTRAINT payment_not_overrefunded",
    "add a trigger": "CREATE TRIGGER mine BEFORE INSERT ON rental FOR EACH ROW EXECUTE FUNCTION refuse_change()",
    "make a schema": "CREATE SCHEMA mine",
    "make a role": "CREATE ROLE mine",
    "make an extension": "CREATE EXTENSION pg_trgm",
    "become the owner": "SET ROLE fleet",
    "put the guards aside": "SET session_replication_role = replica",
    "read the passwords of roles": "SELECT rolpassword FROM pg_authid",
    "run a program": "COPY (SELECT 1) TO PROGRAM 'true'",
    "read a file": "SELECT pg_read_file('/etc/passwd')",
    "end another session": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
}  # fmt: skip


@pytest.mark.parametrize("deed", FORBIDDEN)
def test_the_service_may_not(app: Flask, databases: Databases, deed: str) -> None:
    assert refusal(databases.runtime_url, FORBIDDEN[deed]) is errors.InsufficientPrivilege


def test_a_right_given_by_one_who_has_none_has_no_effect(app: Flask, databases: Databases) -> None:
    with connected(databases.runtime_url) as cursor:
        cursor.execute("GRANT DELETE ON audit_event TO fleet_report")
        cursor.execute("SELECT has_table_privilege('fleet_report', 'audit_event', 'DELETE')")
        assert cursor.fetchone() == (False,)


def test_neither_role_owns_or_is_above_anything(app: Flask, databases: Databases) -> None:
    owned = "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = current_user::regrole"
    able = """SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        OR EXISTS (SELECT FROM pg_auth_members m WHERE m.member = r.oid) FROM pg_roles r WHERE rolname = current_user"""
    for url in (databases.runtime_url, databases.report_url):
        with connected(url) as cursor:
            for sql, expected in ((owned, 0), (able, False)):
                cursor.execute(sql)
                assert cursor.fetchone() == (expected,)


def test_whoever_connects_by_hand_is_bounded_too(app: Flask, databases: Databases) -> None:
    for url in (databases.runtime_url, databases.report_url):
        with connected(url) as cursor:
            for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
                cursor.execute(f"SHOW {setting}")
                assert cursor.fetchone() != ("0",), setting


class TestReports:
    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT password_hash FROM user_account", "SELECT key_hash FROM api_key", "SELECT secret FROM webhook_endpoint",
            "SELECT previous_secret FROM webhook_endpoint", "SELECT * FROM user_account", "SELECT * FROM refresh_token",
            "SELECT * FROM login_throttle", "SELECT * FROM idempotency_record", "SELECT driver_license_number FROM customer",
            "SELECT date_of_birth FROM customer", "SELECT nextval('rental_number')",
        ],
    )  # fmt: skip
    def test_no_secret_is_shown(self, app: Flask, databases: Databases, sql: str) -> None:
        assert issubclass(refusal(databases.report_url, sql), errors.InsufficientPrivilege | errors.ReadOnlySqlTransaction)

    @pytest.mark.parametrize("table", ["rental", "audit_event", "journal_line", "branch"])
    def test_nothing_is_changed(self, app: Flask, databases: Databases, table: str) -> None:
        with connected(databases.report_url) as cursor:
            cursor.execute("SET default_transaction_read_only = off")
            cursor.connection.commit()
            cursor.execute(f"SELECT count(*) FROM {table}")
            with pytest.raises(errors.InsufficientPrivilege):
                cursor.execute(f"DELETE FROM {table}")

    def test_what_no_line_names_is_not_reported(self, app: Flask, databases: Databases) -> None:
        rows = db.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        seen = "SELECT has_any_column_privilege('fleet_report', %s::regclass, 'SELECT')"
        assert {name for (name,) in rows if db.one(seen, (name,)) == (True,)} == grants.REPORTED


class TestGrants:
    def test_they_name_tables_that_there_are(self, app: Flask) -> None:
        rows = db.rows("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")
        tables = {name for (name,) in rows}
        assert grants.ADDED_TO | grants.READ | set(grants.CHANGED_IN) | grants.DELETED_FROM | grants.REPORTED <= tables

    def test_nobody_else_has_any_right(self, app: Flask) -> None:
        held = db.rows(
            "SELECT DISTINCT grantee, privilege_type FROM information_schema.role_table_grants "
            "WHERE table_schema = 'public' AND grantee NOT IN ('fleet', 'postgres')"
        )
        assert {who for who, _ in held} <= {grants.RUNTIME, grants.REPORT}
        assert {right for _, right in held} <= {"SELECT", "INSERT", "UPDATE", "DELETE"}

    def test_what_the_code_says_it_may_do(self, app: Flask) -> None:
        """Each statement that the service holds, and each model that it creates, changes or deletes."""
        lacking = {
            f"{name}: {verb} {table}"
            for name in [*source.of_room("fleet"), *source.of_room("tasks")]
            if not name.startswith(("fleet.migrations", "fleet.demo", "fleet.embedded", "fleet.grants", "fleet.cli"))
            for verb, table in said(name)
            if verb not in grants.rights_on(table)
        }
        assert lacking == BY_THE_OWNER

    def test_a_database_without_the_roles_is_left_alone(self, app: Flask) -> None:
        assert grants.roles_among({"nobody_of_this_name", "postgres", "fleet"}) == set()


class TestTablesToCome:
    """Between the migration that makes a table and the grants, the release before runs on, and triggers write for it."""

    @pytest.fixture(autouse=True)
    def newcomer(self, app: Flask) -> Iterator[None]:
        db.execute_sql("CREATE TABLE newcomer (id bigserial, said text)")
        db.execute_sql("CREATE VIEW newcomers AS SELECT * FROM newcomer")
        yield
        db.execute_sql("DROP TABLE newcomer CASCADE")

    def test_the_service_can_use_them_at_once(self, databases: Databases) -> None:
        with connected(databases.runtime_url) as cursor:
            cursor.execute("INSERT INTO newcomer (said) VALUES ('here'); UPDATE newcomer SET said = 'still here'")
            cursor.execute("SELECT said FROM newcomer")
            assert cursor.fetchone() == ("still here",)

    @pytest.mark.parametrize("deed", ["DELETE FROM newcomer", "TRUNCATE newcomer", "DROP TABLE newcomer"])
    def test_but_not_empty_or_drop_them(self, databases: Databases, deed: str) -> None:
        assert refusal(databases.runtime_url, deed) is errors.InsufficientPrivilege

    def test_reports_do_not_show_them(self, databases: Databases) -> None:
        assert refusal(databases.report_url, "SELECT said FROM newcomer") is errors.InsufficientPrivilege

    def test_the_grants_take_what_no_line_gives(
        self, settings: Settings, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(grants, "ADDED_TO", grants.ADDED_TO | {"newcomer"})
        grants.apply(settings)
        assert refusal(databases.runtime_url, "UPDATE newcomer SET said = ''") is errors.InsufficientPrivilege
        assert refusal(databases.runtime_url, "UPDATE newcomers SET said = ''") is errors.InsufficientPrivilege
        with connected(databases.runtime_url) as cursor:
            cursor.execute("INSERT INTO newcomer (said) VALUES ('here')")


# `flask audit prune`, which only the owner of the tables can run.
BY_THE_OWNER = {
    "fleet.models.audit: DELETE audit_event",
    "fleet.models.audit: DELETE audit_seal",
    "fleet.models.audit: INSERT audit_anchor",
}
_SAID = re.compile(r"\b(DELETE FROM|INSERT INTO|UPDATE) ([a-z_]+)\b(?! OF| SKIP)")
_DONE = {"delete": "DELETE", "delete_instance": "DELETE", "update": "UPDATE", "create": "INSERT", "insert_many": "INSERT"}


def said(name: str) -> Iterator[tuple[str, str]]:
    tables = {model.__name__: model._meta.table_name for model in models()}
    for text in source.strings(name):
        for verb, table in _SAID.findall(text):
            if table in tables.values() or table.startswith("audit_"):
                yield verb.partition(" ")[0], table
    for model, deed in re.findall(r"\b([A-Z]\w+)\.(\w+)\(", ast.unparse(source.files()[name])):
        if model in tables and deed in _DONE:
            yield _DONE[deed], tables[model]


def models() -> list[type[Model]]:
    found, families = [], [Model]
    while families:
        family = families.pop()
        families += family.__subclasses__()
        found += [family] if family.__module__ != "fleet.models.base" else []
    return found


SWEEPS: list[Callable[[], object]] = [
    reservations.expire_holds, calendar.extend_overdue, no_shows.give_up, reminders.promise_due, outbox.bury_exhausted,
    retention.forget_old, audit_chain.seal,
]  # fmt: skip


class TestTheService:
    """And what it has to do, it can: the paths that touch most tables, with the rights of its own role."""

    def test_it_says_when_it_owns_its_tables(self, cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
        refuse_superuser()
        assert "the service owns its tables" in caplog.text

    def test_and_is_silent_when_it_does_not(self, as_the_service: None, caplog: pytest.LogCaptureFixture) -> None:
        refuse_superuser()
        assert not caplog.messages

    def test_a_rental_from_the_booking_to_the_books(self, cast: Cast, as_the_service: None) -> None:
        rental = reserved(cast, 1, 2)
        assert cast.ana.post(f"{rental}/cancel").status_code == 200
        invoice = issued(cast)
        assert ledger.post_invoices([invoice.id]) == 1
        assert pay(cast.agent, invoice).status_code == 201

    def test_an_administrators_day(self, cast: Cast, as_the_service: None) -> None:
        assert cast.manager.delete(f"/v1/vehicles/{cast.vehicle()}", version="1").status_code == 204
        porto = {"code": "OPO", "name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR"}
        branch = cast.manager.post("/v1/branches", porto)
        assert cast.manager.delete(branch.headers["Location"], version="1").status_code == 204
        assert cast.manager.get(f"/v1/customers/{cast.ana.customer_id}/export").status_code == 200
        erased = cast.manager.post(f"/v1/customers/{cast.ana.customer_id}/erase", key="1", version="1")
        assert erased.status_code == 200, erased.json
        assert audit_chain.seal() >= 4 and audit_chain.verify().holds

    def test_every_sweep(self, cast: Cast, as_the_service: None, caplog: pytest.LogCaptureFixture) -> None:
        for sweep in SWEEPS:
            sweep()
        assert not caplog.messages

    def test_retention_of_the_audit_log_takes_the_owner(self, cast: Cast, as_the_service: None) -> None:
        cast.admin.post("/v1/api-keys", {"name": "till", "permissions": ["vehicles.read"]})
        audit_chain.seal()
        with pytest.raises(peewee.ProgrammingError, match="permission denied"):
            audit_chain.prune(before=clock.now())
