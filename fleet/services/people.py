"""Customers: taking them in, changing and closing their profiles, and giving back or erasing what is stored of them."""

from datetime import date
from typing import Any
from uuid import UUID

import peewee

from fleet import clock, config
from fleet.auth import Actor
from fleet.db import atomic, db, patience
from fleet.errors import FieldError, Invalid, InvalidState, NotFound, VersionConflict
from fleet.models.access import ApiKey, User, end_sessions, user_for_update
from fleet.models.accounts import forget_account_safety
from fleet.models.base import Condition
from fleet.models.people import (
    ACCOUNTS,
    API_KEYS_OF_PERSON,
    CUSTOMERS,
    NOTIFICATIONS_OF_PERSON,
    RENTALS_OF_PERSON,
    SESSIONS_OF_PERSON,
    Customer,
    answers_that_name,
    begins_with,
    customer_for_update,
    customers_seen_by,
    forget_words_about,
    rentals_of_customer_for_update,
)
from fleet.rules.lifecycles import OCCUPYING
from fleet.services import audit, invoices, licences, payments, preferences

EXPORTED_ROWS = 10_000
_IDENTITY = ("driver_license_number", "date_of_birth")
_PATIENCE_S = 10


def seen(actor: Actor, customer: Customer | dict[str, Any]) -> dict[str, Any]:
    """The profile as the actor may see it: licence number and birth date are for its owner and those who hand over."""
    row = customer if isinstance(customer, dict) else {name: getattr(customer, name) for name in CUSTOMERS.columns}
    if actor.can("customers.read_identity") or actor.customer_id == row["id"]:
        return {**row, "driver_license_number": licences.number_of(row)}
    return {**row, **dict.fromkeys(_IDENTITY)}


def listed(
    actor: Actor, *, after: UUID | None, limit: int, q: str | None = None, status: str | None = None
) -> list[dict[str, Any]]:
    """A page of the customers that the actor may see, newest first; `q` is how a name or an e-mail address begins."""
    conditions = [customers_seen_by(actor)]
    if q is not None:
        conditions.append(begins_with(q))
    if status is not None:
        conditions.append(Condition("customer.status = %s", (status,)))
    return CUSTOMERS.page(conditions, after=after, limit=limit)


