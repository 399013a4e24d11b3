"""The double-entry ledger: accounts, entries and their lines. Entries are written once and never changed."""

from dataclasses import dataclass
from datetime import date
from typing import Any
from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import clock
from fleet.db import db
from fleet.models.base import Condition, Listing, Model
from fleet.rules.postings import Side


class LedgerAccount(Model):
    """An account of the chart. A contra account stands on the other side than its kind."""

    code = peewee.TextField(primary_key=True)
    name = peewee.TextField()
    kind = peewee.TextField()
    normal_side = peewee.TextField()
    contra = peewee.BooleanField(default=False)
    active = peewee.BooleanField(default=True)
    created_at = DateTimeTZField(default=clock.now)


@dataclass(frozen=True, slots=True)
class EntryLine:
    """One side of an entry: a positive amount in minor units of its currency."""

    account: str
    side: Side
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is about to be written. (source_type, source_id, event) names its fact, and each fact has one."""

    id: UUID
    booked_on: date
    memo: str
    source_type: str
    source_id: UUID
    event: str
    lines: tuple[EntryLine, ...]
    reverses_id: UUID | None = None
    recorded_by: UUID | None = None

    @property
    def line_count(self) -> int:
        return len(self.lines)


ENTRIES = Listing(
    columns={
        **{
            name: f"e.{name}"
            for name in (
                "id", "booked_on", "memo", "source_type", "source_id", "event", "reverses_id", "recorded_by",
                "created_at",
            )
        },
        "reversed_by_id": "r.id",
        "lines": """(SELECT jsonb_agg(jsonb_build_object('account', l.account_code, 'side', l.side,
            'amount', l.amount, 'currency', l.currency) ORDER BY l.position)
            FROM journal_line l WHERE l.entry_id = e.id)""",
    },
    source="journal_entry e LEFT JOIN journal_entry r ON r.reverses_id = e.id",
    key="e.id",
)  # fmt: skip


def touching(account: str) -> Condition:
    """Entries with a line on the account."""
    sql = "EXISTS (SELECT 1 FROM journal_line l WHERE l.entry_id = e.id AND l.account_code = %s)"
    return Condition(sql, (account,))


# One statement however many entries: what another delivery has posted already is left out, its lines with it. Postings
# of the same facts wait for one another here, in the order of the arrays, so callers give them in one order.
_WRITE = """
WITH entry AS (
    INSERT INTO journal_entry (id, booked_on, memo, source_type, source_id, event, line_count, reverses_id, recorded_by)
    SELECT * FROM unnest(%(id)s::uuid[], %(booked_on)s::date[], %(memo)s::text[], %(source_type)s::text[],
        %(source_id)s::uuid[], %(event)s::text[], %(line_count)s::int[], %(reverses_id)s::uuid[],
        %(recorded_by)s::uuid[])
    ON CONFLICT ON CONSTRAINT journal_entry_source_key DO NOTHING
    RETURNING id, booked_on
), line AS (
    INSERT INTO journal_line (entry_id, position, booked_on, account_code, side, amount, currency)
    SELECT entry.id, line.position, entry.booked_on, line.account, line.side, line.amount, line.currency
    FROM unnest(%(entry_id)s::uuid[], %(position)s::int[], %(account)s::text[], %(side)s::text[],
        %(amount)s::bigint[], %(currency)s::text[]) AS line (entry_id, position, account, side, amount, currency)
    JOIN entry ON entry.id = line.entry_id
)
SELECT id FROM entry
"""
_ENTRY_COLUMNS = (
    "id", "booked_on", "memo", "source_type", "source_id", "event", "line_count", "reverses_id", "recorded_by",
)  # fmt: skip


def write_entries(entries: list[Entry]) -> list[UUID]:
    """Write the entries whose facts have none yet; returns the ids of those."""
    lines = [(entry.id, position, line) for entry in entries for position, line in enumerate(entry.lines, 1)]
    columns: dict[str, list[Any]] = {name: [getattr(entry, name) for entry in entries] for name in _ENTRY_COLUMNS}
    columns["entry_id"] = [entry_id for entry_id, _, _ in lines]
    columns["position"] = [position for _, position, _ in lines]
    for name in ("account", "side", "amount", "currency"):
        columns[name] = [getattr(line, name) for _, _, line in lines]
    return [entry_id for (entry_id,) in db.rows(_WRITE, columns)]


_ACCOUNT_COLUMNS = ("code", "name", "kind", "normal_side", "contra", "active", "created_at")


def accounts_after(code: str, *, limit: int) -> list[dict[str, Any]]:
    """At most `limit` accounts in the order of their codes, from the one after `code` on."""
    rows = db.rows(
        f"SELECT {', '.join(_ACCOUNT_COLUMNS)} FROM ledger_account WHERE code > %s ORDER BY code LIMIT %s",
        (code, limit),
    )
    return [dict(zip(_ACCOUNT_COLUMNS, row, strict=True)) for row in rows]


_BALANCES = """
SELECT currency, coalesce(sum(amount) FILTER (WHERE side = 'debit'), 0)::bigint,
    coalesce(sum(amount) FILTER (WHERE side = 'credit'), 0)::bigint
FROM journal_line
WHERE account_code = %s AND booked_on <= coalesce(%s::date, 'infinity')
GROUP BY currency ORDER BY currency
"""


def balances_of(account: str, as_of: date | None) -> list[tuple[str, int, int]]:
    """(currency, debits, credits) of the account, booked up to and on the day; all of them without one."""
    return [(currency, debit, credit) for currency, debit, credit in db.rows(_BALANCES, (account, as_of))]
