"""What stands on the paper of an invoice, in the customer's language; how it is drawn is the printer's affair."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from fleet.rules.languages import Language
from fleet.rules.letters import InvoiceTold, Row

# Changes with the layout, so that nobody is told that the paper he has is still the current one.
EDITION = 1


@dataclass(frozen=True, slots=True)
class Sheet:
    """An invoice as lines of text. `columns` and each of `lines` have the same length; the first column is the widest."""

    language: str
    title: str
    number: str
    issued_at: datetime
    seller: tuple[str, ...]
    buyer: tuple[str, ...]
    facts: tuple[Row, ...]
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    totals: tuple[Row, ...]

    @property
    def tag(self) -> str:
        """The same for the same paper: what a reader's copy is compared by before anything is drawn again."""
        return hashlib.sha256(f"{EDITION}{self!r}".encode()).hexdigest()[:32]


def sheet(told: InvoiceTold, language: Language, *, seller: tuple[str, ...], buyer: tuple[str, ...]) -> Sheet:
    """The paper of an issued invoice."""
    facts = [
        (language.label("invoice"), told.number),
        (language.label("date"), language.day(told.issued_at, told.timezone)),
        (language.label("due"), language.day(told.due_at, told.timezone)),
    ]
    if told.rental_number:
        facts.insert(1, (language.label("rental"), told.rental_number))
    return Sheet(
        language=language.tag,
        title=f"{language.label('invoice')} {told.number}",
        number=told.number,
        issued_at=told.issued_at,
        seller=seller,
        buyer=(language.label("billed_to"), *buyer),
        facts=tuple(facts),
        columns=tuple(language.label(name) for name in ("description", "quantity", "unit_price", "tax_rate", "amount")),
        lines=tuple(_lines(told, language)),
        totals=tuple(_totals(told, language)),
    )


def _lines(told: InvoiceTold, language: Language) -> list[tuple[str, ...]]:
    return [
        (
            line.description,
            f"{line.quantity}",
            language.money(line.unit_amount, told.currency),
            language.percent(line.tax_bps),
            language.money(line.net_amount, told.currency),
        )
        for line in told.lines
    ]


def _totals(told: InvoiceTold, language: Language) -> list[Row]:
    """The net sum, the tax of each rate with what it is taken of, and the sum of both."""
    by_rate: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for line in told.lines:
        by_rate[line.tax_bps][0] += line.net_amount
        by_rate[line.tax_bps][1] += line.tax_amount
    taxes = [
        (f"{language.label('tax')} {language.percent(bps)} / {language.money(net, told.currency)}", tax)
        for bps, (net, tax) in sorted(by_rate.items())
    ]
    rows = [
        (language.label("net"), told.net_amount),
        *taxes,
        (language.label("total"), told.net_amount + told.tax_amount),
    ]
    return [(label, language.money(amount, told.currency)) for label, amount in rows]
