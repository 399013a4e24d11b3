"""Classes of vehicles: what they cost, and how long they stand between two customers."""

from typing import Any
from uuid import UUID

from fleet import cache, config
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Conflict, NotFound, VersionConflict
from fleet.models.base import Condition
from fleet.models.vehicles import CLASSES, Vehicle, VehicleClass, class_for_update
from fleet.services import audit


def listed(actor: Actor, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of classes, newest first."""
    return CLASSES.page([], after=after, limit=limit)


def shown(actor: Actor, class_id: UUID) -> dict[str, Any]:
    """One class. Raises NotFound."""

    def read() -> dict[str, Any]:
        found = CLASSES.first([Condition("vehicle_class.id = %s", (class_id,))])
        if found is None:
            raise NotFound()
        return found

    return cache.get(cache.VEHICLE_CLASSES, f"{class_id}", read, shape=CLASSES.shape)


@atomic
def create(actor: Actor, *, currency: str | None, **values: Any) -> VehicleClass:
    """Make a class; without a currency it has the house's. Raises Conflict `duplicate` for a code that is taken."""
    made: VehicleClass = VehicleClass.create(currency=currency or config.current().currency, **values)
    audit.record(actor, "vehicle_classes.create", "vehicle_class", made.id, after={**values, "currency": made.currency})
    return made


@atomic
def change(actor: Actor, class_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> VehicleClass:
    """Change a class; what is booked already keeps its terms.

    The lock keeps vehicles from joining meanwhile, so that none is left with a rate in another currency or with none.
    Raises NotFound, VersionConflict, Conflict `duplicate` or `in_use`.
    """
    vehicle_class = class_for_update(class_id)
    if expected_version not in {None, vehicle_class.version}:
        raise VersionConflict()
    vehicles = Vehicle.select().where(Vehicle.class_id == class_id)
    if changes.get("currency", vehicle_class.currency) != vehicle_class.currency and vehicles.exists():
        raise Conflict("Its vehicles are priced in the old currency", code="in_use")
    priced_by_class = vehicles.where(Vehicle.daily_rate.is_null())
    if changes.get("daily_rate", vehicle_class.daily_rate) is None and priced_by_class.exists():
        raise Conflict("Some of its vehicles have no rate of their own", code="in_use")
    audit.record_change(actor, "vehicle_classes.change", "vehicle_class", vehicle_class, changes)
    vehicle_class.change(**changes)
    return vehicle_class


@atomic
def remove(actor: Actor, class_id: UUID, *, expected_version: int | None) -> None:
    """Remove a class that nothing refers to. Raises NotFound, VersionConflict, Conflict `in_use`."""
    vehicle_class = class_for_update(class_id)
    if expected_version not in {None, vehicle_class.version}:
        raise VersionConflict()
    vehicle_class.delete_instance()
    audit.record(actor, "vehicle_classes.remove", "vehicle_class", class_id, before={"code": vehicle_class.code})
