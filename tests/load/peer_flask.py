"""Peers on the service's own server: Flask with nothing around it, the naive list, and our handler without its layers."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import peewee
from flask import Flask, Response, jsonify, request
from playhouse.pool import PooledPostgresqlDatabase
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from fleet import auth, config
from fleet.db import db as fleet_db
from fleet.idempotency import Claim, StoredAnswer
from fleet.services import reservations
from fleet.services.reservations import Wish

settings = config.Settings.load()
config.use(settings)
fleet_db.configure(settings)
pool = PooledPostgresqlDatabase(settings.database_url, max_connections=16)
app = Flask("peer")
COUNTER = auth.permissions_of(["rental_agent"])


@app.get("/health")
@app.get("/hello")
def hello() -> Response:
    """What Flask costs when it does nothing: 1.00."""
    return jsonify(hello="world")


# --- the list as one writes it with Peewee's models -------------------------------------------------------------------


class Base(peewee.Model):
    id = peewee.UUIDField(primary_key=True)

    class Meta:
        database = pool
        legacy_table_names = False


class Vehicle(Base):
    plate_number = peewee.TextField()
    make = peewee.TextField()
    model = peewee.TextField()


class Customer(Base):
    first_name = peewee.TextField()
    last_name = peewee.TextField()


class Rental(Base):
    number = peewee.TextField()
    status = peewee.TextField()
    vehicle = peewee.ForeignKeyField(Vehicle)
    class_id = peewee.UUIDField(null=True)
    customer = peewee.ForeignKeyField(Customer)
    start_at = DateTimeTZField()
    end_at = DateTimeTZField()
    hold_expires_at = DateTimeTZField(null=True)
    actual_start_at = DateTimeTZField(null=True)
    actual_end_at = DateTimeTZField(null=True)
    pickup_branch_id = peewee.UUIDField(null=True)
    dropoff_branch_id = peewee.UUIDField(null=True)
    daily_rate = peewee.BigIntegerField()
    currency = peewee.TextField()
    base_amount = peewee.BigIntegerField()
    total_amount = peewee.BigIntegerField()
    deposit_amount = peewee.BigIntegerField()
    terms = BinaryJSONField()
    start_odometer_km = peewee.IntegerField(null=True)
    end_odometer_km = peewee.IntegerField(null=True)
    start_fuel_percent = peewee.IntegerField(null=True)
    end_fuel_percent = peewee.IntegerField(null=True)
    notes = peewee.TextField(null=True)
    cancel_reason = peewee.TextField(null=True)
    version = peewee.IntegerField()
    created_at = DateTimeTZField()
    updated_at = DateTimeTZField()


class Charge(Base):
    rental = peewee.ForeignKeyField(Rental, backref="charges")
    type = peewee.TextField()
    description = peewee.TextField()
    amount = peewee.BigIntegerField()
    created_at = DateTimeTZField()

    class Meta:
        table_name = "rental_charge"


HIDDEN = {"terms", "vehicle", "customer"}
SHOWN = [name for name in Rental._meta.fields if name not in HIDDEN]


@app.get("/rentals")
def rentals() -> Response:
    """The newest fifty with their customers, vehicles and charges: two statements, no N+1, models all the way."""
    with pool.connection_context():
        newest = (
            Rental.select(Rental, Vehicle, Customer)
            .join(Vehicle)
            .switch(Rental)
            .join(Customer)
            .order_by(Rental.id.desc())
            .limit(50)
        )
        return jsonify(items=[_shown(rental) for rental in peewee.prefetch(newest, Charge.select())])


def _shown(rental: Any) -> dict[str, Any]:
    return {
        **{name: _plain(getattr(rental, name)) for name in SHOWN},
        "vehicle_id": str(rental.vehicle.id),
        "vehicle": {name: getattr(rental.vehicle, name) for name in ("plate_number", "make", "model")},
        "customer_id": str(rental.customer.id),
        "customer": {name: getattr(rental.customer, name) for name in ("first_name", "last_name")},
        "charges": [
            {name: _plain(getattr(charge, name)) for name in ("id", "type", "description", "amount", "created_at")}
            for charge in rental.charges
        ],
    }


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


# --- our own handler, bare --------------------------------------------------------------------------------------------


@app.post("/reserve")
def reserve() -> Response:
    """The service's reservation without authentication, limits, validation, log and metrics: what those leave of it."""
    sent = orjson.loads(request.get_data())
    clerk = UUID(sent["clerk_id"])
    wish = Wish(
        customer_id=UUID(sent["customer_id"]),
        vehicle_id=UUID(sent["vehicle_id"]),
        start_at=datetime.fromisoformat(sent["start_at"]),
        end_at=datetime.fromisoformat(sent["end_at"]),
    )
    actor = auth.Actor(user_id=clerk, roles=("rental_agent",), permissions=COUNTER)
    claim = Claim(actor.name, "POST", "/bare", request.headers["Idempotency-Key"], b"0" * 32)
    reserved = reservations.reserve(actor, wish, claim=claim, answer_of=_answer)
    return Response(reserved.answer.body, reserved.answer.status, mimetype="application/json")


def _answer(document: dict[str, Any]) -> StoredAnswer:
    return StoredAnswer(201, {"ETag": '"1"', "Location": f"/v1/rentals/{document['id']}"}, orjson.dumps(document))
