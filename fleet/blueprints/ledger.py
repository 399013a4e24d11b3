"""/v1/ledger and /v1/reconciliation"""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.errors import NotFound
from fleet.http import Answer, answer, operation, page_answer, shape
from fleet.models.ledger import EntryLine
from fleet.paging import page
from fleet.parsing import Amount, Currency, Day, Id, Input, Line, PageQuery, Query, View
from fleet.rules.postings import Kind, Side
from fleet.rules.priorities import Priority
from fleet.services import ledger, reconciliation

bp = Blueprint("ledger", __name__)

_CODE = re.compile(r"[0-9]{4}", re.ASCII)
AccountCode = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$")]
SourceType = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{0,31}$")]


class AccountView(View):
    code: str
    name: str
    kind: Kind
    normal_side: Side
    contra: bool
    active: bool
    created_at: datetime


class OpenAccount(Input):
    code: AccountCode
    name: Line
    kind: Kind
    contra: Annotated[bool, Field(description="Whether it stands on the other side than its kind")] = False


class CurrencyBalance(View):
    currency: str
    debit: int
    credit: int
    balance: int


class BalanceView(View):
    """`balance` counts on the account's normal side: what stands on the other side is taken off."""

    account: str
    normal_side: Side
    as_of: date | None
    balances: list[CurrencyBalance]


class BalanceQuery(Query):
    as_of: Annotated[Day | None, Field(description="The last day that counts; without one, every entry counts")] = None


class EntryLineView(View):
    account: str
    side: Side
    amount: int
    currency: str


class EntryView(View):
    """What happened (source and event), the day it belongs to, and its lines. An entry is never changed."""

    id: UUID
    booked_on: date
    memo: str
    source_type: str
    source_id: UUID
    event: str
    reverses_id: UUID | None
    reversed_by_id: UUID | None
    recorded_by: UUID | None
    created_at: datetime
    lines: list[EntryLineView]


class EntryQuery(PageQuery):
    account: AccountCode | None = None
    source_type: SourceType | None = None
    source_id: Id | None = None
    from_: Annotated[Day | None, Field(alias="from", description="The first day on which an entry is booked")] = None
    to: Annotated[Day | None, Field(description="The last day on which an entry is booked")] = None


class JournalLine(Input):
    account: AccountCode
    side: Side
    amount: Amount
    currency: Currency


class JournalEntry(Input):
    booked_on: Day
    memo: Line
    lines: Annotated[list[JournalLine], Field(min_length=1, max_length=200)]


class ReverseEntry(Input):
    booked_on: Annotated[Day | None, Field(description="Today (UTC) unless given")] = None
    memo: Annotated[Line | None, Field(description="Why it is taken back")] = None


class MissingEntry(View):
    """A fact that its entry does not tell, or not with these amounts."""

    fact: Literal["invoice", "payment", "refund", "dispute"]
    id: UUID
    event: str
    number: str | None
    currency: str
    amount: int
    entry_id: UUID | None
    problem: Literal["not_posted", "reversed", "other_amounts"]


class UnexpectedEntry(View):
    """An entry whose fact does not exist."""

    entry_id: UUID
    source_type: str
    source_id: UUID
    event: str


class ReconciliationView(View):
    balanced: bool
    missing_count: int
    unexpected_count: int
    missing: list[MissingEntry]
    unexpected: list[UnexpectedEntry]


@bp.get("/v1/ledger/accounts")
@operation("ledger.read", query=PageQuery, answer=AccountView, listed=True)
def accounts(query: PageQuery) -> Answer:
    """List the chart of accounts, in the order of the codes."""
    return page_answer(page(query, ledger.accounts_listed, lambda row: shape(AccountView, row), actor=g.actor))


@bp.post("/v1/ledger/accounts")
@operation(
    "ledger.accounts", body=OpenAccount, answer=AccountView, status=201, idempotent=True, problems=("duplicate",)
)
def open_account(body: OpenAccount) -> Answer:
    """Add an account to the chart."""
    account = ledger.open_account(g.actor, code=body.code, name=body.name, kind=body.kind, contra=body.contra)
    return answer(shape(AccountView, account), 201, location=f"/v1/ledger/accounts/{account.code}/balance")


@bp.get("/v1/ledger/accounts/<code>/balance")
@operation("ledger.read", query=BalanceQuery, answer=BalanceView, cost=5, report=True, priority=Priority.DEFERRABLE)
def balance(code: str, query: BalanceQuery) -> Answer:
    """Show what stands on an account, by currency."""
    if not _CODE.fullmatch(code):
        raise NotFound()
    return answer(ledger.balance(g.actor, code, as_of=query.as_of))


@bp.get("/v1/ledger/entries")
@operation("ledger.read", query=EntryQuery, answer=EntryView, listed=True)
def entries(query: EntryQuery) -> Answer:
    """List journal entries with their lines, newest first. Both days of a range belong to it."""
    asked = {
        "account": query.account,
        "source_type": query.source_type,
        "source_id": query.source_id,
        "booked_from": query.from_,
        "booked_to": query.to,
    }
    return page_answer(page(query, ledger.entries_listed, lambda row: shape(EntryView, row), actor=g.actor, **asked))


@bp.post("/v1/ledger/entries")
@operation(
    "ledger.post",
    body=JournalEntry,
    answer=EntryView,
    status=201,
    idempotent=True,
    key_required=True,
    problems=("entry_unbalanced", "journal_period_closed"),
)
def post(body: JournalEntry) -> Answer:
    """Write a manual entry. Debits equal credits in each currency."""
    lines = [EntryLine(line.account, line.side, line.amount, line.currency) for line in body.lines]
    return _written(ledger.post(g.actor, booked_on=body.booked_on, memo=body.memo, lines=lines))


@bp.get("/v1/ledger/entries/<uuid:entry_id>")
@operation("ledger.read", answer=EntryView)
def show(entry_id: UUID) -> Answer:
    """Show a journal entry with its lines."""
    entry = ledger.entry(g.actor, entry_id)
    return answer(shape(EntryView, entry), version=_version(entry))


@bp.post("/v1/ledger/entries/<uuid:entry_id>/reverse")
@operation(
    "ledger.post",
    body=ReverseEntry,
    answer=EntryView,
    status=201,
    idempotent=True,
    problems=("duplicate", "journal_period_closed"),
)
def reverse(entry_id: UUID, body: ReverseEntry) -> Answer:
    """Take an entry back by another one with the sides swapped. Once: the reversal itself can be taken back in turn."""
    return _written(ledger.reverse(g.actor, entry_id, booked_on=body.booked_on, memo=body.memo))


@bp.get("/v1/reconciliation")
@operation("reconciliation.read", answer=ReconciliationView, cost=50, report=True, priority=Priority.DEFERRABLE)
def reconcile() -> Answer:
    """Hold every fact against its ledger entry, and every entry against its fact."""
    return answer(reconciliation.reconcile(g.actor))


def _written(entry: dict[str, Any]) -> Answer:
    location = f"/v1/ledger/entries/{entry['id']}"
    return answer(shape(EntryView, entry), 201, version=_version(entry), location=location)


def _version(entry: dict[str, Any]) -> int:
    """An entry changes in one respect only: somebody takes it back."""
    return 1 if entry["reversed_by_id"] is None else 2
