"""Started days, the grace, and nights on which the clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fleet.rules.periods import Period, billable_days
from tests.rules.strategies import bookings, calm, graces, minutes, moments, pickups

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
DAYS = st.integers(1, 400)
Pickup = tuple[str, datetime]


def later_on_the_wall(pickup: Pickup, days: int, fold: int = 0) -> datetime:
    """The instant at which the branch's clock shows the pickup's time, so many days later."""
    zone, start = pickup
    wall = start.astimezone(ZoneInfo(zone)) + days * DAY
    return wall.replace(fold=fold).astimezone(UTC)


def billed(pickup: Pickup, end: datetime, grace: int = 0) -> int:
    return billable_days(Period(pickup[1], end), pickup[0], grace)


def between(zone: str, start: str, end: str, grace: int = 59) -> int:
    return billable_days(Period(datetime.fromisoformat(start), datetime.fromisoformat(end)), zone, grace)


@calm
@given(pickups, DAYS, graces, st.sampled_from([0, 1]))
def test_back_at_the_same_time_on_the_wall_n_days_later_is_n_days_in_every_zone(
    pickup: Pickup, days: int, grace: int, fold: int
) -> None:
    assert billed(pickup, later_on_the_wall(pickup, days, fold), grace) == days


@calm
@given(pickups, DAYS, graces)
def test_the_grace_is_free_to_its_last_instant_and_then_the_next_day_has_started(pickup: Pickup, days: int, grace: int) -> None:
    end = later_on_the_wall(pickup, days)
    assume(end == later_on_the_wall(pickup, days, fold=1))
    assert billed(pickup, end + grace * MINUTE, grace) == days
    assert billed(pickup, end + grace * MINUTE + TICK, grace) == days + 1
    assert billed(pickup, end + (grace + 1) * MINUTE, grace) == days + 1


@calm
@given(pickups, minutes(1, 10 * 1440), minutes(0, 10 * 1440), graces)
def test_a_later_end_never_bills_fewer_days(pickup: Pickup, length: timedelta, more: timedelta, grace: int) -> None:
    end = pickup[1] + length
    assert billed(pickup, end, grace) <= billed(pickup, end + more, grace)


@calm
@given(pickups, minutes(1, 10 * 1440), graces, graces)
def test_a_longer_grace_never_bills_more_days(pickup: Pickup, length: timedelta, one: int, other: int) -> None:
    end = pickup[1] + length
    assert billed(pickup, end, max(one, other)) <= billed(pickup, end, min(one, other))


@calm
@given(bookings, graces, st.sampled_from(["UTC", "Asia/Kolkata", "Pacific/Kiritimati", "Etc/GMT+12"]))
def test_where_clocks_never_change_the_days_are_plain_arithmetic(period: Period, grace: int, zone: str) -> None:
    started = -((grace * MINUTE - period.length) // DAY)
    assert billable_days(period, zone, grace) == max(1, started)


@calm
@given(pickups, minutes(1, 400 * 1440), graces)
def test_clock_changes_move_the_count_by_no_more_than_their_own_hours(pickup: Pickup, length: timedelta, grace: int) -> None:
    most_of_a_change = timedelta(hours=3)
    days = billed(pickup, pickup[1] + length, grace)
    assert length <= days * DAY + grace * MINUTE + most_of_a_change
    assert days == 1 or length > (days - 1) * DAY + grace * MINUTE - most_of_a_change


@calm
@given(pickups, graces)
def test_the_shortest_rental_is_one_day(pickup: Pickup, grace: int) -> None:
    assert billed(pickup, pickup[1] + TICK, grace) == 1


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("Europe/Berlin", "2026-03-28T10:00+01:00", "2026-03-29T10:00+02:00"),
        ("Europe/Berlin", "2026-10-24T10:00+02:00", "2026-10-25T10:00+01:00"),
        ("Australia/Lord_Howe", "2026-10-03T10:00+10:30", "2026-10-04T10:00+11:00"),
        ("America/New_York", "2026-10-31T10:00-04:00", "2026-11-01T10:00-05:00"),
    ],
)
def test_a_night_with_a_clock_change_is_one_day_even_without_a_grace(zone: str, start: str, end: str) -> None:
    assert between(zone, start, end, grace=0) == 1
    assert between(zone, start, (datetime.fromisoformat(end) + MINUTE).isoformat(), grace=0) == 2


def test_a_day_that_ends_at_a_time_shown_twice_ends_at_the_second() -> None:
    start = "2026-10-24T02:30+02:00"
    assert between("Europe/Berlin", start, "2026-10-25T02:30+02:00", grace=0) == 1
    assert between("Europe/Berlin", start, "2026-10-25T02:30+01:00", grace=0) == 1
    assert between("Europe/Berlin", start, "2026-10-25T02:31+01:00", grace=0) == 2


def test_a_day_that_ends_at_a_time_the_clock_skips_ends_as_much_later() -> None:
    start = "2026-03-28T02:30+01:00"
    assert between("Europe/Berlin", start, "2026-03-29T03:30+02:00", grace=0) == 1
    assert between("Europe/Berlin", start, "2026-03-29T03:31+02:00", grace=0) == 2


def test_a_pickup_in_the_hour_that_comes_twice_keeps_its_own_reading() -> None:
    assert between("Europe/Berlin", "2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00", grace=0) == 1
    assert between("Europe/Berlin", "2026-10-25T02:30+01:00", "2026-10-26T02:30+01:00", grace=0) == 1


def test_the_same_instants_can_be_other_days_at_another_branch() -> None:
    start, end = "2026-03-28T09:00Z", "2026-03-29T09:00Z"
    assert between("Africa/Lagos", start, end) == 1
    assert between("Europe/Berlin", start, end) == 2


@calm
@given(moments)
def test_an_unknown_time_zone_is_an_error_and_not_a_guess(start: datetime) -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        billed(("Europe/Atlantis", start), start + DAY)
