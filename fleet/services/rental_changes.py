"""Changing a rental that is booked or out: another period, another vehicle, other notes. The price follows."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Invalid, InvalidState, VersionConflict
from fleet.models.rentals import Rental, rental_for_update, rental_seen
from fleet.models.vehicles import vehicle_for_update
from fleet.rules import lifecycles, money, pricing
from fleet.rules.periods import Period, rental_period
from fleet.services import events, occupancy, outbox
from fleet.services.rentals import check_renter
from fleet.services.terms import Offer, offer_for

_KINDS = {"held": "hold", "reserved": "reservation", "active": "rental"}


@atomic
def change(actor: Actor, rental_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> Rental:
    """Change the period, the vehicle or the notes of a rental.

    The calendar is checked as at the reservation. A rental that is out keeps its vehicle and its start; it can only be
    extended or shortened. On another vehicle it gets that vehicle's terms of today, else it keeps its own.
    Raises NotFound, VersionConflict, InvalidState, Invalid, RentalOverlap with alternatives.
    """
    rental = _locked_with_vehicles(actor, rental_id, changes.get("vehicle_id"))
    if expected_version is not None and rental.version != expected_version:
        raise VersionConflict()
    if rental.status not in lifecycles.OCCUPYING:
        raise InvalidState("A rental that is over does not change")
    if rental.hold_expires_at is not None and rental.hold_expires_at <= clock.now():
        raise InvalidState("The hold has expired")
    values = {"notes": changes["notes"]} if "notes" in changes else {}
    if changes.keys() & {"start_at", "end_at", "vehicle_id"}:
        values |= _rebooked(actor, rental, changes)
    if values:
        rental.change(**values)
        events.of_rentals("rental.changed", [rental.id])
        if len(values) > 1:
            outbox.promise("notifications.rental_changed", "rental", rental.id)
    return rental


def _locked_with_vehicles(actor: Actor, rental_id: UUID, new_vehicle_id: UUID | None) -> Rental:
    """The rental, locked after its vehicle and the one it may move to; vehicles in the order of their ids."""
    seen = rental_seen(actor, rental_id)
    if new_vehicle_id is not None and offer_for(new_vehicle_id, pickup_branch_id=None) is None:
        raise Invalid.field("vehicle_id", "not_found", "is no vehicle of this fleet")
    for vehicle_id in sorted({seen.vehicle_id, new_vehicle_id or seen.vehicle_id}):
        vehicle_for_update(vehicle_id)
    rental = rental_for_update(actor, rental_id)
    if rental.vehicle_id != seen.vehicle_id:
        # It moved between the look and the lock: the wrong vehicle is locked now.
        raise VersionConflict()
    return rental


def _rebooked(actor: Actor, rental: Rental, changes: dict[str, Any]) -> dict[str, Any]:
    """Move the rental's block and return what changes on the rental itself."""
    period = _new_period(actor, rental, changes)
    vehicle_id = changes.get("vehicle_id") or rental.vehicle_id
    offer = offer_for(vehicle_id, pickup_branch_id=rental.pickup_branch_id)
    assert offer is not None  # noqa: S101 - its row is locked
    terms = rental.agreed
    values: dict[str, Any] = {}
    if vehicle_id != rental.vehicle_id:
        values = _on_another_vehicle(rental, offer)
        terms = offer.terms
    occupancy.move(rental.id, kind=_KINDS[rental.status], period=_occupied(rental, period), offer=offer)
    base = pricing.base(terms, period).net_amount
    if rental.status == "active":
        # A vehicle that is out is owed as it was booked: bringing it back early does not make it cheaper.
        base = max(base, rental.base_amount)
        if period.end > rental.end_at:
            check_renter(rental.customer_id, until=period.end)
    extras = rental.total_amount - rental.base_amount
    return values | {
        "start_at": period.start,
        "end_at": period.end,
        "base_amount": base,
        "total_amount": money.amount(base + extras),
    }


def _new_period(actor: Actor, rental: Rental, changes: dict[str, Any]) -> Period:
    start: datetime = changes.get("start_at") or rental.start_at
    end: datetime = changes.get("end_at") or rental.end_at
    now = clock.now()
    if rental.status == "active":
        if start != rental.start_at:
            raise InvalidState("A rental that is out has started already")
        if end <= now:
            raise Invalid.field("end_at", "period_in_past", "is over already")
    untouched = start == rental.start_at
    return rental_period(start, end, now=now, may_backdate=untouched or actor.can("rentals.backdate"))


def _on_another_vehicle(rental: Rental, offer: Offer) -> dict[str, Any]:
    if rental.status == "active":
        raise InvalidState("A rental that is out keeps its vehicle")
    offer.check_rentable()
    if offer.terms.currency != rental.currency:
        raise InvalidState("The vehicle is let in another currency; cancel and book anew")
    return {
        "vehicle_id": offer.vehicle_id,
        "class_id": offer.class_id,
        "daily_rate": offer.terms.daily_rate,
        "terms": offer.terms.as_json(),
    }


def _occupied(rental: Rental, period: Period) -> Period:
    """An early handover took the time before the start too."""
    start = min(period.start, rental.actual_start_at) if rental.actual_start_at else period.start
    return Period(start, period.end)
