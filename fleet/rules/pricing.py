"""What a rental costs: the lines of its invoice, each with the rule that made it. Explained in docs/money.md.

Amounts are net of tax, in minor units of the currency of the terms, never negative and at most MAX_AMOUNT; whatever
would be more raises AmountTooLarge. Tax is added line by line when the invoice is issued.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from fleet.rules import money
from fleet.rules.periods import Period, PeriodError, billable_days

HOUR = timedelta(hours=1)
NO_TAX = "NONE"

AmountTooLarge = money.AmountTooLarge

TAXED_TYPES = frozenset({"rental", "late_fee", "fuel", "cleaning", "other", "cancellation", "no_show"})
"""The types of line that bear tax. The others are compensation, which is outside the scope of tax."""

LINE_TYPES = TAXED_TYPES | {"damage", "toll", "fine"}

CHARGE_TYPES = frozenset({"fuel", "damage", "late_fee", "cleaning", "toll", "fine", "other"})
"""What staff may add to a rental by hand; the other types come from the rules alone."""


@dataclass(frozen=True)
class Terms:
    """The rates that a rental was booked at: a snapshot, so that later rates change no booking.

    Rates and fees are net, in minor units of `currency`; `timezone` is the pickup branch's IANA name; `tax_bps` is in
    basis points. Raises ValueError for what cannot be meant, such as a negative fee or an unknown currency.
    """

    daily_rate: int
    currency: str
    timezone: str
    grace_minutes: int
    late_fee_per_hour: int = 0
    fuel_fee_per_percent: int = 0
    cancellation_fee: int = 0
    free_cancellation_hours: int = 0
    no_show_fee: int = 0
    tax_code: str = NO_TAX
    tax_bps: int = 0

    def __post_init__(self) -> None:
        if not money.is_currency(self.currency):
            raise ValueError(f"unknown currency {self.currency!r}")
        for fee in (self.daily_rate, self.late_fee_per_hour, self.fuel_fee_per_percent):
            money.amount(fee)
        for fee in (self.cancellation_fee, self.no_show_fee):
            money.amount(fee)
        _within("grace_minutes", self.grace_minutes, 24 * 60)
        _within("free_cancellation_hours", self.free_cancellation_hours, 365 * 24)
        _within("tax_bps", self.tax_bps, money.FULL_RATE_BPS)

    def as_json(self) -> dict[str, Any]:
        """The terms as a flat JSON object, for the rental's row."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The terms from what as_json gave. A term that an older snapshot lacks has its default.

        Raises TypeError for a term that this release does not know: to leave it out would bill a wrong price.
        """
        return cls(**stored)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice before tax: `quantity` × `unit_amount` = `net_amount`, and the rule that made it."""

    type: str
    description: str
    rule: str
    quantity: int
    unit_amount: int
    net_amount: int

    def __post_init__(self) -> None:
        if self.type not in LINE_TYPES:
            raise ValueError(f"unknown type of line {self.type!r}")
        money.amount(self.unit_amount)
        money.amount(self.net_amount)
        if self.net_amount != self.quantity * self.unit_amount:
            raise ValueError("the net amount of a line is its quantity times its unit amount")


@dataclass(frozen=True, slots=True)
class TaxedLine:
    """A line as the invoice shows it, with its tax. `tax_code` is NONE on a line that bears no tax."""

    line: Line
    tax_code: str
    tax_bps: int
    tax_amount: int
    gross_amount: int

    def __post_init__(self) -> None:
        money.amount(self.tax_amount)
        money.amount(self.gross_amount)
        if self.gross_amount != self.line.net_amount + self.tax_amount:
            raise ValueError("the gross amount of a line is its net amount plus its tax")


@dataclass(frozen=True, slots=True)
class ExtraCharge:
    """Something that staff found and put a price on, such as a scratch or a toll; the amount is net."""

    type: str
    description: str
    amount: int

    def __post_init__(self) -> None:
        if self.type not in CHARGE_TYPES:
            raise ValueError(f"no charge of type {self.type!r} can be added")
        money.amount(self.amount)


@dataclass(frozen=True, slots=True)
class Return:
    """The vehicle as it came back: when, with what on the clock and in the tank, and what was found on it."""

    at: datetime
    odometer_km: int
    fuel_percent: int | None = None
    charges: tuple[ExtraCharge, ...] = ()

    def __post_init__(self) -> None:
        if self.fuel_percent is not None:
            _within("fuel_percent", self.fuel_percent, 100)


