"""Keeping the books: the chart, balances, the journal, and the entries that issued invoices make."""

from collections import defaultdict
from datetime import date
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import Row, atomic, db
from fleet.errors import Conflict, FieldError, Invalid, NotFound
from fleet.models.base import Condition
from fleet.models.invoices import TO_POST
from fleet.models.ledger import (
    ENTRIES,
    Entry,
    EntryLine,
    LedgerAccount,
    accounts_after,
    balances_of,
    touching,
    write_entries,
)
from fleet.rules.postings import NORMAL_SIDE, OPPOSITE, Kind, PostingLine, Unbalanced, check_balanced, invoice_issued
from fleet.rules.pricing import Line, TaxedLine
from fleet.services import audit, events

MAX_MEMO_LENGTH = 200


def accounts_listed(actor: Actor, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of the chart, in the order of the codes. A code stands for its place in the shape of an id, as cursors do."""
    rows = accounts_after("" if after is None else f"{after.int:04d}", limit=limit + 1)
    return [{**row, "id": UUID(int=int(row["code"]))} for row in rows]


@atomic
def open_account(actor: Actor, *, code: str, name: str, kind: Kind, contra: bool) -> LedgerAccount:
    """Add an account to the chart. Raises Conflict `duplicate` for a code that is taken."""
    side = NORMAL_SIDE[kind]
    account: LedgerAccount = LedgerAccount.create(
        code=code, name=name, kind=kind, normal_side=OPPOSITE[side] if contra else side, contra=contra
    )
    about = {"account": code, "name": name, "kind": kind, "contra": contra}
    audit.record(actor, "ledger.open_account", "ledger_account", code, after=about)
    return account


def balance(actor: Actor, code: str, *, as_of: date | None) -> dict[str, Any]:
    """What stands on an account, by currency, up to and on a day. Raises NotFound."""
    account = LedgerAccount.get_or_none(LedgerAccount.code == code)
    if account is None:
        raise NotFound()
    balances = [
        {
            "currency": currency,
            "debit": debit,
            "credit": credit,
            "balance": debit - credit if account.normal_side == "debit" else credit - debit,
        }
        for currency, debit, credit in balances_of(code, as_of)
    ]
    return {"account": code, "normal_side": account.normal_side, "as_of": as_of, "balances": balances}


def entries_listed(
    actor: Actor,
    *,
    after: UUID | None,
    limit: int,
    account: str | None = None,
    source_type: str | None = None,
    source_id: UUID | None = None,
    booked_from: date | None = None,
    booked_to: date | None = None,
) -> list[dict[str, Any]]:
    """A page of the journal with its lines, newest first; both days belong to the range."""
    conditions = [] if account is None else [touching(account)]
    asked = {
        "e.source_type = %s": source_type,
        "e.source_id = %s": source_id,
        "e.booked_on >= %s": booked_from,
        "e.booked_on <= %s": booked_to,
    }
    conditions += [Condition(sql, (value,)) for sql, value in asked.items() if value is not None]
    return ENTRIES.page(conditions, after=after, limit=limit)


def entry(actor: Actor, entry_id: UUID) -> dict[str, Any]:
    """One entry with its lines. Raises NotFound."""
    found = ENTRIES.first([Condition("e.id = %s", (entry_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def post(actor: Actor, *, booked_on: date, memo: str, lines: list[EntryLine]) -> dict[str, Any]:
    """Write a manual entry; it is its own fact.

    Raises Invalid (`entry_unbalanced`, or an account that is not there or not active), and Conflict
    `journal_period_closed` for a day that no open fiscal period holds.
    """
    _check(lines)
    entry_id = clock.new_id()
    write_entries([Entry(entry_id, booked_on, memo, "manual", entry_id, "posted", tuple(lines), None, actor.user_id)])
    events.of_entries([entry_id])
    audit.record(actor, "ledger.post", "ledger_entry", entry_id, after={"booked_on": booked_on, "lines": len(lines)})
    return entry(actor, entry_id)


@atomic
def reverse(actor: Actor, entry_id: UUID, *, booked_on: date | None, memo: str | None) -> dict[str, Any]:
    """Take an entry back by another with the sides swapped, booked today unless a day is given.

    Two at once: the unique reverses_id lets one through. Raises NotFound, Conflict (`duplicate` when it was taken back
    before, `journal_period_closed`), Invalid.
    """
    original = entry(actor, entry_id)
    if original["reversed_by_id"] is not None:
        raise Conflict(f"The entry {original['reversed_by_id']} takes it back already", code="duplicate")
    lines = [EntryLine(**{**line, "side": OPPOSITE[line["side"]]}) for line in original["lines"]]
    reversal = Entry(
        id=clock.new_id(),
        booked_on=booked_on or clock.now().date(),
        memo=memo or f"Reversal: {original['memo']}"[:MAX_MEMO_LENGTH],
        source_type="entry",
        source_id=entry_id,
        event="reversed",
        lines=tuple(lines),
        reverses_id=entry_id,
        recorded_by=actor.user_id,
    )
    if not write_entries([reversal]):
        raise Conflict("Another request has just taken it back", code="duplicate")
    events.of_entries([reversal.id])
    audit.record(actor, "ledger.reverse", "ledger_entry", entry_id, after={"reversed_by_id": reversal.id})
    return entry(actor, reversal.id)


@atomic
def post_invoices(invoice_ids: list[UUID], *, told: bool = True) -> int:
    """Post the entries of issued invoices in the caller's transaction; returns how many of them were new.

    May run twice for an invoice, also at once: its entry is written once. A draft, and an invoice over nothing, has none.
    `told` False writes no events: for a past that is made up (fleet.demo), of which nobody was told the rest either.
    """
    rows = db.rows(TO_POST, (list(invoice_ids),))
    entries = [_entry_of_invoice(list(its_rows)) for _, its_rows in groupby(rows, key=itemgetter(0))]
    written = write_entries([made for made in entries if made.lines])
    if written and told:
        events.of_entries(written)
    return len(written)


def _entry_of_invoice(rows: list[Row]) -> Entry:
    invoice_id, number, currency, issued_on = rows[0][:4]
    lines = invoice_issued(_taxed(*row[4:]) for row in rows)
    return Entry(
        id=clock.new_id(),
        booked_on=issued_on,
        memo=f"Invoice {number}",
        source_type="invoice",
        source_id=invoice_id,
        event="issued",
        lines=tuple(EntryLine(line.account, line.side, line.amount, currency) for line in lines),
    )


def _taxed(
    type_: str, description: str, rule: str, quantity: int, unit: int, net: int, tax_code: str, tax_bps: int, tax: int
) -> TaxedLine:
    return TaxedLine(Line(type_, description, rule, quantity, unit, net), tax_code, tax_bps, tax, net + tax)


def _check(lines: list[EntryLine]) -> None:
    """The database checks last; these say which line is wrong."""
    codes = {line.account for line in lines}
    usable = {account.code: account.active for account in LedgerAccount.select().where(LedgerAccount.code.in_(codes))}
    wrong = [
        FieldError(f"lines.{index}.account", *(_INACTIVE if line.account in usable else _UNKNOWN))
        for index, line in enumerate(lines)
        if not usable.get(line.account)
    ]
    if wrong:
        raise Invalid(errors=wrong)
    by_currency: dict[str, list[PostingLine]] = defaultdict(list)
    for line in lines:
        by_currency[line.currency].append(PostingLine(line.account, line.side, line.amount))
    for currency, its_lines in by_currency.items():
        try:
            check_balanced(its_lines)
        except Unbalanced as error:
            raise Invalid(f"In {currency} {error}", code="entry_unbalanced") from None


_INACTIVE = ("inactive", "takes no more postings")
_UNKNOWN = ("not_found", "is not an account of the chart")
