"""The life of a rental after it was booked: confirm, hand over, take back, cancel, give up on, and charge.

Every transition locks the vehicle's row, then the rental's (docs/locking.md), and looks at the state only then. So of two
simultaneous calls the second finds what the first one left, and bills nothing twice.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Invalid, InvalidState, NotFound, VersionConflict
from fleet.models.base import MAX_PAGE, Condition
from fleet.models.people import Customer
from fleet.models.rentals import (
    CHARGES,
    RENTAL_STAMPS,
    RENTALS,
    STAMPED_RENTALS,
    Rental,
    RentalCharge,
    rental_for_update,
    rental_seen,
    rentals_seen_by,
)
from fleet.models.vehicles import Vehicle, vehicle_for_update
from fleet.rules import lifecycles, money, pricing
from fleet.rules.periods import Period
from fleet.rules.pricing import ExtraCharge, Line, Return
from fleet.services import events, invoices, occupancy, odometer, outbox
from fleet.services.terms import offer_for

EARLIEST_HANDOVER = timedelta(days=1)
"""How long before its start a rental may begin: the time before is not billed (docs/money.md)."""


def listed(
    actor: Actor, *, after: UUID | None, limit: int, filters: list[Condition] | None = None
) -> list[str]:
    """A page of the rentals that the actor sees, newest first: of each the id and what tells whether it has changed."""
    return RENTAL_STAMPS.first_column([rentals_seen_by(actor), *(filters or [])], after=after, limit=limit)


def with_ids(actor: Actor, rental_ids: list[str]) -> list[dict[str, Any]]:
    """These of the rentals that the actor sees, each with its customer, vehicle, charges and `stamp`."""
    chosen = Condition("rental.id = ANY(%s)", ("{" + ",".join(rental_ids) + "}",))
    return STAMPED_RENTALS.page([rentals_seen_by(actor), chosen], after=None, limit=MAX_PAGE)


def shown(actor: Actor, rental_id: UUID) -> dict[str, Any]:
    """One rental with its customer, vehicle and charges. Raises NotFound, also for one that is not the actor's."""
    found = RENTALS.first([rentals_seen_by(actor), Condition("rental.id = %s", (rental_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def confirm(actor: Actor, rental_id: UUID, *, expected_version: int | None = None) -> Rental:
    """Turn a hold into a reservation. Raises NotFound, InvalidState (also when the hold's time is over)."""
    _, rental = _locked(actor, rental_id, expected_version)
    lifecycles.rental.check(rental.status, "reserved")
    if rental.hold_expires_at <= clock.now():
        raise InvalidState("The hold has expired")
    rental.change(status="reserved", hold_expires_at=None)
    occupancy.become(rental, "reservation")
    events.of_rentals("rental.reserved", [rental.id])
    outbox.promise("notifications.rental_reserved", "rental", rental.id)
    return rental


@atomic
def activate(
    actor: Actor, rental_id: UUID, *, start_odometer_km: int, fuel_percent: int | None, expected_version: int | None = None
) -> Rental:
    """Hand the vehicle over.

    Raises NotFound, InvalidState (status, vehicle not in service or still out, customer, licence, too late),
    OdometerOutOfSequence, RentalOverlap when it is handed over early and somebody else still has the time before.
    """
    vehicle, rental = _locked(actor, rental_id, expected_version)
    lifecycles.rental.check(rental.status, "active")
    now = clock.now()
    _check_handover(vehicle, rental, now)
    odometer.record(actor, vehicle, start_odometer_km, now, "handover")
    rental.change(
        status="active", actual_start_at=now, start_odometer_km=start_odometer_km, start_fuel_percent=fuel_percent
    )
    _occupy_from(rental, min(now, rental.start_at))
    events.of_rentals("rental.activated", [rental.id])
    return rental


@atomic
def complete(actor: Actor, rental_id: UUID, *, returned: Return, expected_version: int | None = None) -> Rental:
    """Take the vehicle back, settle the rental and issue its invoice.

    The row locks make a second, simultaneous return wait and then find the rental completed: it is billed once.
    Raises NotFound, InvalidState, Invalid, OdometerOutOfSequence.
    """
    vehicle, rental = _locked(actor, rental_id, expected_version)
    lifecycles.rental.check(rental.status, "completed")
    _check_return(rental, returned)
    lines = _settled(rental, returned)
    odometer.record(actor, vehicle, returned.odometer_km, returned.at, "return")
    _keep_charges(actor, rental, returned, lines)
    base = sum(line.net_amount for line in lines if line.type == "rental")
    rental.change(
        status="completed",
        actual_end_at=returned.at,
        end_odometer_km=returned.odometer_km,
        end_fuel_percent=returned.fuel_percent,
        base_amount=base,
        total_amount=sum(line.net_amount for line in lines),
    )
    occupancy.give_back_at(rental, returned.at)
    if rental.dropoff_branch_id and vehicle.branch_id != rental.dropoff_branch_id:
        vehicle.change(branch_id=rental.dropoff_branch_id)
    events.of_rentals("rental.completed", [rental.id])
    invoices.issue(actor, rental, lines)
    return rental


@atomic
def cancel(actor: Actor, rental_id: UUID, *, reason: str | None, expected_version: int | None = None) -> Rental:
    """Give the time back before the handover, for the fee that was agreed. A hold costs nothing.

    Raises NotFound, InvalidState.
    """
    _, rental = _locked(actor, rental_id, expected_version)
    lifecycles.rental.check(rental.status, "cancelled")
    fee = None
    if rental.status == "reserved":
        fee = _fee_for_cancelling(rental, clock.now())
    _give_up(actor, rental, "cancelled", fee, cancel_reason=reason)
    outbox.promise("notifications.rental_cancelled", "rental", rental.id)
    return rental


@atomic
def no_show(actor: Actor, rental_id: UUID, *, expected_version: int | None = None) -> Rental:
    """Give up on a customer who did not come, for the fee that was agreed. Raises NotFound, InvalidState."""
    _, rental = _locked(actor, rental_id, expected_version)
    lifecycles.rental.check(rental.status, "no_show")
    if clock.now() < rental.start_at:
        raise InvalidState("The rental has not started yet")
    _give_up(actor, rental, "no_show", pricing.no_show(rental.agreed))
    outbox.promise("notifications.rental_no_show", "rental", rental.id)
    return rental


@atomic
def charge(actor: Actor, rental_id: UUID, found: ExtraCharge) -> RentalCharge:
    """Charge something found later. On a rental that is out it joins the invoice of its return; after that it has its own.

    Raises NotFound, InvalidState before the handover.
    """
    _, rental = _locked(actor, rental_id, None)
    if rental.status not in {"active", "completed"}:
        raise InvalidState("Only a rental that is out or came back can be charged")
    kept: RentalCharge = RentalCharge.create(
        rental_id=rental.id, type=found.type, description=found.description, amount=found.amount, created_by=actor.user_id
    )
    total = rental.total_amount + found.amount
    # Tax can double it at most: what could never be invoiced would keep the vehicle from ever being taken back.
    money.amount(2 * total)
    rental.change(total_amount=total)
    events.of_rentals("rental.changed", [rental.id])
    if rental.status == "completed":
        invoices.issue(actor, rental, [pricing.charged(found)])
    return kept


def charges_listed(actor: Actor, rental_id: UUID, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of a rental's charges, newest first. Raises NotFound."""
    rental = rental_seen(actor, rental_id)
    return CHARGES.page([Condition("rental_charge.rental_id = %s", (rental.id,))], after=after, limit=limit)


def _locked(actor: Actor, rental_id: UUID, expected_version: int | None) -> tuple[Vehicle, Rental]:
    """The vehicle and the rental, locked in this order. Raises NotFound, VersionConflict."""
    vehicle_id = rental_seen(actor, rental_id).vehicle_id
    vehicle = vehicle_for_update(vehicle_id)
    rental = rental_for_update(actor, rental_id)
    if rental.vehicle_id != vehicle_id or expected_version not in {None, rental.version}:
        # It moved to another vehicle, or was edited, between the look and the lock.
        raise VersionConflict()
    return vehicle, rental


def _check_handover(vehicle: Vehicle, rental: Rental, now: datetime) -> None:
    if now >= rental.end_at:
        raise InvalidState("The rental's time is over")
    if now < rental.start_at - EARLIEST_HANDOVER:
        raise InvalidState("The handover is at most a day early; change the rental's start instead")
    if vehicle.status != "in_service" or vehicle.retired_at:
        raise InvalidState("The vehicle is not in service")
    if Rental.select().where((Rental.vehicle_id == vehicle.id) & (Rental.status == "active")).exists():
        raise InvalidState("The vehicle is still out")
    check_renter(rental.customer_id, until=rental.end_at)


def _occupy_from(rental: Rental, start: datetime) -> None:
    """The vehicle is out, from now on where it is handed over early. Raises RentalOverlap."""
    if start == rental.start_at:
        occupancy.become(rental, "rental")
        return
    offer = offer_for(rental.vehicle_id, pickup_branch_id=rental.pickup_branch_id)
    assert offer is not None  # noqa: S101 - its row is locked
    occupancy.move(rental.id, kind="rental", period=Period(start, rental.end_at), offer=offer)


def check_renter(customer_id: UUID, *, until: datetime) -> None:
    """Raises InvalidState unless the customer may have a vehicle out until then: active, with a licence valid that long."""
    customer = Customer.get_by_id(customer_id)
    if customer.status != "active":
        raise InvalidState("The customer was deactivated")
    if customer.driver_license_expiry < until.date():
        raise InvalidState("The driving licence expires before the rental ends")


def _check_return(rental: Rental, returned: Return) -> None:
    if returned.at < rental.actual_start_at:
        raise Invalid.field("returned_at", "before_handover", "must not be before the handover")
    if returned.at > clock.now():
        raise Invalid.field("returned_at", "in_future", "must not be in the future")


def _settled(rental: Rental, returned: Return) -> list[Line]:
    """Every line that is owed: the booked days, lateness, fuel, what was charged meanwhile and what was found now."""
    meanwhile = RentalCharge.select().where(RentalCharge.rental_id == rental.id).order_by(RentalCharge.id)
    earlier = tuple(ExtraCharge(item.type, item.description, item.amount) for item in meanwhile)
    return pricing.settle(
        rental.agreed,
        rental.booked,
        actual_start=rental.actual_start_at,
        start_fuel_percent=rental.start_fuel_percent,
        returned=Return(returned.at, returned.odometer_km, returned.fuel_percent, earlier + returned.charges),
    )


def _keep_charges(actor: Actor, rental: Rental, returned: Return, lines: list[Line]) -> None:
    """The charges that this return adds: those that the rules made, and those that staff found."""
    by_rule = [line for line in lines if line.type != "rental" and line.rule != "entered_by_staff"]
    found = [(line.type, line.description, line.net_amount) for line in by_rule]
    found += [(item.type, item.description, item.amount) for item in returned.charges]
    rows = [
        {"rental_id": rental.id, "type": type_, "description": text, "amount": amount, "created_by": actor.user_id}
        for type_, text, amount in found
    ]
    if rows:
        RentalCharge.insert_many([{"id": clock.new_id(), **row} for row in rows]).execute()


def _fee_for_cancelling(rental: Rental, now: datetime) -> Line | None:
    """After the start it costs no less than not coming at all: nobody saves a no-show fee by cancelling late."""
    fees = [pricing.cancellation(rental.agreed, rental.booked, at=now)]
    if now >= rental.start_at:
        fees.append(pricing.no_show(rental.agreed))
    return max((fee for fee in fees if fee), key=lambda fee: fee.net_amount, default=None)


def _give_up(actor: Actor, rental: Rental, status: str, fee: Line | None, **values: Any) -> None:
    rental.change(status=status, total_amount=fee.net_amount if fee else 0, hold_expires_at=None, **values)
    occupancy.give_back(rental)
    events.of_rentals(f"rental.{status}", [rental.id])
    if fee:
        invoices.issue(actor, rental, [fee])
