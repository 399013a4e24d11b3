"""Rental periods, half open, and the days that are billed for them. Explained in docs/money.md."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

SHORTEST = timedelta(hours=1)
LONGEST = timedelta(days=365)
BACKDATING = timedelta(hours=1)
"""How far before now a rental may start without the permission to backdate."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(3000, 1, 1, tzinfo=UTC)
"""Periods stay between these two, so that no sum with a day, a padding or a time zone leaves what a datetime holds."""


class PeriodError(ValueError):
    """A period breaks a rule.

    `code` is stable: period_empty, period_too_short, period_too_long, period_in_past, period_out_of_range, or
    returned_before_start (from pricing.settle). `message` is for the person who asked.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Period:
    """The time from `start` up to, and without, `end`: `[start, end)`. Kept in UTC, whatever the offset given.

    Raises PeriodError `period_empty` or `period_out_of_range` (years 1970 to 2999), and plain ValueError for a time
    without an offset, which is a mistake of the caller and not of the customer.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", _in_utc(self.start))
        object.__setattr__(self, "end", _in_utc(self.end))
        if self.end <= self.start:
            raise PeriodError("period_empty", "The end must be after the start.")
        if self.start < EARLIEST or self.end > LATEST:
            raise _out_of_range()

    @property
    def length(self) -> timedelta:
        """The time that really passes, whatever clocks on the wall do meanwhile."""
        return self.end - self.start

    def overlaps(self, other: Self) -> bool:
        """Whether some instant is in both. Back-to-back periods share none."""
        return self.start < other.end and other.start < self.end

    def touches(self, other: Self) -> bool:
        """Whether one starts at the very instant at which the other ends."""
        return self.end == other.start or other.end == self.start

    def padded(self, before_minutes: int, after_minutes: int) -> Self:
        """The period with the turnaround time of the vehicle around it, as it stands in the calendar."""
        before, after = timedelta(minutes=before_minutes), timedelta(minutes=after_minutes)
        return replace(self, start=self.start - before, end=self.end + after)


def rental_period(start: datetime, end: datetime, *, now: datetime, may_backdate: bool) -> Period:
    """The period of a new or changed rental.

    It lasts at least one hour and at most 365 days of real time, and starts no earlier than one hour before `now`
    unless the caller may backdate. Raises PeriodError as Period does, or with `period_too_short`, `period_too_long`
    or `period_in_past`. The source is the API contract, section Rentals.
    """
    period = Period(start, end)
    if period.length < SHORTEST:
        raise PeriodError("period_too_short", "A rental lasts at least one hour.")
    if period.length > LONGEST:
        raise PeriodError("period_too_long", "A rental lasts at most 365 days.")
    if period.start < now - BACKDATING and not may_backdate:
        raise PeriodError("period_in_past", "A rental starts no earlier than one hour ago.")
    return period


def billable_days(period: Period, timezone: str, grace_minutes: int) -> int:
    """The started days of the period, counted on the wall clock of the pickup branch; at least one.

    A day ends when the branch's clock shows the time of the pickup again. `grace_minutes` of real time may pass after
    that before the next day has started. So the answer is the smallest n of 1, 2, 3 ... with

        end <= (the instant of: wall-clock start + n days) + grace

    Counting on the wall clock makes a night with a clock change one day, like any other. Berlin, grace 59:

        2026-03-28 10:00 (+01:00) to 2026-03-29 10:00 (+02:00)   23 hours pass, one day
        2026-03-28 10:00 (+01:00) to 2026-03-29 11:00 (+02:00)   24 hours pass, two days: the second began at 10:59
        2026-10-24 10:00 (+02:00) to 2026-10-25 10:00 (+01:00)   25 hours pass, one day
        2026-10-24 10:00 (+02:00) to 2026-10-25 11:00 (+01:00)   26 hours pass, two days

    A day that would end at a time the clock shows twice ends at the second; one that the clock skips ends as much
    later as the clock was put forward. Both favour the customer, and both keep the count from ever falling as `end`
    moves on. `timezone` is an IANA name; raises zoneinfo.ZoneInfoNotFoundError for an unknown one.
    """
    zone = ZoneInfo(timezone)
    start = period.start.astimezone(zone).replace(tzinfo=None)
    due = period.end - timedelta(minutes=grace_minutes)
    # Two days less than the calendar shows is never too many, even where a country skipped a whole date.
    days = max(1, (due.astimezone(zone).date() - start.date()).days - 2)
    while due > _instant(start + timedelta(days=days), zone):
        days += 1
    return days


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """When the zone's clock shows this time: the later reading, where it shows it twice or never."""
    return max(wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is UTC:
        return moment
    if moment.utcoffset() is None:
        raise ValueError("a period is made of times with an offset")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise _out_of_range() from None


def _out_of_range() -> PeriodError:
    return PeriodError("period_out_of_range", "The years of a period are 1970 to 2999.")
