"""Proving that the books tell all that happened and nothing else."""

from dataclasses import dataclass
from typing import Any

from fleet.auth import Actor
from fleet.db import Row, db, patience
from fleet.models import reconciliation as statements
from fleet.rules.postings import (
    ACCOUNT_BY_METHOD,
    ACCOUNT_BY_TYPE,
    BAD_DEBT,
    CARD_CLEARING,
    CUSTOMER_CREDITS,
    OUTPUT_TAX,
    PROCESSING_FEES,
    RECEIVABLE,
    REFUNDS_PAYABLE,
)

LISTED = 200
REQUEST_PATIENCE_S = 20
PROOF_PATIENCE_S = 600


def reconcile(actor: Actor) -> dict[str, Any]:
    """Each fact against its ledger entry, both ways, by amounts: what is missing, and what has no fact.

    A fact counts as missing until its entry is posted, so a busy system shows those of the last moments. At most LISTED
    of each are named; the counts are complete.
    """
    with patience(REQUEST_PATIENCE_S):
        return _differences()


@dataclass(frozen=True, slots=True)
class Check:
    """One statement about the books, and how many rows contradict it."""

    claim: str
    wrong: int


@dataclass(frozen=True, slots=True)
class Proof:
    """What was checked, and the trial balance as (currency, debits, credits)."""

    checks: list[Check]
    trial_balance: list[tuple[str, int, int]]

    @property
    def holds(self) -> bool:
        return not any(check.wrong for check in self.checks)


def prove() -> Proof:
    """Check the whole ledger, without trusting the constraints that guard it."""
    with patience(PROOF_PATIENCE_S):
        totals = [(currency, debit, credit) for currency, debit, credit in db.rows(statements.TRIAL_BALANCE)]
        differences = _differences()
        return Proof(
            [
                Check("every entry balances in each currency", _count(statements.ENTRIES_OUT_OF_BALANCE)),
                Check("every entry has two lines or more", _count(statements.ENTRIES_WITHOUT_LINES)),
                Check("every line bears the day of its entry", _count(statements.LINES_OF_ANOTHER_DAY)),
                Check("every reversal leaves nothing over", _count(statements.REVERSALS_THAT_LEAVE_SOMETHING)),
                Check("debits equal credits in each currency", sum(debit != credit for _, debit, credit in totals)),
                Check("every invoice is the sum of its lines", _count(statements.INVOICES_THAT_DO_NOT_ADD_UP)),
                Check("no invoice number is missing", abs(_count(statements.INVOICE_NUMBERS_MISSING))),
                Check("every invoice is settled by its payments", _count(statements.INVOICES_NOT_SETTLED_BY_THEIR_PAYMENTS)),
                Check("every payment is refunded by its refunds", _count(statements.PAYMENTS_NOT_REFUNDED_BY_THEIR_REFUNDS)),
                Check("every fact has its entry", differences["missing_count"]),
                Check("every entry has its fact", differences["unexpected_count"]),
            ],
            totals,
        )


def _differences() -> dict[str, Any]:
    invoices = db.rows(statements.INVOICES_NOT_IN_LEDGER, _rules_of_invoices())
    money = db.rows(statements.MONEY_NOT_IN_LEDGER, _rules_of_money())
    unexpected = db.rows(statements.ENTRIES_WITHOUT_FACT, {"limit": LISTED})
    return {
        "balanced": not invoices and not money and not unexpected,
        "missing_count": _counted(invoices) + _counted(money),
        "unexpected_count": _counted(unexpected),
        "missing": [dict(zip(_MISSING, row[1:], strict=True)) for row in (*invoices, *money)][:LISTED],
        "unexpected": [dict(zip(_UNEXPECTED, row[1:], strict=True)) for row in unexpected],
    }


_MISSING = ("fact", "id", "event", "number", "currency", "amount", "entry_id", "problem")
_UNEXPECTED = ("entry_id", "source_type", "source_id", "event")
_TYPES, _METHODS = sorted(ACCOUNT_BY_TYPE), sorted(ACCOUNT_BY_METHOD)


def _rules_of_invoices() -> dict[str, Any]:
    return {
        "types": _TYPES,
        "accounts": [ACCOUNT_BY_TYPE[type_] for type_ in _TYPES],
        "receivable": RECEIVABLE,
        "tax": OUTPUT_TAX,
        "limit": LISTED,
    }


def _rules_of_money() -> dict[str, Any]:
    return {
        "methods": _METHODS,
        "tills": [ACCOUNT_BY_METHOD[method] for method in _METHODS],
        "receivable": RECEIVABLE,
        "clearing": CARD_CLEARING,
        "credits": CUSTOMER_CREDITS,
        "payable": REFUNDS_PAYABLE,
        "fees": PROCESSING_FEES,
        "bad_debt": BAD_DEBT,
        "limit": LISTED,
    }


def _counted(rows: list[Row]) -> int:
    """How many there are in all: each row tells."""
    return int(rows[0][0]) if rows else 0


def _count(statement: str) -> int:
    row = db.one(statement)
    return 0 if row is None else int(row[0])
