"""A rental's block in the calendar: moved with the rental, and given back at its end.

The caller holds the vehicle's row FOR UPDATE. Everybody who adds a block holds it at least FOR SHARE, so nothing can come
into the calendar between the look for a clash and the move.
"""

from datetime import datetime, timedelta
from uuid import UUID

from fleet import clock
from fleet.db import db
from fleet.errors import RentalOverlap
from fleet.models.rentals import Rental
from fleet.rules.periods import Period
from fleet.services import calendar
from fleet.services.terms import Offer


def move(rental_id: UUID, *, kind: str, period: Period, offer: Offer) -> None:
    """Let the rental occupy `period` of the offered vehicle. Raises RentalOverlap with alternatives."""
    padded = offer.padded(period)
    now = clock.now()
    late = period.start <= now + calendar.OVERDUE_MARGIN and db.one(_OUT_LATE, (offer.vehicle_id, rental_id, now))
    if late or db.one(_CLASH, (offer.vehicle_id, rental_id, padded.start, padded.end)):
        others = calendar.alternatives(
            vehicle_id=offer.vehicle_id,
            class_id=offer.class_id,
            branch_id=offer.branch_id,
            period=period,
            rental_id=rental_id,
        )
        raise RentalOverlap(extra={"alternatives": others})
    db.execute_sql(_MOVE, (offer.vehicle_id, kind, period.start, period.end, padded.start, padded.end, rental_id))


def become(rental: Rental, kind: str) -> None:
    """The block stays where it is and counts as something else: a hold that is a reservation now."""
    db.execute_sql("UPDATE vehicle_block SET kind = %s WHERE rental_id = %s", (kind, rental.id))


def give_back(rental: Rental) -> None:
    """The time is free again; the block stays as history."""
    db.execute_sql("UPDATE vehicle_block SET live = false WHERE rental_id = %s", (rental.id,))


def give_back_at(rental: Rental, at: datetime) -> None:
    """The vehicle came back: the block ends then, early or late, and stays as history."""
    until = max(at, min(rental.actual_start_at, rental.start_at) + timedelta(seconds=1))
    db.execute_sql(_END, (until, until, rental.id))


_CLASH = """SELECT 1 FROM vehicle_block
WHERE vehicle_id = %s AND live AND rental_id IS DISTINCT FROM %s AND occupied && tstzrange(%s, %s) LIMIT 1"""

# A vehicle that another customer has kept beyond the agreed time, whose block the sweep has not let grow yet.
_OUT_LATE = """SELECT 1 FROM rental
WHERE vehicle_id = %s AND id <> %s AND status = 'active' AND end_at <= %s"""

_MOVE = """UPDATE vehicle_block
SET vehicle_id = %s, kind = %s, start_at = %s, end_at = %s, occupied = tstzrange(%s, %s)
WHERE rental_id = %s"""

_END = """UPDATE vehicle_block
SET live = false, end_at = %s, occupied = tstzrange(lower(occupied), greatest(lower(occupied) + interval '1 second', %s))
WHERE rental_id = %s"""
