"""What occupies a vehicle: its calendar, manual blocks, and what is free instead."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import Invalid, InvalidState, NotFound, RentalOverlap
from fleet.models.availability import AVAILABLE, NEAREST_FREE, rentable
from fleet.models.base import A_FEW, Condition
from fleet.models.calendar import (
    BLOCK_COLUMNS,
    BLOCK_OF_VEHICLE,
    CALENDAR,
    EXTEND_OVERDUE,
    INSERT_MANUAL_BLOCK,
    LIVE_CALENDAR,
    OVERDUE_VEHICLES_FOR_UPDATE,
    VEHICLE_TO_BLOCK_FOR_SHARE,
    Block,
)
from fleet.models.vehicles import vehicle_exists
from fleet.rules import lifecycles
from fleet.rules.periods import LONGEST, Period, PeriodError

OVERDUE_MARGIN = timedelta(minutes=15)
"""How long a vehicle that is late counts as taken from now on; longer than the sweep's interval."""

LONGEST_VIEW = timedelta(days=400)
USUAL_VIEW = timedelta(days=30)

_OFFERED = ("id", "plate_number", "make", "model", "daily_rate", "currency")


def view(start: datetime | None, end: datetime | None) -> Period:
    """The part of a calendar to look at: from now on, and thirty days, unless said otherwise. Raises Invalid."""
    start = start or clock.now()
    end = end or start + USUAL_VIEW
    if not start < end <= start + LONGEST_VIEW:
        raise Invalid.field("to", "bad_window", f"must be after the start and at most {LONGEST_VIEW.days} days after it")
    return Period(start, end)


