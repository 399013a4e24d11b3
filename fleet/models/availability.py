"""Which vehicles are free: the questions that are asked of the calendar before it is written to."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fleet.db import db
from fleet.models.base import Condition, Listing
from fleet.rules.money import MAX_AMOUNT
from fleet.rules.periods import Period

# Free is asked of one vehicle at a time: as a join the planner misjudges the ranges and reads every block there is. And it
# is asked as a truth and not by IS NULL, of which the planner thinks that it hardly ever holds: it would then look at the
# whole fleet and sort it, where a page of free vehicles is soon found. Parameters: start, end.
FREE = """coalesce((
  SELECT false FROM vehicle_block taken
  WHERE taken.vehicle_id = vehicle.id AND taken.live AND taken.occupied && tstzrange(
    %s::timestamptz - make_interval(mins => coalesce(vehicle_class.turnaround_before_minutes, 0)),
    %s::timestamptz + make_interval(mins => coalesce(vehicle_class.turnaround_after_minutes, 0))
  ) LIMIT 1
), true)"""

# A rate whose rental would be beyond every amount (the parameter is the highest that is not) cannot be offered either. That
# no retired vehicle is in service, the database sees to.
OFFERABLE = """vehicle.status = 'in_service'
AND coalesce(vehicle.daily_rate, vehicle_class.daily_rate) <= %s"""

AVAILABLE = Listing(
    columns={
        **{name: f"vehicle.{name}::text" for name in ("id", "class_id", "branch_id")},
        **{
            name: f"vehicle.{name}"
            for name in (
                "plate_number", "make", "model", "year", "fuel_type", "transmission", "color", "passenger_capacity",
                "currency",
            )
        },
        "daily_rate": "coalesce(vehicle.daily_rate, vehicle_class.daily_rate)",
        "timezone": "coalesce(branch.timezone, 'UTC')",
    },
    source="""vehicle LEFT JOIN vehicle_class ON vehicle_class.id = vehicle.class_id
LEFT JOIN branch ON branch.id = vehicle.branch_id""",
    key="vehicle.id",
)  # fmt: skip


def highest_rate(period: Period) -> int:
    """The highest daily rate at which the period can be billed at all, in minor units.

    A clock change, a started day and a skipped date add less than three days to what passes.
    """
    return MAX_AMOUNT // (period.length.days + 3)


def offerable(period: Period) -> Condition:
    """Vehicles in service at a rate that the period can be billed at."""
    return Condition(OFFERABLE, (highest_rate(period),))


def free(period: Period) -> Condition:
    """Vehicles that nothing occupies in the period and the turnaround times around it."""
    return Condition(FREE, (period.start, period.end))


def not_overdue(*, at: datetime) -> Condition:
    """Vehicles that no customer has kept beyond the agreed time."""
    return Condition(
        """coalesce((SELECT false FROM rental late
        WHERE late.vehicle_id = vehicle.id AND late.status = 'active' AND late.end_at <= %s LIMIT 1), true)""",
        (at,),
    )


def rentable(period: Period, *, now: datetime, late_until: datetime) -> list[Condition]:
    """Vehicles that can be reserved for the period. One that is late by now counts as out up to `late_until`."""
    wanted = [offerable(period), free(period)]
    return [*wanted, not_overdue(at=now)] if period.start <= late_until else wanted


MOST_GROUPS = 500
_GROUP = ("class_id", "currency", "free", "lowest_daily_rate")
_GROUPS = """SELECT vehicle.class_id::text, vehicle.currency, count(*),
  min(coalesce(vehicle.daily_rate, vehicle_class.daily_rate))
FROM vehicle LEFT JOIN vehicle_class ON vehicle_class.id = vehicle.class_id
WHERE {conditions}
GROUP BY vehicle.class_id, vehicle.currency ORDER BY vehicle.class_id, vehicle.currency LIMIT {most:d}"""


def counting(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """The statement that counts the vehicles that meet the conditions, and its parameters."""
    where = " AND ".join(f"({condition.sql})" for condition in conditions)
    params = [value for condition in conditions for value in condition.params]
    return _GROUPS.format(conditions=where, most=MOST_GROUPS), params


def grouped(conditions: Sequence[Condition]) -> list[dict[str, Any]]:
    """How many vehicles of each class and currency meet the conditions, and the lowest rate of them; MOST_GROUPS at most."""
    rows = db.recurring(*counting(conditions))
    return [dict(zip(_GROUP, row, strict=True)) for row in rows]


# The nearest free window is the one asked for, or starts as early as can be, or starts where a block ends, or ends where one
# begins: any other could be moved closer. The block of a rental that is being moved is its own to give up.
# Parameters: start, length, rental or null, now, the earliest start while the vehicle is late, now, vehicle.
NEAREST_FREE = """WITH asked AS (
  SELECT vehicle.id AS vehicle_id, %s::timestamptz AS start_at, %s::interval AS length, %s::uuid AS rental_id,
    CASE WHEN EXISTS (
      SELECT 1 FROM rental WHERE rental.vehicle_id = vehicle.id AND rental.status = 'active' AND rental.end_at <= %s
    ) THEN %s::timestamptz ELSE %s::timestamptz END AS earliest,
    make_interval(mins => coalesce(vehicle_class.turnaround_before_minutes, 0)) AS before,
    make_interval(mins => coalesce(vehicle_class.turnaround_after_minutes, 0)) AS after
  FROM vehicle LEFT JOIN vehicle_class ON vehicle_class.id = vehicle.class_id
  WHERE vehicle.id = %s AND vehicle.status = 'in_service'
), busy AS (
  SELECT block.occupied FROM asked JOIN vehicle_block block USING (vehicle_id)
  WHERE block.live AND (asked.rental_id IS NULL OR block.rental_id IS DISTINCT FROM asked.rental_id)
), candidate AS (
  SELECT upper(occupied) + before AS start_at FROM busy, asked
  UNION SELECT lower(occupied) - after - length FROM busy, asked
  UNION SELECT start_at FROM asked
  UNION SELECT earliest FROM asked
)
SELECT candidate.start_at FROM candidate, asked
WHERE candidate.start_at >= asked.earliest AND NOT EXISTS (
  SELECT 1 FROM busy
  WHERE busy.occupied && tstzrange(candidate.start_at - before, candidate.start_at + length + after)
)
ORDER BY greatest(candidate.start_at - asked.start_at, asked.start_at - candidate.start_at), candidate.start_at
LIMIT 1"""
