"""Vehicles, the classes that price them, and what their odometers said."""

from typing import Any
from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import cache, clock
from fleet.db import Statement, db
from fleet.errors import NotFound
from fleet.models.base import Condition, Listing, Model, Versioned


class VehicleClass(Versioned):
    """Vehicles that stand in for one another: their rates, fees and turnaround times. Fees are net, in minor units."""

    cached_in = cache.VEHICLE_CLASSES
    code = peewee.TextField()
    name = peewee.TextField()
    description = peewee.TextField(null=True)
    daily_rate = peewee.BigIntegerField(null=True)
    currency = peewee.TextField()
    late_fee_per_hour = peewee.BigIntegerField(default=0)
    fuel_fee_per_percent = peewee.BigIntegerField(default=0)
    cancellation_fee = peewee.BigIntegerField(default=0)
    free_cancellation_hours = peewee.IntegerField(default=24)
    no_show_fee = peewee.BigIntegerField(default=0)
    turnaround_before_minutes = peewee.IntegerField(default=0)
    turnaround_after_minutes = peewee.IntegerField(default=0)


class Vehicle(Versioned):
    """A vehicle of the fleet. Without a daily rate of its own it is let at that of its class."""

    cached_in = cache.VEHICLES
    plate_number = peewee.TextField()
    vin = peewee.TextField(null=True)
    make = peewee.TextField()
    model = peewee.TextField()
    year = peewee.IntegerField()
    class_id = peewee.UUIDField(null=True)
    branch_id = peewee.UUIDField(null=True)
    status = peewee.TextField(default="in_service")
    fuel_type = peewee.TextField(null=True)
    transmission = peewee.TextField(null=True)
    color = peewee.TextField(null=True)
    passenger_capacity = peewee.IntegerField(null=True)
    odometer_km = peewee.IntegerField(default=0)
    odometer_epoch = peewee.IntegerField(default=1)
    daily_rate = peewee.BigIntegerField(null=True)
    currency = peewee.TextField()
    retired_at = DateTimeTZField(null=True)


class OdometerReading(Model):
    """What an odometer showed at a time. `epoch` grows when the odometer is replaced; it never falls within one."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    vehicle_id = peewee.UUIDField()
    epoch = peewee.IntegerField()
    reading_km = peewee.IntegerField()
    measured_at = DateTimeTZField()
    source = peewee.TextField()
    recorded_by = peewee.UUIDField(null=True)
    voided_at = DateTimeTZField(null=True)
    void_reason = peewee.TextField(null=True)
    created_at = DateTimeTZField(default=clock.now)


CLASSES = Listing(
    columns={
        name: f"vehicle_class.{name}"
        for name in (
            "id", "code", "name", "description", "daily_rate", "currency", "late_fee_per_hour", "fuel_fee_per_percent",
            "cancellation_fee", "free_cancellation_hours", "no_show_fee", "turnaround_before_minutes",
            "turnaround_after_minutes", "version", "created_at", "updated_at",
        )
    },
    source="vehicle_class",
    key="vehicle_class.id",
)  # fmt: skip

# Identifiers as text: PostgreSQL writes them quicker than Python would build and print UUID objects.
VEHICLES = Listing(
    columns={
        **{name: f"vehicle.{name}::text" for name in ("id", "class_id", "branch_id")},
        **{
            name: f"vehicle.{name}"
            for name in (
                "plate_number", "vin", "make", "model", "year", "status", "fuel_type", "transmission", "color",
                "passenger_capacity", "odometer_km", "daily_rate", "currency", "retired_at", "version", "created_at",
                "updated_at",
            )
        },
    },
    source="vehicle",
    key="vehicle.id",
)  # fmt: skip

READINGS = Listing(
    columns={
        name: f"odometer_reading.{name}"
        for name in ("id", "vehicle_id", "reading_km", "measured_at", "source", "recorded_by", "created_at")
    },
    source="odometer_reading",
    key="odometer_reading.id",
)

VEHICLE_BY_ID = Statement(
    "vehicle_by_id",
    ("uuid",),
    f"SELECT {', '.join(VEHICLES.columns.values())} FROM vehicle WHERE id = $1",
)


_SHARE: Any = "FOR SHARE"  # Peewee takes any lock by its name; its types know only of True


def named_like(words: str) -> Condition:
    """Vehicles whose plate, VIN, make or model holds `words`; the wildcards of LIKE stand for themselves."""
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    columns = ("vehicle.plate_number", "vehicle.vin", "vehicle.make", "vehicle.model")
    return Condition(" OR ".join(f"{column} ILIKE %s" for column in columns), (f"%{escaped}%",) * len(columns))


def vehicle_for_update(vehicle_id: UUID) -> Vehicle:
    """The vehicle, locked against every change and every new block of its calendar until the transaction ends.

    Whoever reserves or blocks it holds the row FOR SHARE meanwhile, so what is read after this call is settled.
    Raises NotFound.
    """
    vehicle: Vehicle | None = Vehicle.select().where(Vehicle.id == vehicle_id).for_update().first()
    if vehicle is None:
        raise NotFound()
    return vehicle


def class_for_update(class_id: UUID) -> VehicleClass:
    """The class, locked: no vehicle joins it until the transaction ends. Raises NotFound."""
    found: VehicleClass | None = VehicleClass.select().where(VehicleClass.id == class_id).for_update().first()
    if found is None:
        raise NotFound()
    return found


def class_for_share(class_id: UUID) -> VehicleClass | None:
    """The class, whose rate and currency stay as they are until the transaction ends; None when there is none."""
    found: VehicleClass | None = VehicleClass.select().where(VehicleClass.id == class_id).for_update(_SHARE).first()
    return found


def vehicle_exists(vehicle_id: UUID) -> bool:
    """Whether there is such a vehicle, retired or not."""
    return db.one("SELECT 1 FROM vehicle WHERE id = %s", (vehicle_id,)) is not None


def has_history(vehicle_id: UUID) -> bool:
    """Whether the vehicle was ever rented, blocked or read off."""
    rows = db.rows(_HISTORY, (vehicle_id, vehicle_id, vehicle_id))
    return bool(rows[0][0])


_HISTORY = """SELECT EXISTS (SELECT 1 FROM rental WHERE vehicle_id = %s)
OR EXISTS (SELECT 1 FROM vehicle_block WHERE vehicle_id = %s)
OR EXISTS (SELECT 1 FROM odometer_reading WHERE vehicle_id = %s)"""
