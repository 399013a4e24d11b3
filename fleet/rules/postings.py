"""The chart of accounts, and the ledger lines that each fact makes. Explained in docs/money.md.

Revenue has one trigger, the issued invoice: a reservation, a handover or a return posts nothing by itself. Payments,
refunds and disputes move money between accounts of the balance sheet; only a chargeback's fee and its loss are expenses.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from fleet.rules.money import amount
from fleet.rules.pricing import TaxedLine

Side = Literal["debit", "credit"]
Kind = Literal["asset", "liability", "equity", "revenue", "expense"]

OPPOSITE: dict[Side, Side] = {"debit": "credit", "credit": "debit"}
NORMAL_SIDE: dict[Kind, Side] = {
    "asset": "debit",
    "liability": "credit",
    "equity": "credit",
    "revenue": "credit",
    "expense": "debit",
}


class Unbalanced(ValueError):
    """The debits and the credits of one entry differ; both sums are in minor units."""

    def __init__(self, debit: int, credit: int) -> None:
        super().__init__(debit, credit)
        self.debit = debit
        self.credit = credit

    def __str__(self) -> str:
        return f"debits are {self.debit} and credits are {self.credit}"


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """One account. A contra account stands on the other side than its kind: it takes away from it."""

    code: str
    name: str
    kind: Kind
    normal_side: Side
    contra: bool


@dataclass(frozen=True, slots=True)
class PostingLine:
    """One side of an entry on one account; the amount is positive, in minor units of the entry's currency."""

    account: str
    side: Side
    amount: int

    def __post_init__(self) -> None:
        if self.side not in OPPOSITE:
            raise ValueError(f"a side is debit or credit, not {self.side!r}")
        if amount(self.amount) == 0:
            raise ValueError("a ledger line has an amount")


def _accounts(kind: Kind, names: dict[str, str], contra: frozenset[str] = frozenset()) -> tuple[AccountSpec, ...]:
    side = NORMAL_SIDE[kind]
    return tuple(
        AccountSpec(code, name, kind, OPPOSITE[side] if code in contra else side, code in contra)
        for code, name in names.items()
    )


CHART: tuple[AccountSpec, ...] = (
    *_accounts(
        "asset",
        {
            "1000": "Cash",
            "1010": "Bank",
            "1020": "Wallets",
            "1040": "Card clearing",
            "1050": "Driver cash in transit",
            "1100": "Accounts receivable",
            "1130": "Due from staff",
            "1190": "Allowance for doubtful accounts",
            "1310": "Input tax",
            "1400": "Parts",
            "1500": "Vehicles",
            "1600": "Accumulated depreciation",
        },
        contra=frozenset({"1190", "1600"}),
    ),
    *_accounts(
        "liability",
        {
            "2000": "Accounts payable",
            "2100": "Customer deposits",
            "2110": "Customer advances",
            "2120": "Customer credits",
            "2200": "Output tax",
            "2300": "Refunds payable",
            "2400": "Deferred revenue",
        },
    ),
    *_accounts("equity", {"3000": "Owner equity", "3100": "Retained earnings"}),
    *_accounts(
        "revenue",
        {
            "4000": "Rental",
            "4010": "Extras",
            "4100": "Late fees",
            "4200": "Damage recovery",
            "4300": "Fuel and cleaning",
            "4320": "Tolls and fines recovered",
            "4330": "One-way",
            "4400": "Cancellation and no-show",
            "4500": "Forfeited deposits",
            "4910": "Allowances",
        },
        contra=frozenset({"4910"}),
    ),
    *_accounts(
        "expense",
        {
            "5000": "Maintenance",
            "5100": "Depreciation",
            "5200": "Fuel",
            "5210": "Tolls and fines",
            "5300": "Insurance",
            "5400": "Salaries",
            "5500": "Processing fees",
            "5600": "Bad debt",
            "5610": "Cash over and short",
            "5700": "Exchange difference",
            "5800": "Disposal result",
            "5950": "Rounding",
        },
    ),
)

RECEIVABLE = "1100"
CARD_CLEARING = "1040"
CUSTOMER_CREDITS = "2120"
OUTPUT_TAX = "2200"
REFUNDS_PAYABLE = "2300"
PROCESSING_FEES = "5500"
BAD_DEBT = "5600"

