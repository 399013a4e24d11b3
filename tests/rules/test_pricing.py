"""What a rental costs at its booking, at its return, and when nothing comes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rules import pricing
from fleet.rules.money import MAX_AMOUNT
from fleet.rules.periods import Period, PeriodError
from fleet.rules.pricing import AmountTooLarge, ExtraCharge, Line, Return, TaxedLine, Terms
from tests.rules.strategies import bookings, calm, charges, fuel_levels, minutes, terms

START = datetime(2026, 6, 1, 2, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
TWO_DAYS = Period(START, START + 48 * HOUR)
TERMS = Terms(
    daily_rate=5000,
    currency="PHP",
    timezone="Asia/Manila",
    grace_minutes=59,
    late_fee_per_hour=700,
    fuel_fee_per_percent=120,
    cancellation_fee=2500,
    free_cancellation_hours=24,
    no_show_fee=9000,
    tax_code="VAT12",
    tax_bps=1200,
)
BY_DAYS = replace(TERMS, late_fee_per_hour=0)


def settled(rates: Terms, at: datetime, *, before: int | None = None, after: int | None = None) -> list[Line]:
    returned = Return(at, 12_000, after)
    return pricing.settle(rates, TWO_DAYS, actual_start=START, start_fuel_percent=before, returned=returned)


def extras(lines: list[Line]) -> list[tuple[str, str, int, int]]:
    """The lines after the base line, without their words."""
    return [(line.type, line.rule, line.quantity, line.net_amount) for line in lines[1:]]


def test_the_base_is_the_daily_rate_for_each_started_day() -> None:
    assert pricing.base(TERMS, TWO_DAYS) == Line("rental", "Rental, 2 days", "started_days", 2, 5000, 10_000)


def test_a_return_on_time_costs_the_base_alone() -> None:
    assert settled(TERMS, TWO_DAYS.end) == [pricing.base(TERMS, TWO_DAYS)]


@pytest.mark.parametrize("early", [MINUTE, 30 * HOUR])
def test_an_early_return_is_not_cheaper(early: timedelta) -> None:
    assert settled(TERMS, TWO_DAYS.end - early) == [pricing.base(TERMS, TWO_DAYS)]


def test_an_early_pickup_is_not_dearer_and_a_late_one_not_cheaper() -> None:
    for actual_start in (START - 3 * HOUR, START + 30 * HOUR):
        lines = pricing.settle(
            TERMS, TWO_DAYS, actual_start=actual_start, start_fuel_percent=None, returned=Return(TWO_DAYS.end, 12_000)
        )
        assert lines == [pricing.base(TERMS, TWO_DAYS)]


@pytest.mark.parametrize(("late_minutes", "hours"), [(60, 1), (61, 2), (120, 2), (121, 3), (3000, 50)])
def test_a_return_after_the_grace_costs_the_started_hours_since_the_booked_end(late_minutes: int, hours: int) -> None:
    lines = settled(TERMS, TWO_DAYS.end + late_minutes * MINUTE)
    assert extras(lines) == [("late_fee", "late_started_hours", hours, hours * 700)]


@pytest.mark.parametrize("rates", [TERMS, BY_DAYS])
def test_a_return_within_the_grace_is_not_late(rates: Terms) -> None:
    assert extras(settled(rates, TWO_DAYS.end + 59 * MINUTE)) == []


@pytest.mark.parametrize(("late_minutes", "days"), [(60, 1), (24 * 60 + 59, 1), (24 * 60 + 60, 2)])
def test_without_a_late_fee_the_extra_started_days_are_charged(late_minutes: int, days: int) -> None:
    lines = settled(BY_DAYS, TWO_DAYS.end + late_minutes * MINUTE)
    assert extras(lines) == [("rental", "late_started_days", days, days * 5000)]


def test_without_a_late_fee_hours_on_a_day_that_is_paid_cost_nothing() -> None:
    five_hours = Period(START, START + 5 * HOUR)
    at = five_hours.end + 10 * HOUR
    lines = pricing.settle(BY_DAYS, five_hours, actual_start=START, start_fuel_percent=None, returned=Return(at, 12_000))
    assert lines == [pricing.base(BY_DAYS, five_hours)]


def test_a_return_has_its_own_grace_even_where_the_booking_used_up_that_of_the_day() -> None:
    """Booked half an hour into the grace of its day, the rental is not late for another fifty-nine minutes."""
    booked = Period(START, START + 24.5 * HOUR)
    returned = Return(booked.end + 40 * MINUTE, 12_000)
    lines = pricing.settle(BY_DAYS, booked, actual_start=START, start_fuel_percent=None, returned=returned)
    assert [line.quantity for line in lines] == [1]


def test_missing_fuel_costs_its_percents() -> None:
    lines = settled(TERMS, TWO_DAYS.end, before=80, after=55)
    assert extras(lines) == [("fuel", "fuel_missing", 25, 25 * 120)]


@pytest.mark.parametrize(("before", "after"), [(50, 50), (50, 80), (None, 10), (100, None), (None, None)])
def test_more_fuel_is_not_paid_back_and_an_unknown_level_costs_nothing(before: int | None, after: int | None) -> None:
    assert extras(settled(TERMS, TWO_DAYS.end, before=before, after=after)) == []


def test_fuel_without_a_fee_makes_no_line() -> None:
    assert extras(settled(replace(TERMS, fuel_fee_per_percent=0), TWO_DAYS.end, before=100, after=0)) == []


def test_each_charge_of_staff_is_a_line_in_its_order() -> None:
    found = (ExtraCharge("damage", "Scratched door", 25_000), ExtraCharge("toll", "Skyway", 264))
    returned = Return(TWO_DAYS.end, 12_000, None, found)
    lines = pricing.settle(TERMS, TWO_DAYS, actual_start=START, start_fuel_percent=None, returned=returned)
    assert lines[1:] == [
        Line("damage", "Scratched door", "entered_by_staff", 1, 25_000, 25_000),
        Line("toll", "Skyway", "entered_by_staff", 1, 264, 264),
    ]


def test_a_return_before_the_handover_is_refused() -> None:
    with pytest.raises(PeriodError) as refused:
        settled(TERMS, START - MINUTE)
    assert refused.value.code == "returned_before_start"


def test_a_return_that_costs_more_than_an_amount_can_be_is_refused() -> None:
    with pytest.raises(AmountTooLarge):
        settled(replace(TERMS, late_fee_per_hour=MAX_AMOUNT), TWO_DAYS.end + 2 * HOUR)


def test_lines_that_fit_one_by_one_are_refused_when_their_sum_does_not() -> None:
    half = ExtraCharge("damage", "Burnt out", MAX_AMOUNT // 2)
    returned = Return(TWO_DAYS.end, 12_000, None, (half, half))
    with pytest.raises(AmountTooLarge):
        pricing.settle(TERMS, TWO_DAYS, actual_start=START, start_fuel_percent=None, returned=returned)


def test_cancelling_is_free_up_to_and_at_the_free_hours_before_the_start() -> None:
    limit = START - 24 * HOUR
    assert pricing.cancellation(TERMS, TWO_DAYS, at=limit) is None
    assert pricing.cancellation(TERMS, TWO_DAYS, at=limit + MINUTE) == Line(
        "cancellation", "Cancellation fee", "cancelled_after_free_time", 1, 2500, 2500
    )


def test_fees_of_nothing_make_no_line() -> None:
    free = replace(TERMS, cancellation_fee=0, no_show_fee=0)
    assert pricing.cancellation(free, TWO_DAYS, at=START) is None
    assert pricing.no_show(free) is None


def test_a_no_show_costs_its_fee() -> None:
    assert pricing.no_show(TERMS) == Line("no_show", "No-show fee", "not_collected", 1, 9000, 9000)


@pytest.mark.parametrize("type_", ["rental", "late_fee", "fuel", "cleaning", "other", "cancellation", "no_show"])
def test_what_the_company_sells_is_taxed(type_: str) -> None:
    line = Line(type_, "Sold", "drawn", 1, 1550, 1550)
    assert pricing.taxed(line, "VAT19", 1900) == TaxedLine(line, "VAT19", 1900, 295, 1845)


@pytest.mark.parametrize("type_", ["damage", "toll", "fine"])
def test_compensation_is_outside_the_scope_of_tax(type_: str) -> None:
    line = Line(type_, "Recovered", "drawn", 1, 1550, 1550)
    assert pricing.taxed(line, "VAT19", 1900) == TaxedLine(line, "NONE", 0, 0, 1550)


def test_a_line_rated_at_zero_keeps_its_tax_code() -> None:
    assert pricing.taxed(pricing.base(TERMS, TWO_DAYS), "ZERO", 0).tax_code == "ZERO"


@st.composite
def _returns(draw: st.DrawFn) -> tuple[Terms, Period, datetime, int | None, Return]:
    rates, booked = draw(terms), draw(bookings)
    handover = booked.start + draw(minutes(-600, 600))
    at = handover + draw(minutes(0, 120 * 1440))
    return rates, booked, handover, draw(fuel_levels), Return(at, 12_000, draw(fuel_levels), draw(charges))


@calm
@given(_returns())
def test_a_return_costs_at_least_the_base_and_the_charges_and_no_line_is_negative_or_broken(
    case: tuple[Terms, Period, datetime, int | None, Return],
) -> None:
    rates, booked, handover, fuel, returned = case
    lines = pricing.settle(rates, booked, actual_start=handover, start_fuel_percent=fuel, returned=returned)
    base = pricing.base(rates, booked)
    assert lines[0] == base
    assert all(type(line.net_amount) is int and line.net_amount >= 0 for line in lines)
    total = sum(line.net_amount for line in lines)
    entered = sum(charge.amount for charge in returned.charges)
    late_hours = max(0, (returned.at - booked.end) // HOUR + 1)
    most_late = max(late_hours * rates.late_fee_per_hour, (late_hours // 24 + 2) * rates.daily_rate)
    assert base.net_amount + entered <= total
    assert total <= base.net_amount + entered + most_late + 100 * rates.fuel_fee_per_percent


@calm
@given(_returns(), minutes(0, 3 * 1440))
def test_a_later_return_is_never_cheaper(case: tuple[Terms, Period, datetime, int | None, Return], later: timedelta) -> None:
    rates, booked, handover, fuel, returned = case

    def cost(at: datetime) -> int:
        back = replace(returned, at=at)
        lines = pricing.settle(rates, booked, actual_start=handover, start_fuel_percent=fuel, returned=back)
        return sum(line.net_amount for line in lines)

    assert cost(returned.at) <= cost(returned.at + later)


@calm
@given(terms, bookings, minutes(-10_000, 10_000), minutes(0, 10_000))
def test_cancelling_later_is_never_cheaper(rates: Terms, booked: Period, when: timedelta, later: timedelta) -> None:
    def fee(at: datetime) -> int:
        line = pricing.cancellation(rates, booked, at=at)
        return line.net_amount if line else 0

    assert fee(booked.start + when) <= fee(booked.start + when + later)