def listed(actor: Actor, vehicle_id: UUID, window: Period, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of what occupies, or occupied, a vehicle in the window, in the order of time. Raises NotFound."""
    rows = db.rows(CALENDAR, (vehicle_id, window.end, window.start, after, after, limit + 1))
    if not rows and not vehicle_exists(vehicle_id):
        raise NotFound()
    return [_seen_by(actor, row) for row in rows]


def live_blocks(actor: Actor, vehicle_id: UUID, window: Period) -> list[dict[str, Any]]:
    """Everything that occupies a vehicle in the window, in the order of time. Raises NotFound."""
    rows = db.rows(LIVE_CALENDAR, (vehicle_id, window.end, window.start))
    if not rows and not vehicle_exists(vehicle_id):
        raise NotFound()
    return [_seen_by(actor, row) for row in rows]


def shown(actor: Actor, vehicle_id: UUID, block_id: UUID) -> dict[str, Any]:
    """One block of a vehicle. Raises NotFound."""
    row = db.one(BLOCK_OF_VEHICLE, (vehicle_id, block_id))
    if row is None:
        raise NotFound()
    return _seen_by(actor, row)


@atomic
def block(actor: Actor, vehicle_id: UUID, *, start_at: datetime, end_at: datetime, reason: str | None) -> dict[str, Any]:
    """Take a vehicle's time by hand, for whatever is no rental; no turnaround time is added.

    The exclusion constraint arbitrates between this and everything else that wants the vehicle.
    Raises NotFound, PeriodError, InvalidState for a vehicle that left the fleet, RentalOverlap.
    """
    now = clock.now()
    period = _manual_period(start_at, end_at, now)
    row = db.one(VEHICLE_TO_BLOCK_FOR_SHARE, (now, vehicle_id))
    if row is None:
        raise NotFound()
    status, retired_at, out_overdue = row
    if retired_at is not None or status in lifecycles.vehicle.final:
        raise InvalidState("The vehicle has left the fleet")
    if out_overdue and period.start <= now + OVERDUE_MARGIN:
        raise RentalOverlap("The vehicle is out, and late")
    values = (clock.new_id(), vehicle_id, period.start, period.end, period.start, period.end, reason, actor.user_id, now)
    made = db.one(INSERT_MANUAL_BLOCK, values)
    if made is None:
        raise RentalOverlap()
    return _seen_by(actor, made)


@atomic
def unblock(actor: Actor, vehicle_id: UUID, block_id: UUID) -> None:
    """Give back time that was taken by hand; the block stays in the history. Doing it again changes nothing.

    Raises NotFound, InvalidState for a block that a rental or a job made: it ends with that.
    """
    found = shown(actor, vehicle_id, block_id)
    if found["kind"] != "manual":
        raise InvalidState("Only a manual block can be removed")
    Block.update(live=False).where(Block.id == block_id).execute()


def alternatives(
    *,
    vehicle_id: UUID,
    class_id: UUID | None,
    branch_id: UUID | None,
    period: Period,
    rental_id: UUID | None = None,
    limit: int = A_FEW,
) -> dict[str, Any]:
    """What to offer to somebody whose vehicle is taken: others of its class that are free then, and when it is free next.

    `branch_id` None looks in every branch; `rental_id` is the rental that is being moved, whose own block does not count.
    Answers {"vehicles": [...], "nearest_window": {"start_at", "end_at"} or None}, and nothing about who has it.
    """
    return {
        "vehicles": _others_free(vehicle_id, class_id, branch_id, period, limit),
        "nearest_window": _nearest_window(vehicle_id, rental_id, period),
    }


@atomic
def extend_overdue() -> int:
    """Let every vehicle that is late keep blocking its calendar, and return how many blocks grew.

    The block of an active rental past its end reaches at least OVERDUE_MARGIN from now, or up to the next live block. The
    vehicles are locked by a statement of their own: the next one then sees every block that was made before the lock, so
    that no block grows into a new one. Vehicles that are being booked in this instant are left for the next sweep.
    """
    now = clock.now()
    vehicle_ids = [row[0] for row in db.rows(OVERDUE_VEHICLES_FOR_UPDATE, (now,))]
    if not vehicle_ids:
        return 0
    grown = db.execute_sql(EXTEND_OVERDUE, (now + OVERDUE_MARGIN, now, vehicle_ids))
    return int(grown.rowcount)


def _seen_by(actor: Actor, row: tuple[Any, ...]) -> dict[str, Any]:
    """The block as the actor may see it: which rental it is, is told to those who may see every rental."""
    block = dict(zip(BLOCK_COLUMNS, row, strict=True))
    if not actor.can("rentals.read_all"):
        block["rental_id"] = None
    return block


def _manual_period(start_at: datetime, end_at: datetime, now: datetime) -> Period:
    period = Period(start_at, end_at)
    if period.length > LONGEST:
        raise PeriodError("period_too_long", "A block lasts at most 365 days.")
    if period.end <= now:
        raise PeriodError("period_in_past", "A block that is over blocks nothing.")
    return period


def _others_free(
    vehicle_id: UUID, class_id: UUID | None, branch_id: UUID | None, period: Period, limit: int
) -> list[dict[str, Any]]:
    if class_id is None:
        return []
    now = clock.now()
    wanted = [
        *rentable(period, now=now, late_until=now + OVERDUE_MARGIN),
        Condition("vehicle.class_id = %s AND vehicle.id <> %s", (class_id, vehicle_id)),
    ]
    if branch_id is not None:
        wanted.append(Condition("vehicle.branch_id = %s", (branch_id,)))
    rows = AVAILABLE.page(wanted, after=None, limit=limit)[:limit]
    return [{name: row[name] for name in _OFFERED} for row in rows]


def _nearest_window(vehicle_id: UUID, rental_id: UUID | None, period: Period) -> dict[str, Any] | None:
    """The nearest free window of the same length; while the vehicle is late, one that can still be taken in a while."""
    now = clock.now()
    after_lateness = now + 2 * OVERDUE_MARGIN
    rows = db.recurring(NEAREST_FREE, (period.start, period.length, rental_id, now, after_lateness, now, vehicle_id))
    return {"start_at": rows[0][0], "end_at": rows[0][0] + period.length} if rows else None