def shown(actor: Actor, customer_id: UUID) -> dict[str, Any]:
    """One customer. Raises NotFound."""
    found = CUSTOMERS.first([customers_seen_by(actor), Condition("customer.id = %s", (customer_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def create(actor: Actor, *, user_id: UUID | None = None, **values: Any) -> Customer:
    """Take a customer in. Whoever may not create any creates their own profile, and cannot say whose it is.

    Raises Invalid, and Conflict `duplicate` for an e-mail address, licence or user that has a profile already.
    """
    if not actor.can("customers.create"):
        if user_id is not None:
            raise _not_yours("user_id")
        user_id = actor.user_id
    _check(user_id=user_id, **values)
    values["language"] = values.get("language") or config.current().default_language
    customer_id = clock.new_id()
    values |= licences.columns(customer_id, values["driver_license_number"])
    customer: Customer = Customer.create(id=customer_id, user_id=user_id, **values)
    return customer


@atomic
def change(actor: Actor, customer_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> Customer:
    """Change a profile. Raises NotFound, VersionConflict, Invalid, InvalidState, Conflict `duplicate`."""
    if "user_id" in changes and not actor.can("customers.create"):
        raise _not_yours("user_id")
    customer = _standing_for_update(actor, customer_id, expected_version)
    _check(**changes)
    if "driver_license_number" in changes:
        changes = {**changes, **licences.columns(customer_id, changes["driver_license_number"])}
    customer.change(**changes)
    return customer


@atomic
def deactivate(actor: Actor, customer_id: UUID, *, expected_version: int | None) -> Customer:
    """Take no new rentals from the customer; those that stand go on. Raises NotFound, VersionConflict, InvalidState."""
    customer = _standing_for_update(actor, customer_id, expected_version)
    if customer.status != "active":
        raise InvalidState("The customer is deactivated already")
    audit.record_change(actor, "customers.deactivate", "customer", customer, {"status": "deactivated"})
    customer.change(status="deactivated")
    return customer


def exported(actor: Actor, customer_id: UUID) -> dict[str, Any]:
    """Everything that is stored about the person. Raises NotFound.

    At most EXPORTED_ROWS of each kind, the newest; `complete` says whether that was all.
    """
    profile = shown(actor, customer_id)
    user = (profile["user_id"],)
    rentals = [Condition("rental.customer_id = %s", (customer_id,))]
    notifications = [Condition("notification.customer_id = %s", (customer_id,))]
    with patience(_PATIENCE_S):
        audit.record(actor, "customers.export", "customer", customer_id)
        lists = {
            "rentals": RENTALS_OF_PERSON.page(rentals, after=None, limit=EXPORTED_ROWS),
            "invoices": invoices.of_customer(customer_id, limit=EXPORTED_ROWS),
            "payments": payments.of_customer(customer_id, limit=EXPORTED_ROWS),
            "sessions": SESSIONS_OF_PERSON.page([Condition("s.user_id = %s", user)], after=None, limit=EXPORTED_ROWS),
            "api_keys": API_KEYS_OF_PERSON.page([Condition("k.user_id = %s", user)], after=None, limit=EXPORTED_ROWS),
            "notifications": NOTIFICATIONS_OF_PERSON.page(notifications, after=None, limit=EXPORTED_ROWS),
        }
    return {
        "exported_at": clock.now(),
        "complete": all(len(rows) <= EXPORTED_ROWS for rows in lists.values()),
        "profile": profile,
        "notification_preferences": preferences.stored(customer_id),
        "account": ACCOUNTS.first([Condition("u.id = %s", user)]),
        **{name: rows[:EXPORTED_ROWS] for name, rows in lists.items()},
    }


@atomic
def erase(actor: Actor, customer_id: UUID, *, expected_version: int | None) -> Customer:
    """Forget the person and keep the books: the row stays, with nothing in it that tells who it was.

    Their sessions end and their account closes. Raises NotFound, VersionConflict, and InvalidState while a hold, a
    reservation or a rental stands, and for somebody who is erased already.
    """
    shown(actor, customer_id)
    rentals = rentals_of_customer_for_update(customer_id)
    customer = _standing_for_update(actor, customer_id, expected_version)
    if _has_standing_rentals(customer_id):
        raise InvalidState("The customer still has a hold, a reservation or a rental")
    _forget_answers(customer)
    forget_words_about(rentals)
    preferences.forget(customer_id)
    staff = customer.user_id is not None and not _close_account(customer.user_id)
    customer.change(**_nobody(customer_id), **({"user_id": None} if staff else {}))
    audit.record(actor, "customers.erase", "customer", customer_id, after={"erased_at": customer.erased_at})
    return customer


def _standing_for_update(actor: Actor, customer_id: UUID, expected_version: int | None) -> Customer:
    customer = customer_for_update(actor, customer_id)
    if expected_version not in {None, customer.version}:
        raise VersionConflict()
    if customer.erased_at is not None:
        raise InvalidState("The customer is erased")
    return customer


def _not_yours(field: str) -> Invalid:
    return Invalid(code="unknown_field", errors=[FieldError(field, "unknown_field", "is not yours to set")])


def _check(**values: Any) -> None:
    born, user_id = values.get("date_of_birth"), values.get("user_id")
    if born is not None and born > clock.now().date():
        raise Invalid.field("date_of_birth", "out_of_range", "must not be in the future")
    if user_id is not None and not User.select().where((User.id == user_id) & User.deactivated_at.is_null()).exists():
        raise Invalid.field("user_id", "not_found", "is not an active user")


def _has_standing_rentals(customer_id: UUID) -> bool:
    """Asked after the customer is locked: a reservation that came first is seen, and a later one finds nobody."""
    standing = "SELECT 1 FROM rental WHERE customer_id = %s AND status = ANY(%s) LIMIT 1"
    return db.one(standing, (customer_id, sorted(OCCUPYING))) is not None


def _nobody(customer_id: UUID) -> dict[str, Any]:
    """Values that say nothing about anybody and collide with nobody's."""
    return {
        "first_name": "Erased",
        "last_name": "Customer",
        "email": f"{customer_id.hex}@erased.invalid",
        "phone": "",
        **licences.forgotten(customer_id),
        "driver_license_expiry": date(1970, 1, 1),
        "address": None,
        "date_of_birth": None,
        "language": "en",
        "status": "deactivated",
        "erased_at": clock.now(),
    }


def _close_account(user_id: UUID) -> bool:
    """Empty and close the account of a customer. One who works here keeps theirs: it says nothing of the renter."""
    user = user_for_update(user_id)
    if set(user.roles) != {"customer"}:
        return False
    now = clock.now()
    user.change(
        email=f"{user_id.hex}@erased.invalid",
        first_name="Erased",
        last_name="Customer",
        phone=None,
        password_hash="",
        email_verified_at=None,
        deactivated_at=user.deactivated_at or now,
    )
    end_sessions(user_id, "erased")
    forget_account_safety(user_id)
    revoked_at = peewee.fn.COALESCE(ApiKey.revoked_at, now)
    ApiKey.update(revoked_at=revoked_at, name="erased").where(ApiKey.user == user_id).execute()
    return True


def _forget_answers(customer: Customer) -> None:
    """Answers are kept for a day, for requests that are sent again; these would repeat what has to be forgotten."""
    kept = answers_that_name(customer)
    with patience(_PATIENCE_S):
        db.execute_sql(f"DELETE FROM idempotency_record WHERE {kept.sql}", kept.params)  # noqa: S608 - our own condition
