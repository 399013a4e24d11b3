"""The letters to customers and users, in plain text and in HTML, from one description of each so that the two never differ.

What is said stands in fleet/templates/letters, one file a language. Times are shown in the time zone of the branch where the
vehicle is picked up, and say so.
"""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from html import escape
from string import Template

from fleet.rules.languages import FOLDER, Language

Row = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RentalTold:
    """What letters say of a rental. Amounts are in minor units; branch names are None where no branch was named."""

    first_name: str
    timezone: str
    number: str
    vehicle: str
    start_at: datetime
    end_at: datetime
    hold_expires_at: datetime | None
    total_amount: int
    currency: str
    pickup: str | None
    dropoff: str | None


@dataclass(frozen=True, slots=True)
class LineTold:
    """A line of an invoice, as it was issued; amounts in minor units, the rate in basis points."""

    description: str
    quantity: int
    unit_amount: int
    net_amount: int
    tax_bps: int
    tax_amount: int


@dataclass(frozen=True, slots=True)
class InvoiceTold:
    """What the letter with an invoice says."""

    first_name: str
    timezone: str
    number: str
    rental_number: str | None
    issued_at: datetime
    due_at: datetime
    net_amount: int
    tax_amount: int
    currency: str
    lines: tuple[LineTold, ...]


@dataclass(frozen=True, slots=True)
class PaymentTold:
    """What the receipt of a payment says; `number` is that of the invoice, `left` what is still to pay on it."""

    first_name: str
    timezone: str
    number: str
    rental_number: str | None
    captured_at: datetime
    amount: int
    currency: str
    method: str
    left: int


@dataclass(frozen=True, slots=True)
class RefundTold:
    """What the letter about a refund says; `number` is that of the invoice, `method` the way the money came and goes back."""

    first_name: str
    timezone: str
    number: str
    rental_number: str | None
    settled_at: datetime
    amount: int
    currency: str
    method: str