ACCOUNT_BY_TYPE: dict[str, str] = {
    "rental": "4000",
    "other": "4010",
    "late_fee": "4100",
    "damage": "4200",
    "fuel": "4300",
    "cleaning": "4300",
    "toll": "4320",
    "fine": "4320",
    "cancellation": "4400",
    "no_show": "4400",
}
"""Where the net amount of each type of invoice line is credited."""


ACCOUNT_BY_METHOD: dict[str, str] = {"cash": "1000", "bank_transfer": "1010", "wallet": "1020", "card": CARD_CLEARING}
"""Where the money of a payment lies, by its method."""


def invoice_issued(taxed_lines: Iterable[TaxedLine]) -> list[PostingLine]:
    """The entry of an issued invoice: its gross as a receivable, its net by revenue account, its tax as a debt.

    Accounts without an amount are left out, so an invoice over nothing has no entry at all: the answer is [].
    Raises AmountTooLarge when the invoice as a whole is.
    """
    gross = 0
    credits: Counter[str] = Counter()
    for taxed in taxed_lines:
        gross += taxed.gross_amount
        credits[ACCOUNT_BY_TYPE[taxed.line.type]] += taxed.line.net_amount
        credits[OUTPUT_TAX] += taxed.tax_amount
    if gross == 0:
        return []
    entry = [PostingLine(RECEIVABLE, "debit", amount(gross))]
    entry += [PostingLine(account, "credit", credits[account]) for account in sorted(credits) if credits[account]]
    check_balanced(entry)
    return entry


def payment_captured(method: str, paid: int) -> list[PostingLine]:
    """Money came in and settles what the customer owed."""
    return _moved(ACCOUNT_BY_METHOD[method], RECEIVABLE, paid)


def refund_requested(refunded: int) -> list[PostingLine]:
    """The customer's credit becomes a debt that we are about to pay."""
    return _moved(CUSTOMER_CREDITS, REFUNDS_PAYABLE, refunded)


def refund_settled(method: str, refunded: int) -> list[PostingLine]:
    """The money went back the way it came."""
    return _moved(REFUNDS_PAYABLE, ACCOUNT_BY_METHOD[method], refunded)


def refund_failed(refunded: int) -> list[PostingLine]:
    """The gateway refused: it is the customer's credit again."""
    return reversed_lines(refund_requested(refunded))


def refund_rejected(refunded: int) -> list[PostingLine]:
    """Nobody wanted to pay it: it is the customer's credit again."""
    return reversed_lines(refund_requested(refunded))


def dispute_opened(disputed: int, fee: int) -> list[PostingLine]:
    """The cardholder's bank took the money back, and a fee with it: the customer owes it again."""
    lines = [PostingLine(RECEIVABLE, "debit", disputed)]
    if fee:
        lines.append(PostingLine(PROCESSING_FEES, "debit", fee))
    return [*lines, PostingLine(CARD_CLEARING, "credit", amount(disputed + fee))]


def dispute_won(disputed: int) -> list[PostingLine]:
    """The money came back. The fee is kept by those who took it."""
    return _moved(CARD_CLEARING, RECEIVABLE, disputed)


def dispute_lost(disputed: int) -> list[PostingLine]:
    """The money is gone, and so is the hope that the customer pays it once more."""
    return _moved(BAD_DEBT, RECEIVABLE, disputed)


def _moved(debit: str, credit: str, moved: int) -> list[PostingLine]:
    return [PostingLine(debit, "debit", moved), PostingLine(credit, "credit", moved)]


def reversed_lines(lines: Iterable[PostingLine]) -> list[PostingLine]:
    """The lines of the entry that takes another back: the same accounts and amounts, the sides swapped."""
    return [replace(line, side=OPPOSITE[line.side]) for line in lines]


def check_balanced(lines: Iterable[PostingLine]) -> None:
    """Raises Unbalanced unless debits equal credits. Call it once per currency: amounts of two do not add up."""
    sums: Counter[str] = Counter()
    for line in lines:
        sums[line.side] += line.amount
    if sums["debit"] != sums["credit"]:
        raise Unbalanced(sums["debit"], sums["credit"])
