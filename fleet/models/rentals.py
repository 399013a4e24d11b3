"""Rentals and their charges: the tables, who sees which, and the statements of the hottest path of the service."""

from typing import Any
from uuid import UUID

import peewee
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from fleet import clock
from fleet.auth import Actor
from fleet.db import Statement
from fleet.errors import NotFound
from fleet.models.base import NOTHING, Condition, Listing, Model, Versioned
from fleet.rules.periods import Period
from fleet.rules.pricing import Terms


class Rental(Versioned):
    """A vehicle promised to a customer for a period, at the terms of the day it was booked."""

    number = peewee.TextField()
    status = peewee.TextField()
    vehicle_id = peewee.UUIDField()
    class_id = peewee.UUIDField(null=True)
    customer_id = peewee.UUIDField()
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
    deposit_amount = peewee.BigIntegerField(default=0)
    terms = BinaryJSONField()
    start_odometer_km = peewee.IntegerField(null=True)
    end_odometer_km = peewee.IntegerField(null=True)
    start_fuel_percent = peewee.IntegerField(null=True)
    end_fuel_percent = peewee.IntegerField(null=True)
    notes = peewee.TextField(null=True)
    cancel_reason = peewee.TextField(null=True)
    created_by = peewee.UUIDField(null=True)

    @property
    def booked(self) -> Period:
        return Period(self.start_at, self.end_at)

    @property
    def agreed(self) -> Terms:
        """The terms as they were when the rental was booked."""
        return Terms.from_json(self.terms)


class RentalCharge(Model):
    """What a rental costs beside its days. A charge is added, never changed."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    rental_id = peewee.UUIDField()
    type = peewee.TextField()
    description = peewee.TextField()
    amount = peewee.BigIntegerField()
    created_by = peewee.UUIDField(null=True)
    created_at = DateTimeTZField(default=clock.now)


def rentals_seen_by(actor: Actor) -> Condition:
    """Staff see every rental, customers their own, everybody else none."""
    if actor.can("rentals.read_all"):
        return Condition("true")
    if actor.customer_id is None:
        return NOTHING
    return Condition("customer_id = %s", (actor.customer_id,))


def rental_seen(actor: Actor, rental_id: UUID) -> Rental:
    """The rental as it stands, unlocked. Raises NotFound, also for one that is not the actor's."""
    return _only(Rental.select().where(_visible(actor, rental_id)))


def rental_for_update(actor: Actor, rental_id: UUID) -> Rental:
    """The rental, locked until the transaction ends: a second transition waits here and then finds the new state.

    The vehicle's row is locked before it (docs/locking.md). Raises NotFound.
    """
    return _only(Rental.select().where(_visible(actor, rental_id)).for_update())


def _visible(actor: Actor, rental_id: UUID) -> Any:
    seen = rentals_seen_by(actor)
    return (Rental.id == rental_id) & peewee.SQL(f"({seen.sql})", seen.params)


def _only(query: Any) -> Rental:
    rental: Rental | None = query.first()
    if rental is None:
        raise NotFound()
    return rental


_OWN_COLUMNS = (
    "number", "status", "start_at", "end_at", "hold_expires_at", "actual_start_at", "actual_end_at", "daily_rate",
    "currency", "base_amount", "total_amount", "deposit_amount", "start_odometer_km", "end_odometer_km",
    "start_fuel_percent", "end_fuel_percent", "notes", "cancel_reason", "version", "created_at", "updated_at",
)  # fmt: skip
_ID_COLUMNS = ("id", "vehicle_id", "class_id", "customer_id", "pickup_branch_id", "dropoff_branch_id")

OVERDUE = Condition("rental.status = 'active' AND rental.end_at < now()")
NOT_OVERDUE = Condition(f"NOT ({OVERDUE.sql})")

# Identifiers as text: PostgreSQL writes them quicker than Python would build and print 300 UUID objects for a page.
RENTALS = Listing(
    columns={
        **{name: f"rental.{name}::text" for name in _ID_COLUMNS},
        **{name: f"rental.{name}" for name in _OWN_COLUMNS},
        "overdue": OVERDUE.sql,
        "charges": """(SELECT json_agg(json_build_object('id', c.id, 'type', c.type, 'description', c.description,
            'amount', c.amount,
            'created_at', to_char(c.created_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) ORDER BY c.id)
            FROM rental_charge c WHERE c.rental_id = rental.id)""",
        "plate_number": "vehicle.plate_number",
        "make": "vehicle.make",
        "model": "vehicle.model",
        "first_name": "customer.first_name",
        "last_name": "customer.last_name",
    },
    source="rental JOIN vehicle ON vehicle.id = rental.vehicle_id JOIN customer ON customer.id = rental.customer_id",
    key="rental.id",
    shown=True,
)

# The rental's id, and what changes whenever it would be shown otherwise, as one text: a page is fifty of them. Charges need no
# version of their own: whatever adds one changes the rental too.
_STAMP = f"concat_ws(' ', rental.id, rental.version, vehicle.version, customer.version, {RENTALS.columns['overdue']})"
RENTAL_STAMPS = Listing(columns={"stamp": _STAMP}, source=RENTALS.source, key="rental.id")
STAMPED_RENTALS = Listing(columns={**RENTALS.columns, "stamp": _STAMP}, source=RENTALS.source, key="rental.id", shown=True)

