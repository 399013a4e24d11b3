"""What the property-based tests of the rules draw from."""

from datetime import UTC, datetime, timedelta
from zoneinfo import available_timezones

from hypothesis import settings
from hypothesis import strategies as st

from fleet.rules.money import FULL_RATE_BPS
from fleet.rules.periods import Period
from fleet.rules.pricing import CHARGE_TYPES, LINE_TYPES, ExtraCharge, Line, TaxedLine, Terms, taxed

calm = settings(deadline=None, max_examples=200)
"""Two cores are shared with others: no test here fails for being slow."""

zones = st.sampled_from(sorted(available_timezones() - {"localtime", "Factory", "posixrules"}))

CLOCK_CHANGES = [
    ("Europe/Berlin", "2026-03-29T01:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00Z"),
    ("America/New_York", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T06:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30Z"),
    ("America/Santiago", "2026-04-05T03:00Z"),
    ("America/Santiago", "2026-09-06T04:00Z"),
]
"""A branch, and an instant at which its clock is put forward or back: by an hour, by half of one, at midnight."""


def minutes(least: int, most: int) -> st.SearchStrategy[timedelta]:
    return st.integers(least, most).map(lambda count: timedelta(minutes=count))


moments = st.datetimes(datetime.fromisoformat("2015-01-01"), datetime.fromisoformat("2040-01-01"), timezones=st.just(UTC))


@st.composite
def _near_a_clock_change(draw: st.DrawFn) -> tuple[str, datetime]:
    zone, change = draw(st.sampled_from(CLOCK_CHANGES))
    return zone, datetime.fromisoformat(change) + draw(minutes(-4 * 1440, 180))


pickups = st.one_of(st.tuples(zones, moments), _near_a_clock_change())
"""A branch's time zone and the instant of a pickup there; half of them within days of a clock change."""

graces = st.integers(0, 12 * 60)

terms = st.builds(
    Terms,
    daily_rate=st.integers(0, 10**6),
    currency=st.sampled_from(["EUR", "JPY", "KWD"]),
    timezone=zones,
    grace_minutes=graces,
    late_fee_per_hour=st.integers(0, 10**5),
    fuel_fee_per_percent=st.integers(0, 10**4),
    cancellation_fee=st.integers(0, 10**6),
    free_cancellation_hours=st.integers(0, 72),
    no_show_fee=st.integers(0, 10**6),
    tax_code=st.just("VAT"),
    tax_bps=st.integers(0, FULL_RATE_BPS),
)

bookings = st.builds(lambda start, length: Period(start, start + length), moments, minutes(60, 60 * 1440))

fuel_levels = st.none() | st.integers(0, 100)

charges = st.lists(
    st.builds(ExtraCharge, st.sampled_from(sorted(CHARGE_TYPES)), st.just("Found"), st.integers(0, 10**6)), max_size=5
).map(tuple)


@st.composite
def _invoice_line(draw: st.DrawFn) -> TaxedLine:
    type_ = draw(st.sampled_from(sorted(LINE_TYPES)))
    quantity, unit = draw(st.integers(0, 400)), draw(st.integers(0, 10**6))
    return taxed(Line(type_, "Drawn", "drawn", quantity, unit, quantity * unit), "VAT", draw(st.integers(0, 3000)))


invoices = st.lists(_invoice_line(), max_size=8)
