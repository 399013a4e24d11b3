"""Customers: the people who rent, who sees which of them, and what else is stored about one."""

from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet.auth import Actor
from fleet.db import db
from fleet.errors import NotFound
from fleet.models.base import NOTHING, Condition, Listing, Versioned

STATUSES = ("active", "deactivated")


class Customer(Versioned):
    """A renter's profile. The user is the account that may act for it, if there is one.

    The licence number is either in the clear or sealed, with a digest to find it by (fleet.services.licences).
    """

    user_id = peewee.UUIDField(null=True)
    first_name = peewee.TextField()
    last_name = peewee.TextField()
    email = peewee.TextField()
    phone = peewee.TextField()
    driver_license_number = peewee.TextField(null=True)
    driver_license_sealed = peewee.BlobField(null=True)
    driver_license_digest = peewee.BlobField(null=True)
    driver_license_expiry = peewee.DateField()
    address = peewee.TextField(null=True)
    date_of_birth = peewee.DateField(null=True)
    language = peewee.TextField(default="en")
    status = peewee.TextField(default="active")
    erased_at = DateTimeTZField(null=True)


CUSTOMERS = Listing(
    columns={
        name: f"customer.{name}"
        for name in (
            "id", "user_id", "first_name", "last_name", "email", "phone", "driver_license_number",
            "driver_license_sealed", "driver_license_expiry", "address", "date_of_birth", "language", "status", "erased_at",
            "version", "created_at", "updated_at",
        )
    },
    source="customer",
    key="customer.id",
)  # fmt: skip


def customers_seen_by(actor: Actor) -> Condition:
    """Staff see every customer, a customer their own profile, everybody else none."""
    if actor.can("customers.read_all"):
        return Condition("true")
    if actor.customer_id is None:
        return NOTHING
    return Condition("customer.id = %s", (actor.customer_id,))


def begins_with(words: str) -> Condition:
    """Customers whose name, last name or address of e-mail begins so; the wildcards of LIKE stand for themselves."""
    pattern = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    columns = ("customer.email", "lower(customer.last_name)", "lower(customer.first_name || ' ' || customer.last_name)")
    return Condition(" OR ".join(f"{column} LIKE lower(%s)" for column in columns), (pattern,) * len(columns))


def customer_for_update(actor: Actor, customer_id: UUID) -> Customer:
    """The customer, locked also against new rentals, whose foreign key shares the row. Raises NotFound.

    A rental's row is locked before its customer's: see rentals_of_customer_for_update.
    """
    seen = customers_seen_by(actor)
    mine = peewee.SQL(f"({seen.sql.replace('customer.', 't1.')})", seen.params)
    customer: Customer | None = Customer.select().where((Customer.id == customer_id) & mine).for_update().first()
    if customer is None:
        raise NotFound()
    return customer


def rentals_of_customer_for_update(customer_id: UUID) -> list[UUID]:
    """The ids of the customer's rentals, locked in the order of their ids."""
    rows = db.rows("SELECT id FROM rental WHERE customer_id = %s ORDER BY id FOR UPDATE", (customer_id,))
    return [rental_id for (rental_id,) in rows]


# --- licence numbers --------------------------------------------------------------------------------------------------


def about_licence(customer_id: UUID) -> bytes:
    """What the seal of a customer's licence number is bound to: in another's row it cannot be opened."""
    return b"licence" + customer_id.bytes


def licence_taken(number: str, digests: list[bytes], *, but: UUID) -> bool:
    """Whether another customer has this number, in the clear or under one of these digests."""
    taken = "SELECT 1 FROM customer WHERE (driver_license_number = %s OR driver_license_digest = ANY(%s)) AND id <> %s LIMIT 1"
    return db.one(taken, (number, digests, but)) is not None


def licences_to_seal(index_key: bytes, *, after: UUID, limit: int) -> list[Customer]:
    """Customers whose number is in the clear, or has a digest of another key than the one of this name, by their ids."""
    other = peewee.fn.substr(Customer.driver_license_digest, 1, len(index_key)) != index_key
    open_ = Customer.driver_license_number.is_null(False) & Customer.erased_at.is_null()
    found = Customer.select().where((Customer.id > after) & (open_ | other)).order_by(Customer.id).limit(limit)
    return list(found)


# --- all that is stored about a person --------------------------------------------------------------------------------

ACCOUNTS = Listing(
    columns={
        name: f"u.{name}"
        for name in (
            "id", "email", "email_verified_at", "first_name", "last_name", "phone", "roles", "deactivated_at", "created_at",
        )
    },
    source="user_account u",
    key="u.id",
)  # fmt: skip

SESSIONS_OF_PERSON = Listing(
    columns={name: f"s.{name}" for name in ("id", "created_at", "last_used_at", "expires_at", "ended_at", "end_reason")},
    source="user_session s",
    key="s.id",
)

API_KEYS_OF_PERSON = Listing(
    columns={
        name: f"k.{name}"
        for name in ("id", "name", "prefix", "permissions", "created_at", "expires_at", "last_used_at", "revoked_at")
    },
    source="api_key k",
    key="k.id",
)

RENTALS_OF_PERSON = Listing(
    columns={
        **{
            name: f"rental.{name}"
            for name in (
                "id", "number", "status", "vehicle_id", "class_id", "start_at", "end_at", "hold_expires_at",
                "actual_start_at", "actual_end_at", "pickup_branch_id", "dropoff_branch_id", "daily_rate", "currency",
                "base_amount", "total_amount", "deposit_amount", "terms", "start_odometer_km", "end_odometer_km",
                "start_fuel_percent", "end_fuel_percent", "notes", "cancel_reason", "created_at", "updated_at",
            )
        },
        "charges": """(SELECT coalesce(jsonb_agg(jsonb_build_object('type', c.type, 'description', c.description,
            'amount', c.amount) ORDER BY c.id), '[]') FROM rental_charge c WHERE c.rental_id = rental.id)""",
    },
    source="rental",
    key="rental.id",
)  # fmt: skip

NOTIFICATIONS_OF_PERSON = Listing(
    columns={
        name: f"notification.{name}"
        for name in (
            "id", "kind", "channel", "rental_id", "invoice_id", "payment_id", "refund_id", "status", "reason", "created_at",
            "sent_at",
        )
    },
    source="notification",
    key="notification.id",
)  # fmt: skip


def answers_that_name(customer: Customer) -> Condition:
    """Stored answers (kept for requests that are sent again) that were given to the person or name them."""
    names = [f"%{known}%" for known in (customer.id, customer.user_id) if known is not None]
    # A body that is sealed tells nothing, but only answers about customers are, and their address names the customer, in
    # capitals too where the client wrote it so.
    named = "lower(path) || ' ' || coalesce(headers->>'Location', '') || ' ' || encode(body, 'escape') LIKE ANY(%s)"
    return Condition(f"actor = %s OR {named}", (f"user:{customer.user_id}", names))


def forget_words_about(rental_ids: list[UUID]) -> None:
    """Take out of rentals what people wrote in their own words, which may say anything about the renter."""
    words = "notes IS NOT NULL OR cancel_reason IS NOT NULL"
    sql = f"UPDATE rental SET notes = NULL, cancel_reason = NULL WHERE id = ANY(%s::uuid[]) AND ({words})"
    db.execute_sql(sql, (rental_ids,))
