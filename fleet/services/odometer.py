"""What odometers showed, and when."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Invalid, NotFound
from fleet.models.base import Condition
from fleet.models.vehicles import READINGS, OdometerReading, Vehicle, vehicle_exists, vehicle_for_update
from fleet.services import events

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far the clock of whoever measured may be ahead of ours."""


def listed(actor: Actor, vehicle_id: UUID, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of a vehicle's readings, newest first. Raises NotFound."""
    found = READINGS.page([_of(vehicle_id)], after=after, limit=limit)
    if not found and not vehicle_exists(vehicle_id):
        raise NotFound()
    return found


def shown(actor: Actor, vehicle_id: UUID, reading_id: UUID) -> dict[str, Any]:
    """One reading. Raises NotFound."""
    found = READINGS.first([_of(vehicle_id), Condition("odometer_reading.id = %s", (reading_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def read_off(actor: Actor, vehicle_id: UUID, *, reading_km: int, measured_at: datetime | None) -> OdometerReading:
    """Record a reading that somebody took; without a time it was taken now.

    Raises NotFound, Invalid for a time still to come, OdometerOutOfSequence.
    """
    now = clock.now()
    if measured_at is not None and measured_at > now + CLOCK_TOLERANCE:
        raise Invalid.field("measured_at", "in_future", "is still to come")
    vehicle = vehicle_for_update(vehicle_id)
    return record(actor, vehicle, reading_km, measured_at or now, "manual")


def record(actor: Actor, vehicle: Vehicle, reading_km: int, measured_at: datetime, source: str) -> OdometerReading:
    """Record a reading within the caller's transaction and bring the vehicle's odometer up to the latest one.

    `source` is manual, handover or return. The database refuses a reading that contradicts another one of the vehicle, in
    the order of the times measured: OdometerOutOfSequence.
    """
    reading: OdometerReading = OdometerReading.create(
        vehicle_id=vehicle.id,
        epoch=vehicle.odometer_epoch,
        reading_km=reading_km,
        measured_at=measured_at,
        source=source,
        recorded_by=actor.user_id,
    )
    # Readings never fall in the order of time, so the latest one is the highest; a late entry of an old one changes nothing.
    if reading_km > vehicle.odometer_km:
        vehicle.change(odometer_km=reading_km)
        events.of_vehicle("vehicle.odometer_updated", vehicle)
    return reading


def _of(vehicle_id: UUID) -> Condition:
    return Condition("odometer_reading.vehicle_id = %s", (vehicle_id,))