CHARGES = Listing(
    columns={name: f"rental_charge.{name}" for name in ("id", "type", "description", "amount", "created_at")},
    source="rental_charge",
    key="rental_charge.id",
)

_CLAIM_COLUMNS = "pg_try_advisory_xact_lock($1), i.fingerprint, i.status, i.headers, i.body"
_CLAIM_SOURCE = """(SELECT 1) AS always
    LEFT JOIN idempotency_record i ON i.actor = $2 AND i.method = $3 AND i.path = $4 AND i.key = $5"""
_CUSTOMER_COLUMNS = "cu.id, cu.status, cu.first_name, cu.last_name"
# FOR KEY SHARE: a customer who is being erased or deactivated is waited for, and nobody is erased under their booking.
# That it looks at v makes the vehicle come first: the order of locks is the same everywhere (docs/locking.md).
_CUSTOMER_SOURCE = """LEFT JOIN LATERAL (
        SELECT * FROM customer WHERE id = $6 AND coalesce(v.id, $6) IS NOT NULL FOR KEY SHARE) cu ON true"""
_VEHICLE_COLUMNS = """v.id, v.status, v.retired_at, v.plate_number, v.make, v.model, v.class_id,
    coalesce(v.daily_rate, c.daily_rate), v.currency, v.branch_id, c.turnaround_before_minutes,
    c.turnaround_after_minutes, c.late_fee_per_hour, c.fuel_fee_per_percent, c.cancellation_fee,
    c.free_cancellation_hours, c.no_show_fee, b.id, b.timezone, t.code, t.rate_bps"""
# Whether the vehicle is late, whether the period is taken already, and whether a hold that is over still stands in the way:
# asked before anything is written, because a refusal is cheaper than a write that conflicts. The constraint has the last word.
_IN_THE_WAY = """EXISTS (SELECT 1 FROM rental o WHERE o.vehicle_id = v.id AND o.status = 'active' AND o.end_at <= $9),
    EXISTS (SELECT 1 FROM vehicle_block k WHERE k.vehicle_id = v.id AND k.live
        AND k.occupied && tstzrange($10 - coalesce(c.turnaround_before_minutes, 0) * interval '1 minute',
                                    $11 + coalesce(c.turnaround_after_minutes, 0) * interval '1 minute')),
    EXISTS (SELECT 1 FROM rental h WHERE h.vehicle_id = v.id AND h.status = 'held' AND h.hold_expires_at <= $9)"""

_JOINS = """LEFT JOIN vehicle_class c ON c.id = v.class_id
    LEFT JOIN branch b ON b.id = coalesce($8, v.branch_id)
    LEFT JOIN tax_code t ON t.code = b.tax_code"""

# The same columns, for a rental that moves to another vehicle or period.
OFFER_OF_VEHICLE = Statement(
    "offer_of_vehicle",
    ("uuid", "uuid"),
    f"SELECT {_VEHICLE_COLUMNS} FROM vehicle v {_JOINS.replace('$8', '$2')} WHERE v.id = $1",
)

# The whole decision in one round trip: was this key used, who rents, what is the vehicle and what does it cost.
# FOR SHARE: a vehicle that is being sold or taken out of service waits for the reservation, or the reservation for it.
READ_TO_RESERVE = Statement(
    "read_to_reserve",
    ("bigint", "text", "text", "text", "text", "uuid", "uuid", "uuid", "timestamptz", "timestamptz", "timestamptz"),
    f"""SELECT {_CLAIM_COLUMNS}, {_CUSTOMER_COLUMNS}, {_IN_THE_WAY},
        nextval('rental_number'), {_VEHICLE_COLUMNS}
    FROM {_CLAIM_SOURCE}
    LEFT JOIN LATERAL (SELECT * FROM vehicle WHERE id = $7 FOR SHARE) v ON true
    {_CUSTOMER_SOURCE}
    {_JOINS}""",
)

_FREE_OF_CLASS = """v.class_id = $7 AND v.status = 'in_service' AND v.retired_at IS NULL
    AND ($8 IS NULL OR v.branch_id = $8)
    AND (SELECT 1 FROM vehicle_block k WHERE k.vehicle_id = v.id AND k.live
         AND k.occupied && tstzrange($10 - c.turnaround_before_minutes * interval '1 minute',
                                     $11 + c.turnaround_after_minutes * interval '1 minute') LIMIT 1) IS NULL
    AND ($10 > $9 + interval '15 minutes' OR NOT EXISTS (SELECT 1 FROM rental o
         WHERE o.vehicle_id = v.id AND o.status = 'active' AND o.end_at <= $9))"""

