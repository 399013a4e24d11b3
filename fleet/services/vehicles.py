"""The life of a vehicle in the fleet: registered, changed, taken in and out of service, sold, retired."""

from typing import Any
from uuid import UUID

from fleet import cache, clock, config
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import Invalid, InvalidState, NotFound, VersionConflict
from fleet.models.base import Condition
from fleet.models.branches import Branch
from fleet.models.calendar import has_standing_blocks
from fleet.models.vehicles import (
    VEHICLE_BY_ID,
    VEHICLES,
    Vehicle,
    VehicleClass,
    class_for_share,
    has_history,
    named_like,
    vehicle_for_update,
)
from fleet.rules import lifecycles
from fleet.services import audit, events

_PRICED_BY = ("class_id", "branch_id", "daily_rate", "currency")


def listed(
    actor: Actor,
    *,
    status: str | None,
    class_id: UUID | None,
    branch_id: UUID | None,
    q: str | None,
    retired: bool,
    after: UUID | None,
    limit: int,
) -> list[dict[str, Any]]:
    """A page of vehicles, newest first: the fleet, or those that were retired from it."""
    wanted = [Condition("vehicle.retired_at IS NOT NULL" if retired else "vehicle.retired_at IS NULL")]
    for column, value in (("status", status), ("class_id", class_id), ("branch_id", branch_id)):
        if value is not None:
            wanted.append(Condition(f"vehicle.{column} = %s", (value,)))
    if q:
        wanted.append(named_like(q))
    return VEHICLES.page(wanted, after=after, limit=limit)


def shown(actor: Actor, vehicle_id: UUID) -> dict[str, Any]:
    """One vehicle, retired or not. Raises NotFound."""

    def read() -> dict[str, Any]:
        rows = db.run(VEHICLE_BY_ID, (vehicle_id,))
        if not rows:
            raise NotFound()
        return VEHICLES.named(rows[0])

    return cache.get(cache.VEHICLES, f"{vehicle_id}", read, shape=VEHICLES.shape)


@atomic
def register(actor: Actor, *, currency: str | None, **values: Any) -> Vehicle:
    """Take a vehicle into the fleet; without a currency it has its class's, its branch's or the house's.

    Raises Invalid for an unknown class or branch, for no rate and for a currency other than the class's; Conflict
    `duplicate` for a plate or VIN that is taken.
    """
    vehicle_class, branch = _class(values["class_id"]), _branch(values["branch_id"])
    priced = vehicle_class or branch
    values["currency"] = currency or (priced.currency if priced else config.current().currency)
    _check_price(vehicle_class, daily_rate=values["daily_rate"], currency=values["currency"])
    vehicle: Vehicle = Vehicle.create(**values)
    events.of_vehicle("vehicle.registered", vehicle)
    audit.record(actor, "vehicles.register", "vehicle", vehicle.id, after=values)
    return vehicle


@atomic
def change(actor: Actor, vehicle_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> Vehicle:
    """Change what is written of a vehicle; what is booked already keeps its terms.

    Raises NotFound, VersionConflict, Invalid and Conflict as `register` does.
    """
    vehicle = Vehicle.get_or_none(Vehicle.id == vehicle_id)
    if vehicle is None:
        raise NotFound()
    if not changes.keys().isdisjoint(_PRICED_BY):
        priced = {name: changes.get(name, getattr(vehicle, name)) for name in _PRICED_BY}
        _branch(priced["branch_id"])
        _check_price(_class(priced["class_id"]), daily_rate=priced["daily_rate"], currency=priced["currency"])
    audit.record_change(actor, "vehicles.change", "vehicle", vehicle, changes)
    vehicle.change(expected_version=expected_version, **changes)
    return vehicle


@atomic
def change_status(actor: Actor, vehicle_id: UUID, *, status: str, expected_version: int | None = None) -> Vehicle:
    """Move a vehicle along its lifecycle.

    Without the lock a reservation could commit between the look at the calendar and the sale, and the customer would have
    booked a vehicle that is gone. Raises NotFound, VersionConflict, InvalidState.
    """
    vehicle = _expected_for_update(vehicle_id, expected_version)
    lifecycles.vehicle.check(vehicle.status, status)
    if vehicle.retired_at is not None and status == "in_service":
        raise InvalidState("The vehicle was retired")
    if status in lifecycles.vehicle.final:
        _check_calendar_is_clear(vehicle)
    audit.record_change(actor, "vehicles.change_status", "vehicle", vehicle, {"status": status})
    vehicle.change(status=status)
    events.of_vehicle("vehicle.status_changed", vehicle)
    return vehicle


@atomic
def remove(actor: Actor, vehicle_id: UUID, *, expected_version: int | None) -> None:
    """Remove a vehicle that never did anything, and retire one that has rentals, blocks or readings to its name.

    The lock keeps the history from beginning meanwhile. Retiring again changes nothing. Raises NotFound, VersionConflict,
    InvalidState while live blocks stand.
    """
    vehicle = _expected_for_update(vehicle_id, expected_version)
    _check_calendar_is_clear(vehicle)
    if not has_history(vehicle_id):
        vehicle.delete_instance()
        audit.record(actor, "vehicles.remove", "vehicle", vehicle_id, before={"status": vehicle.status})
    elif vehicle.retired_at is None:
        status = "out_of_service" if vehicle.status == "in_service" else vehicle.status
        moved = status != vehicle.status
        retired: dict[str, Any] = {"retired_at": clock.now(), "status": status}
        audit.record_change(actor, "vehicles.retire", "vehicle", vehicle, retired)
        vehicle.change(**retired)
        if moved:
            events.of_vehicle("vehicle.status_changed", vehicle)


def _expected_for_update(vehicle_id: UUID, expected_version: int | None) -> Vehicle:
    vehicle = vehicle_for_update(vehicle_id)
    if expected_version not in {None, vehicle.version}:
        raise VersionConflict()
    return vehicle


def _check_calendar_is_clear(vehicle: Vehicle) -> None:
    if has_standing_blocks(vehicle.id, at=clock.now()):
        raise InvalidState("The calendar of the vehicle still has live blocks")


def _class(class_id: UUID | None) -> VehicleClass | None:
    if class_id is None:
        return None
    found = class_for_share(class_id)
    if found is None:
        raise Invalid.field("class_id", "not_found", "is not a class of this fleet")
    return found


def _branch(branch_id: UUID | None) -> Branch | None:
    if branch_id is None:
        return None
    found: Branch | None = Branch.get_or_none(Branch.id == branch_id)
    if found is None:
        raise Invalid.field("branch_id", "not_found", "is not a branch of this fleet")
    return found


def _check_price(vehicle_class: VehicleClass | None, *, daily_rate: int | None, currency: str) -> None:
    if vehicle_class is not None and vehicle_class.currency != currency:
        raise Invalid.field("currency", "not_of_class", f"must be that of the class, {vehicle_class.currency}")
    if daily_rate is None and (vehicle_class is None or vehicle_class.daily_rate is None):
        raise Invalid.field("daily_rate", "required", "must be given, here or on the class")