@dataclass(frozen=True, slots=True)
class AccountTold:
    """What letters about an account say: when it happened, or a link (else a code to type in) and until when it is good."""

    first_name: str
    at: datetime | None = None
    link: str | None = None
    code: str | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter: what it is about, sentences before and after a table of label and value, and the same for a telephone.

    Letters about accounts go by e-mail alone, and have no words for a telephone.
    """

    language: Language
    subject: str
    greeting: str
    opening: str
    table: tuple[Row, ...]
    closing: str
    sms: str = ""

    def text(self, unsubscribe: str | None = None) -> str:
        """The letter for those who read plain text; `unsubscribe` is the address that ends letters of its kind."""
        width = max(len(label) for label, _ in self.table) + 2
        table = "\n".join(f"{label + ':':<{width}}{value}" for label, value in self.table)
        footer = f"\n{self._way_out} {unsubscribe}\n" if unsubscribe else ""
        spoken = {"greeting": self.greeting, "opening": self.opening, "closing": self.closing}
        return _layout("letter.txt").substitute(spoken, table=table, footer=footer)

    def html(self, unsubscribe: str | None = None) -> str:
        """The same letter as HTML. Everything that people typed is escaped."""
        table = "\n".join(
            f'<tr><th align="left">{escape(label)}</th><td>{escape(value)}</td></tr>' for label, value in self.table
        )
        link = f'<a href="{escape(unsubscribe)}">{escape(unsubscribe)}</a>' if unsubscribe else ""
        footer = f"<p><small>{escape(self._way_out)} {link}</small></p>" if unsubscribe else ""
        names = ("subject", "greeting", "opening", "closing")
        spoken = {name: escape(getattr(self, name)) for name in names}
        return _layout("letter.html").substitute(spoken, language=self.language.tag, table=table, footer=footer)

    @property
    def _way_out(self) -> str:
        return self.language.phrase("letter", "unsubscribe")


def of_rental(kind: str, told: RentalTold, language: Language) -> Letter:
    """A letter of this kind about a rental."""
    return _letter(kind, language, told.first_name, told.number, _rows_of_rental(kind, told, language))


def of_invoice(told: InvoiceTold, language: Language) -> Letter:
    """The invoice in a letter: each of its lines, the tax and what is owed."""
    rows = {
        "date": language.day(told.issued_at, told.timezone),
        "rental": told.rental_number,
        "net": language.money(told.net_amount, told.currency),
        "tax": language.money(told.tax_amount, told.currency),
        "total": language.money(told.net_amount + told.tax_amount, told.currency),
        "due": language.day(told.due_at, told.timezone),
    }
    lines = tuple((line.description, language.money(line.net_amount, told.currency)) for line in told.lines)
    return _letter("invoice_issued", language, told.first_name, told.number, rows, lines=lines)


def of_payment(told: PaymentTold, language: Language) -> Letter:
    """How much was paid for which invoice, when and in which way, and what is left to pay, if anything is."""
    rows = {
        "paid": language.money(told.amount, told.currency),
        "method": language.phrase("methods", told.method),
        "date": language.day(told.captured_at, told.timezone),
        "invoice": told.number,
        "rental": told.rental_number,
        "left": language.money(told.left, told.currency) if told.left > 0 else None,
    }
    return _letter("payment_received", language, told.first_name, told.number, rows)


def of_refund(told: RefundTold, language: Language) -> Letter:
    """How much of which invoice went back, when and in which way."""
    rows = {
        "refunded": language.money(told.amount, told.currency),
        "method": language.phrase("methods", told.method),
        "date": language.day(told.settled_at, told.timezone),
        "invoice": told.number,
        "rental": told.rental_number,
    }
    return _letter("payment_refunded", language, told.first_name, told.number, rows)


def of_account(kind: str, told: AccountTold, language: Language) -> Letter:
    """A letter about the account of somebody who signs in. Times are in UTC: an account has no branch."""
    rows = {
        "when": None if told.at is None else language.instant(told.at, "UTC"),
        "link": told.link,
        "code": told.code,
        "valid_until": None if told.until is None else language.instant(told.until, "UTC"),
    }
    return _letter(kind, language, told.first_name, "", rows)


_BOOKING = ("booking", "vehicle", "from", "pickup", "until", "dropoff")
# Which rows of the table a kind shows, and in which order.
ROWS = {
    "rental_held": ("held_until", *_BOOKING, "price"),
    "rental_reserved": (*_BOOKING, "price"),
    "rental_changed": (*_BOOKING, "price"),
    "rental_cancelled": _BOOKING,
    "rental_expired": _BOOKING,
    "rental_reminder": (*_BOOKING, "price"),
    "rental_overdue": ("booking", "vehicle", "due_back", "dropoff"),
    "rental_no_show": _BOOKING,
    "invoice_issued": ("date", "rental", "net", "tax", "total", "due"),
    "payment_received": ("paid", "method", "date", "invoice", "rental", "left"),
    "payment_refunded": ("refunded", "method", "date", "invoice", "rental"),
    "password_reset": ("link", "code", "valid_until"),
    "email_verification": ("link", "code", "valid_until"),
    "password_changed": ("when",),
    "session_breached": ("when",),
    "second_factor_enabled": ("when",),
    "second_factor_removed": ("when",),
    "second_factor_locked": ("when",),
}
_LINES_COME_BEFORE = "net"


def _rows_of_rental(kind: str, told: RentalTold, language: Language) -> dict[str, str | None]:
    until = language.instant(told.end_at, told.timezone)
    held = told.hold_expires_at
    return {
        "held_until": None if held is None else language.instant(held, told.timezone),
        "booking": told.number,
        "vehicle": told.vehicle,
        "from": language.instant(told.start_at, told.timezone),
        "pickup": told.pickup,
        "until": until,
        "dropoff": told.dropoff,
        "due_back": until,
        "price": language.money(told.total_amount, told.currency),
    }


def _letter(
    kind: str,
    language: Language,
    first_name: str,
    number: str,
    rows: dict[str, str | None],
    *,
    lines: tuple[Row, ...] = (),
) -> Letter:
    filled = {name: value or "" for name, value in rows.items()}
    said = {part: language.phrase(kind, part, number=number, **filled) for part in language.words[kind]}
    table: list[Row] = []
    for name in ROWS[kind]:
        table += lines if name == _LINES_COME_BEFORE else ()
        table += [(language.label(name), filled[name])] if filled[name] else []
    greeting = language.phrase("letter", "greeting", first_name=first_name)
    return Letter(language, greeting=greeting, table=tuple(table), **said)


@cache
def _layout(name: str) -> Template:
    return Template((FOLDER / name).read_text(encoding="utf-8"))