# The best fit is the vehicle that stood idle for the shortest time before: long gaps stay whole for long rentals.
# SKIP LOCKED: simultaneous bookings of one class take different vehicles instead of queueing for the same one.
PICK_TO_RESERVE = Statement(
    "pick_to_reserve",
    ("bigint", "text", "text", "text", "text", "uuid", "uuid", "uuid", "timestamptz", "timestamptz", "timestamptz"),
    f"""SELECT {_CLAIM_COLUMNS}, {_CUSTOMER_COLUMNS}, false, false, false,
        nextval('rental_number'), {_VEHICLE_COLUMNS}
    FROM {_CLAIM_SOURCE}
    LEFT JOIN LATERAL (
        SELECT v.* FROM vehicle v JOIN vehicle_class c ON c.id = v.class_id
        WHERE {_FREE_OF_CLASS}
        ORDER BY (SELECT max(k.end_at) FROM vehicle_block k WHERE k.vehicle_id = v.id AND k.live AND k.end_at <= $10)
            DESC NULLS LAST, v.id
        LIMIT 1 FOR NO KEY UPDATE OF v SKIP LOCKED) v ON true
    {_CUSTOMER_SOURCE}
    {_JOINS}""",
)

# Whether waiting makes sense: a vehicle of the class is free, though somebody holds its row at this moment.
ANY_FREE_OF_CLASS = Statement(
    "any_free_of_class",
    PICK_TO_RESERVE.types,
    f"SELECT EXISTS (SELECT 1 FROM vehicle v JOIN vehicle_class c ON c.id = v.class_id WHERE {_FREE_OF_CLASS})",
)

# FOR NO KEY UPDATE: of two counted bookings at once the second waits here and then counts the first. It comes after the
# vehicle's lock (docs/locking.md), and reservations by staff, which only share the customer's key, never wait for it.
CUSTOMER_TO_BOOK_FOR_UPDATE = Statement(
    "customer_to_book_for_update", ("uuid",), "SELECT id FROM customer WHERE id = $1 FOR NO KEY UPDATE"
)
# Unexpired holds, and with them the reservations. A statement of its own: one that waits for the lock would count what was
# there before it waited.
COUNT_OPEN = Statement(
    "count_open",
    ("uuid", "timestamptz"),
    """SELECT count(*) FILTER (WHERE status = 'held'), count(*) FROM rental
    WHERE customer_id = $1 AND (status = 'reserved' OR (status = 'held' AND hold_expires_at > $2))""",
)

# Everything the reservation leaves behind, or nothing: the exclusion constraint decides in the first step, and the other
# steps write only what it let through. The insert itself does not raise on a conflict: rivals would wait on each other.
WRITE_RESERVATION = Statement(
    "write_reservation",
    (
        "uuid", "uuid", "text", "timestamptz", "timestamptz", "timestamptz", "timestamptz", "uuid",
        "uuid", "text", "text", "uuid", "uuid", "timestamptz", "uuid", "uuid", "bigint", "text", "bigint", "bigint",
        "jsonb", "text", "timestamptz",
        "uuid", "text", "text", "jsonb", "text", "text",
        "text", "text", "text", "text", "bytea", "smallint", "jsonb", "bytea", "uuid",
    ),
    """WITH block AS (
        INSERT INTO vehicle_block (id, vehicle_id, kind, rental_id, start_at, end_at, occupied, created_by, created_at)
        VALUES ($1, $2, $3, $9, $4, $5, tstzrange($6, $7), $8, $23)
        ON CONFLICT ON CONSTRAINT vehicle_block_no_overlap DO NOTHING RETURNING rental_id
    ), booked AS (
        INSERT INTO rental (id, number, status, vehicle_id, class_id, customer_id, start_at, end_at, hold_expires_at,
            pickup_branch_id, dropoff_branch_id, daily_rate, currency, base_amount, total_amount, deposit_amount, terms,
            notes, created_by, created_at, updated_at)
        SELECT rental_id, $10, $11, $2, $12, $13, $4, $5, $14, $15, $16, $17, $18, $19, $19, $20, $21, $22, $8, $23, $23
        FROM block RETURNING id
    ), promise AS (
        INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, payload, request_id, traceparent)
        SELECT $24, $25, $26, 'rental', id, $27, $28, $29 FROM booked
    ), record AS (
        INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body)
        SELECT $30, $31, $32, $33, $34, $35, $36, $37 FROM booked WHERE $33 IS NOT NULL
    ), event AS (
        INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
        SELECT $38, 'rental.' || $11, $23, 'rental', id,
            convert_from($37, 'UTF8')::jsonb - '{customer,notes,cancel_reason}'::text[] FROM booked
    )
    SELECT CASE WHEN EXISTS (SELECT 1 FROM booked) THEN $9 ELSE refuse_overlap() END""",
)

EXPIRE_HOLDS = """WITH due AS (
    SELECT id FROM rental WHERE status = 'held' AND hold_expires_at <= %(now)s
        AND (%(vehicle_id)s::uuid IS NULL OR vehicle_id = %(vehicle_id)s)
        AND (%(class_id)s::uuid IS NULL OR class_id = %(class_id)s)
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), expired AS (
    UPDATE rental SET status = 'expired' FROM due WHERE rental.id = due.id RETURNING rental.id
)
UPDATE vehicle_block SET live = false FROM expired WHERE vehicle_block.rental_id = expired.id RETURNING rental_id"""
