"""The letters to customers, in plain text and in HTML, from one description of each so that the two never differ.

Times are shown in the time zone of the branch where the vehicle is picked up, and say so.
"""

from dataclasses import dataclass
from datetime import datetime
from html import escape
from zoneinfo import ZoneInfo

# ISO 4217: how many digits follow the point, where it is not two.
_DIGITS = dict.fromkeys(
    ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"), 0
) | dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3)


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
class InvoiceTold:
    """What the letter with an invoice says. Each line: its description, which says how many, and its net amount."""

    first_name: str
    timezone: str
    number: str
    rental_number: str | None
    issued_at: datetime
    due_at: datetime
    net_amount: int
    tax_amount: int
    currency: str
    lines: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter: what it is about, sentences before and after a table of label and value."""

    subject: str
    greeting: str
    opening: str
    table: tuple[tuple[str, str], ...]
    closing: str

    def text(self) -> str:
        """The letter for those who read plain text."""
        width = max(len(label) for label, _ in self.table) + 2
        table = "\n".join(f"{label + ':':<{width}}{value}" for label, value in self.table)
        return f"{self.greeting}\n\n{self.opening}\n\n{table}\n\n{self.closing}\n"

    def html(self) -> str:
        """The same letter as HTML. Everything that people typed is escaped."""
        rows = "".join(
            f'<tr><th align="left">{escape(label)}</th><td>{escape(value)}</td></tr>\n' for label, value in self.table
        )
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(self.subject)}</title></head>\n'
            f"<body>\n<p>{escape(self.greeting)}</p>\n<p>{escape(self.opening)}</p>\n"
            f'<table cellpadding="4">\n{rows}</table>\n<p>{escape(self.closing)}</p>\n</body></html>\n'
        )


def rental_held(told: RentalTold) -> Letter:
    """A vehicle is held for the customer until a time."""
    until = [] if told.hold_expires_at is None else [("Held until", instant(told.hold_expires_at, told.timezone))]
    return Letter(
        f"We hold a vehicle for you: {told.number}",
        _greeting(told.first_name),
        "We hold this vehicle for you. Please confirm in time; after that it goes to whoever asks next.",
        (*until, *_booking(told)),
        "There is nothing to pay for a hold that you let go.",
    )


def rental_reserved(told: RentalTold) -> Letter:
    """The customer has a reservation."""
    return Letter(
        f"Your reservation {told.number}",
        _greeting(told.first_name),
        "Your reservation is confirmed.",
        _booking(told),
        "Please bring your driving licence. We look forward to seeing you.",
    )


def rental_changed(told: RentalTold) -> Letter:
    """The booking has other times, another vehicle or another price than before."""
    return Letter(
        f"Your booking {told.number} has changed",
        _greeting(told.first_name),
        "Your booking has changed. This is how it stands now.",
        _booking(told),
        "If this is not what you asked for, please call the branch.",
    )


def rental_cancelled(told: RentalTold) -> Letter:
    """The reservation or hold is cancelled. A fee, if one is due, comes as an invoice of its own."""
    return Letter(
        f"Cancelled: {told.number}",
        _greeting(told.first_name),
        "This booking is cancelled.",
        _booking(told),
        "If the terms of your booking ask for a fee, its invoice comes in a letter of its own.",
    )


def invoice_issued(told: InvoiceTold) -> Letter:
    """The receipt: each line of the invoice, the tax and what is owed."""
    about = f" for rental {told.rental_number}" if told.rental_number else ""
    lines = [(text, money(net, told.currency)) for text, net in told.lines]
    return Letter(
        f"Invoice {told.number}{about}",
        _greeting(told.first_name),
        f"Thank you. This is your invoice {told.number}{about}.",
        (
            ("Date", day(told.issued_at, told.timezone)),
            *lines,
            ("Sum without tax", money(told.net_amount, told.currency)),
            ("Tax", money(told.tax_amount, told.currency)),
            ("Total", money(told.net_amount + told.tax_amount, told.currency)),
            ("Due by", day(told.due_at, told.timezone)),
        ),
        "Please give the number of the invoice with your payment.",
    )


def money(minor_units: int, currency: str) -> str:
    """An amount with its currency: 123456 of EUR is `EUR 1,234.56`, of JPY `JPY 123,456`."""
    digits = _DIGITS.get(currency, 2)
    whole, part = divmod(abs(minor_units), 10**digits)
    sign = "-" if minor_units < 0 else ""
    return f"{currency} {sign}{whole:,}" + (f".{part:0{digits}}" if digits else "")


def instant(at: datetime, timezone: str) -> str:
    """A time as the clock on that branch's wall shows it: `Tue 01 Dec 2026, 10:00 (Europe/Lisbon)`."""
    return f"{at.astimezone(ZoneInfo(timezone)):%a %d %b %Y, %H:%M} ({timezone})"


def day(at: datetime, timezone: str) -> str:
    """The date on that branch's calendar: `Tue 01 Dec 2026`."""
    return f"{at.astimezone(ZoneInfo(timezone)):%a %d %b %Y}"


def _greeting(first_name: str) -> str:
    return f"Dear {first_name},"


def _booking(told: RentalTold) -> tuple[tuple[str, str], ...]:
    pickup = [("Pick-up at", told.pickup)] if told.pickup else []
    dropoff = [("Return to", told.dropoff)] if told.dropoff else []
    return (
        ("Booking", told.number),
        ("Vehicle", told.vehicle),
        ("From", instant(told.start_at, told.timezone)),
        *pickup,
        ("Until", instant(told.end_at, told.timezone)),
        *dropoff,
        ("Price without tax", money(told.total_amount, told.currency)),
    )