def base(terms: Terms, period: Period) -> Line:
    """The rental itself: started days (see billable_days) at the daily rate."""
    days = billable_days(period, terms.timezone, terms.grace_minutes)
    return _line("rental", f"Rental, {_counted(days, 'day')}", "started_days", days, terms.daily_rate)


def settle(
    terms: Terms, booked: Period, *, actual_start: datetime, start_fuel_percent: int | None, returned: Return
) -> list[Line]:
    """Every line that the customer owes for a rental that has come back.

    The booked period is owed in full: neither a late pickup nor an early return makes it cheaper, and an early pickup
    does not make it dearer. Then what the lateness costs, the fuel that is missing, and the charges of staff.
    Raises PeriodError `returned_before_start` for a return before the handover, and AmountTooLarge, also for the sum.
    """
    if returned.at < actual_start:
        raise PeriodError("returned_before_start", "A vehicle comes back after it was handed over.")
    lines = [base(terms, booked), *_late(terms, booked, returned.at)]
    lines += _fuel(terms, start_fuel_percent, returned.fuel_percent)
    lines += [charged(charge) for charge in returned.charges]
    money.amount(sum(line.net_amount for line in lines))
    return lines


def charged(charge: ExtraCharge) -> Line:
    """The line of a charge that staff entered, at the return or later."""
    return _line(charge.type, charge.description, "entered_by_staff", 1, charge.amount)


def cancellation(terms: Terms, booked: Period, *, at: datetime) -> Line | None:
    """The fee for a cancellation at this time, or None when it is free.

    Free up to, and at, `free_cancellation_hours` before the start. That a hold is always free is the caller's to know.
    """
    if at <= booked.start - terms.free_cancellation_hours * HOUR or terms.cancellation_fee == 0:
        return None
    return _line("cancellation", "Cancellation fee", "cancelled_after_free_time", 1, terms.cancellation_fee)


def no_show(terms: Terms) -> Line | None:
    """The fee for a customer who never came, or None when the terms have none."""
    if terms.no_show_fee == 0:
        return None
    return _line("no_show", "No-show fee", "not_collected", 1, terms.no_show_fee)


def taxed(line: Line, tax_code: str, tax_bps: int) -> TaxedLine:
    """The line with its tax at this rate, or with none at all where its type bears no tax. Used at issue only."""
    if line.type not in TAXED_TYPES:
        return TaxedLine(line, NO_TAX, 0, 0, line.net_amount)
    tax = money.tax_on(line.net_amount, tax_bps)
    return TaxedLine(line, tax_code, tax_bps, tax, line.net_amount + tax)


def _late(terms: Terms, booked: Period, at: datetime) -> list[Line]:
    """What a return after the booked end and its grace costs: late hours, or days where the terms have no late fee.

    The grace forgives; it does not shift. Once it is used up, started hours count from the booked end itself. Without
    an hourly fee the rental is billed as if it had been booked until the return, so hours on a paid day cost nothing.
    """
    if at <= booked.end + timedelta(minutes=terms.grace_minutes):
        return []
    if terms.late_fee_per_hour:
        hours = -((booked.end - at) // HOUR)
        text = f"Late return, {_counted(hours, 'hour')}"
        return [_line("late_fee", text, "late_started_hours", hours, terms.late_fee_per_hour)]
    days = base(terms, Period(booked.start, at)).quantity - base(terms, booked).quantity
    text = f"Late return, {_counted(days, 'day')}"
    return [_line("rental", text, "late_started_days", days, terms.daily_rate)] if days else []


def _fuel(terms: Terms, start_percent: int | None, end_percent: int | None) -> list[Line]:
    """The missing fuel by percent of the tank. More than at the start is not paid back; unknown levels cost nothing."""
    if start_percent is None or end_percent is None:
        return []
    missing = start_percent - end_percent
    if missing <= 0 or terms.fuel_fee_per_percent == 0:
        return []
    return [_line("fuel", f"Fuel, {missing} % of the tank", "fuel_missing", missing, terms.fuel_fee_per_percent)]


def _line(type_: str, description: str, rule: str, quantity: int, unit_amount: int) -> Line:
    return Line(type_, description, rule, quantity, unit_amount, quantity * unit_amount)


def _counted(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"


def _within(name: str, value: int, most: int) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{name} is a whole number from 0 to {most}, not {value!r}")
