"""A migration is applied while the release before it runs: it takes nothing away from it, and locks no table for long."""

import re
from pathlib import Path

import pytest

from tests.source import ROOT

FILES = sorted((ROOT / "fleet" / "migrations").glob("0*.py"))

# What the release before cannot bear, or what looks through a whole table under its lock.
FORBIDDEN = {
    "a column is dropped": r"\bDROP COLUMN\b",
    "a table is dropped": r"\bDROP TABLE\b",
    "something is renamed": r"\bRENAME (?:TO|COLUMN|CONSTRAINT)\b",
    "a column changes its type": r"\bALTER COLUMN \w+ (?:SET DATA )?TYPE\b",
    "a column must be filled in from now on": r"\bALTER COLUMN \w+ SET NOT NULL\b",
    "a default is taken away": r"\bALTER COLUMN \w+ DROP DEFAULT\b",
    "a new column has to be filled in": (
        r"\bADD COLUMN (?:IF NOT EXISTS )?\w+ (?:(?!,|;|DEFAULT).)*NOT NULL(?!(?:(?!,|;).)*DEFAULT)"
    ),
}
NEW_TABLE = re.compile(r"\bCREATE TABLE (?:IF NOT EXISTS )?(\w+)", re.IGNORECASE)
INDEX = re.compile(r"\bCREATE (?:UNIQUE )?INDEX (?!CONCURRENTLY)(?:IF NOT EXISTS )?(\w+)\s+ON (\w+)", re.IGNORECASE)
ALTERED = re.compile(r"\bALTER TABLE (\w+)([^;]*);", re.IGNORECASE)
CONSTRAINT = re.compile(r"ADD CONSTRAINT (\w+) (?:CHECK|FOREIGN KEY|UNIQUE|EXCLUDE)", re.IGNORECASE)

# Of the time before the first release, when these tables had few rows anywhere.
EXCEPTIONS = {
    "0009_notifications: notification_rental: an index without CONCURRENTLY",
    "0009_notifications: notification_channel: a constraint without NOT VALID",
    "0009_notifications: notification_status: a constraint without NOT VALID",
    "0009_notifications: notification_skipped_why: a constraint without NOT VALID",
    "0010_process_reports: outbox_accounting_open: an index without CONCURRENTLY",
    "0012_payments: invoice_not_oversettled: a constraint without NOT VALID",
    "0012_payments: invoice_owner_currency: a constraint without NOT VALID",
    "0013_refund_letters: notification_preference_kinds: a constraint without NOT VALID",
    "0019_refunds_rejected_and_receipts: refund_by_status: an index without CONCURRENTLY",
    "0019_refunds_rejected_and_receipts: refund_status: a constraint without NOT VALID",
    "0019_refunds_rejected_and_receipts: refund_approved: a constraint without NOT VALID",
    "0019_refunds_rejected_and_receipts: refund_second_person: a constraint without NOT VALID",
    "0019_refunds_rejected_and_receipts: refund_rejected: a constraint without NOT VALID",
    "0019_refunds_rejected_and_receipts: notification_preference_kinds: a constraint without NOT VALID",
}


def found_wrong(sql: str) -> list[str]:
    """What in this text would disturb the release before."""
    new = {name.lower() for name in NEW_TABLE.findall(sql)}
    wrong = [why for why, pattern in FORBIDDEN.items() if re.search(pattern, sql, re.IGNORECASE | re.DOTALL)]
    wrong += [f"{name}: an index without CONCURRENTLY" for name, table in INDEX.findall(sql) if table.lower() not in new]
    for table, changes in ALTERED.findall(sql):
        for part in re.split(r"(?=ADD CONSTRAINT)", changes) if table.lower() not in new else []:
            if (added := CONSTRAINT.match(part)) and "NOT VALID" not in part.upper():
                wrong.append(f"{added[1]}: a constraint without NOT VALID")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_migration_does_not_disturb_the_release_before(path: Path) -> None:
    wrong = [f"{path.stem}: {one}" for one in found_wrong(path.read_text())]
    assert [one for one in wrong if one not in EXCEPTIONS] == []


def test_no_exception_outlives_its_cause() -> None:
    everything = {f"{path.stem}: {one}" for path in FILES for one in found_wrong(path.read_text())}
    assert set(EXCEPTIONS) - everything == set()


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE rental DROP COLUMN notes;",
        "ALTER TABLE rental RENAME COLUMN notes TO remarks;",
        "ALTER TABLE rental ALTER COLUMN notes SET NOT NULL;",
        "ALTER TABLE rental ADD COLUMN colour text NOT NULL;",
        "ALTER TABLE rental ADD CONSTRAINT rental_x CHECK (true);",
        "CREATE INDEX rental_x ON rental (id);",
    ],
)
def test_what_would_disturb_it_is_seen(sql: str) -> None:
    assert len(found_wrong(sql)) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE rental ADD COLUMN colour text NOT NULL DEFAULT 'red';",
        "ALTER TABLE rental ADD COLUMN colour text, ADD COLUMN shade text;",
        "ALTER TABLE rental ADD CONSTRAINT rental_x CHECK (true) NOT VALID;",
        "CREATE INDEX CONCURRENTLY rental_x ON rental (id);",
        "CREATE TABLE x (id uuid NOT NULL); CREATE INDEX x_y ON x (id);",
    ],
)
def test_what_does_not_is_let_pass(sql: str) -> None:
    assert found_wrong(sql) == []
