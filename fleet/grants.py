"""What each role may do in the database: the runtime role what the service does, the report role reading, nobody else anything.

Given anew after each `db upgrade`, in one transaction, from the tables below: a table that no line names can be read, added
to and changed by the service, and is not seen by reports. So what deletes has to be said here, and what is reported too.
"""

import re

from playhouse.db_url import parse

from fleet.config import Settings
from fleet.db import db

RUNTIME, REPORT = "fleet_runtime", "fleet_report"

# Written once. The guards of these tables refuse more than the grants do; each holds without the other.
ADDED_TO = {
    "audit_event", "audit_seal", "audit_unsealed", "invoice_line", "journal_entry", "journal_line", "ledger_account",
    "odometer_reading", "rental_charge",
}  # fmt: skip
# Filled by migrations and by what only the owner runs.
READ = {"audit_anchor", "lifecycle_transition", "schema_migration", "tax_code"}
# To lock a period while something is booked in it takes the right to change a column of it.
CHANGED_IN = {"fiscal_period": "closed_at"}
# Where rows go when their time is over, or when nothing refers to them.
DELETED_FROM = {
    "account_token", "audit_unsealed", "branch", "event", "idempotency_record", "inbox", "login_throttle",
    "notification_preference", "outbox", "process_report", "recovery_code", "refresh_token", "second_factor", "user_session",
    "vehicle", "vehicle_class", "webhook_delivery",
}  # fmt: skip

REPORTED = {
    "api_key", "audit_anchor", "audit_event", "audit_seal", "branch", "customer", "dispute", "event", "fiscal_period",
    "invoice", "invoice_line", "journal_entry", "journal_line", "ledger_account", "lifecycle_transition", "notification",
    "odometer_reading", "outbox", "payment", "process_report", "refund", "rental", "rental_charge", "tax_code",
    "user_account", "vehicle", "vehicle_block", "vehicle_class", "webhook_delivery", "webhook_endpoint",
}  # fmt: skip
# No secret, no digest of one, and not what the API shows to those alone who hand a vehicle over.
HIDDEN_WORDS = re.compile(r"password|secret|token|key_hash|fingerprint|driver_license|date_of_birth")

ROLES = """
SELECT rolname FROM pg_roles
WHERE rolname = ANY (%s) AND rolname <> current_user AND NOT rolsuper
    AND NOT pg_has_role(rolname, (SELECT datdba FROM pg_database WHERE datname = current_database()), 'MEMBER')
"""
COLUMNS = """
SELECT c.relname, array_agg(a.attname ORDER BY a.attnum)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND pg_has_role(c.relowner, 'USAGE')
GROUP BY c.relname
"""
# All that PostgreSQL means by the tables of a default privilege, views too: these have nothing but what was given beforehand.
OWNED = """
SELECT relname FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f') AND pg_has_role(relowner, 'USAGE')
"""


def expect_tables(settings: Settings) -> None:
    """Let the runtime role use the tables that the owner makes from now on, until `apply` says what it may do with each.

    For migrations: a trigger of an old table may write a new one as soon as that is committed, and acts for the release that
    runs beside it, which would else be refused until the grants are given.
    """
    with db.atomic():
        for role in _runtime_roles(settings):
            for rights in ("SELECT, INSERT, UPDATE ON TABLES", "USAGE ON SEQUENCES"):
                db.execute_sql(f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {rights} TO {_quoted(role)}")


def apply(settings: Settings) -> list[str]:
    """Give the roles that there are what they may do, as the owner of the tables; returns their names.

    The runtime role is `fleet_runtime`, and whoever DATABASE_URL names, where that is not the owner: on rented servers the
    names are not ours to choose.
    """
    runtime = _runtime_roles(settings)
    reporting = roles_among({REPORT}) - runtime
    columns: dict[str, list[str]] = dict(db.rows(COLUMNS))
    owned = [name for (name,) in db.rows(OWNED)]
    with db.atomic():
        # Both are everybody's by PostgreSQL's own default, or were before its version 15.
        db.execute_sql("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        db.execute_sql(f"REVOKE TEMPORARY ON DATABASE {_quoted(db_name())} FROM PUBLIC")
        for role in runtime | reporting:
            _take_all(role, owned)
        for role in runtime:
            for statement in to_runtime(list(columns)):
                db.execute_sql(f"{statement} TO {_quoted(role)}")
        for role in reporting:
            for statement in to_report(columns):
                db.execute_sql(f"{statement} TO {_quoted(role)}")
    return sorted(runtime | reporting)


def _runtime_roles(settings: Settings) -> set[str]:
    return roles_among({RUNTIME, parse(settings.database_url).get("user") or RUNTIME})


def roles_among(names: set[str]) -> set[str]:
    """Those that exist and are neither the owner nor above the owner, from whom nothing could be taken."""
    return {name for (name,) in db.rows(ROLES, (sorted(names),))}


def to_runtime(tables: list[str]) -> list[str]:
    """What the service may do, as statements without their TO."""
    return [
        "GRANT USAGE ON SCHEMA public",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public",
        *(f"GRANT {rights_on(table)} ON TABLE {_quoted(table)}" for table in tables),
    ]


def rights_on(table: str) -> str:
    """The runtime role's rights on a table. TRUNCATE, TRIGGER and REFERENCES are never among them."""
    if table in READ:
        return "SELECT"
    if table in CHANGED_IN:
        return f"SELECT, UPDATE ({CHANGED_IN[table]})"
    rights = "SELECT, INSERT" if table in ADDED_TO else "SELECT, INSERT, UPDATE"
    return f"{rights}, DELETE" if table in DELETED_FROM else rights


def to_report(columns: dict[str, list[str]]) -> list[str]:
    """What reports may read, as statements without their TO."""
    shown = {table: [name for name in columns[table] if not HIDDEN_WORDS.search(name)] for table in REPORTED & set(columns)}
    return [
        "GRANT USAGE ON SCHEMA public",
        *(f"GRANT SELECT ({', '.join(map(_quoted, names))}) ON TABLE {_quoted(table)}" for table, names in shown.items()),
    ]


def _take_all(role: str, tables: list[str]) -> None:
    named = ", ".join(map(_quoted, tables))
    db.execute_sql(f"REVOKE ALL ON TABLE {named} FROM {_quoted(role)}")
    db.execute_sql(f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM {_quoted(role)}")


def db_name() -> str:
    """The database that we are in."""
    [(name,)] = db.rows("SELECT current_database()")
    return str(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""').replace("%", "%%") + '"'
