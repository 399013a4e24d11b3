"""Proving that the books tell all that happened and nothing else."""

from dataclasses import dataclass
from typing import Any

from fleet.auth import Actor
from fleet.db import db, patience
from fleet.models import reconciliation as statements
from fleet.rules.postings import ACCOUNT_BY_TYPE, OUTPUT_TAX, RECEIVABLE

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
                Check("every fact has its entry", differences["missing_count"]),
                Check("every entry has its fact", differences["unexpected_count"]),
            ],
            totals,
        )


def _differences() -> dict[str, Any]:
    types = sorted(ACCOUNT_BY_TYPE)
    rules = {
        "types": types,
        "accounts": [ACCOUNT_BY_TYPE[type_] for type_ in types],
        "receivable": RECEIVABLE,
        "tax": OUTPUT_TAX,
        "limit": LISTED,
    }
    missing = db.rows(statements.INVOICES_NOT_IN_LEDGER, rules)
    unexpected = db.rows(statements.ENTRIES_WITHOUT_FACT, {"limit": LISTED})
    return {
        "balanced": not missing and not unexpected,
        "missing_count": missing[0][0] if missing else 0,
        "unexpected_count": unexpected[0][0] if unexpected else 0,
        "missing": [
            {
                "fact": "invoice",
                "id": invoice_id,
                "number": number,
                "currency": currency,
                "amount": amount,
                "entry_id": entry_id,
                "problem": problem,
            }
            for _, invoice_id, number, currency, amount, entry_id, problem in missing
        ],
        "unexpected": [
            {"entry_id": entry_id, "source_type": source_type, "source_id": source_id, "event": event}
            for _, entry_id, source_type, source_id, event in unexpected
        ],
    }


def _count(statement: str) -> int:
    row = db.one(statement)
    return 0 if row is None else int(row[0])
