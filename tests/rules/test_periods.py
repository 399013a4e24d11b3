"""Periods: what they may be, and how two of them lie to each other."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rules.periods import Period, PeriodError, rental_period
from tests.rules.strategies import bookings, calm, minutes

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


def asked(start: datetime, end: datetime, *, may_backdate: bool = False) -> Period:
    return rental_period(start, end, now=NOW, may_backdate=may_backdate)


def refusal(start: datetime, end: datetime, *, may_backdate: bool = False) -> str:
    with pytest.raises(PeriodError) as refused:
        asked(start, end, may_backdate=may_backdate)
    assert str(refused.value) == refused.value.message
    return refused.value.code


@pytest.mark.parametrize("length", [timedelta(0), -HOUR])
def test_a_period_that_ends_when_or_before_it_starts_is_empty(length: timedelta) -> None:
    assert refusal(NOW, NOW + length) == "period_empty"


def test_a_rental_lasts_at_least_one_hour() -> None:
    assert asked(NOW, NOW + HOUR).length == HOUR
    assert refusal(NOW, NOW + HOUR - TICK) == "period_too_short"


def test_a_rental_lasts_at_most_365_days() -> None:
    year = timedelta(days=365)
    assert asked(NOW, NOW + year).length == year
    assert refusal(NOW, NOW + year + TICK) == "period_too_long"


def test_a_rental_starts_no_earlier_than_one_hour_ago() -> None:
    end = NOW + timedelta(days=1)
    assert asked(NOW - HOUR, end).start == NOW - HOUR
    assert refusal(NOW - HOUR - TICK, end) == "period_in_past"


def test_who_may_backdate_enters_a_rental_of_last_year() -> None:
    start = NOW - timedelta(days=400)
    assert asked(start, start + HOUR, may_backdate=True).start == start


def test_backdating_lifts_no_other_rule() -> None:
    start = NOW - timedelta(days=400)
    assert refusal(start, start, may_backdate=True) == "period_empty"
    assert refusal(start, start + HOUR / 2, may_backdate=True) == "period_too_short"
    assert refusal(start, NOW, may_backdate=True) == "period_too_long"


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1969-12-31T23:59Z", "1970-01-02T00:00Z"),
        ("2999-12-31T00:00Z", "3000-01-01T00:01Z"),
        ("9999-12-31T20:00-08:00", "9999-12-31T23:00-08:00"),
        ("0001-01-01T00:00+08:00", "0001-01-02T00:00+08:00"),
    ],
)
def test_a_period_outside_the_years_1970_to_2999_is_out_of_range(start: str, end: str) -> None:
    code = refusal(datetime.fromisoformat(start), datetime.fromisoformat(end), may_backdate=True)
    assert code == "period_out_of_range"


def test_a_time_without_an_offset_is_the_callers_mistake_and_not_the_customers() -> None:
    with pytest.raises(ValueError, match="offset") as refused:
        Period(NOW.replace(tzinfo=None), NOW)
    assert not isinstance(refused.value, PeriodError)


def test_a_period_is_kept_in_utc_whatever_the_offset_given() -> None:
    manila = timezone(8 * HOUR)
    period = Period(NOW.astimezone(manila), (NOW + HOUR).astimezone(manila))
    assert period == Period(NOW, NOW + HOUR)
    assert period.start.tzinfo is UTC
    assert period.end.tzinfo is UTC


def test_back_to_back_periods_touch_and_do_not_overlap() -> None:
    morning, noon = Period(NOW, NOW + HOUR), Period(NOW + HOUR, NOW + 2 * HOUR)
    assert morning.touches(noon)
    assert noon.touches(morning)
    assert not morning.overlaps(noon)
    assert not noon.overlaps(morning)


def test_periods_that_share_one_instant_overlap_and_do_not_touch() -> None:
    one, other = Period(NOW, NOW + HOUR), Period(NOW + HOUR - TICK, NOW + 2 * HOUR)
    assert one.overlaps(other)
    assert not one.touches(other)


def test_padding_turns_back_to_back_periods_into_a_conflict() -> None:
    one, other = Period(NOW, NOW + HOUR), Period(NOW + HOUR, NOW + 2 * HOUR)
    assert one.padded(0, 30) == Period(NOW, NOW + 1.5 * HOUR)
    assert one.padded(15, 0) == Period(NOW - HOUR / 4, NOW + HOUR)
    assert one.padded(0, 30).overlaps(other)


@calm
@given(bookings, minutes(-90 * 1440, 90 * 1440), minutes(1, 90 * 1440))
def test_two_periods_overlap_touch_or_lie_apart_and_only_one_of_these(one: Period, shift: timedelta, length: timedelta) -> None:
    other = Period(one.start + shift, one.start + shift + length)
    apart = one.end < other.start or other.end < one.start
    assert [one.overlaps(other), one.touches(other), apart].count(True) == 1
    assert one.overlaps(other) == other.overlaps(one)
    assert one.touches(other) == other.touches(one)


@calm
@given(bookings, st.integers(0, 600), st.integers(0, 600))
def test_padding_lengthens_a_period_by_exactly_its_minutes(period: Period, before: int, after: int) -> None:
    padded = period.padded(before, after)
    assert padded.length - period.length == timedelta(minutes=before + after)
    assert padded.start <= period.start
    assert padded.end >= period.end
