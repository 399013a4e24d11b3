"""/v1/rentals"""

from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from fleet import clock
from fleet.http import Answer, answer, if_match, made, operation, page_answer, shape, told
from fleet.idempotency import Claim, StoredAnswer
from fleet.models.base import Condition, in_state
from fleet.models.rentals import NOT_OVERDUE, OVERDUE
from fleet.paging import page
from fleet.parsing import (
    EARLIEST,
    Amount,
    AmountOrZero,
    DocumentNumber,
    Id,
    Input,
    Instant,
    Line,
    Notes,
    OdometerKm,
    PageQuery,
    Percent,
    View,
)
from fleet.rendering import Rendered
from fleet.rules.pricing import ExtraCharge, Return
from fleet.rules.priorities import Priority
from fleet.services import rental_changes, rentals, reservations
from fleet.services.reservations import Wish

bp = Blueprint("rentals", __name__, url_prefix="/v1/rentals")

Status = Literal["held", "reserved", "active", "completed", "cancelled", "no_show", "expired"]
ChargeType = Literal["fuel", "damage", "late_fee", "cleaning", "toll", "fine", "other"]


class ChargeView(View):
    id: UUID
    type: ChargeType
    description: str
    amount: int
    created_at: datetime


class RentedVehicle(View):
    plate_number: str
    make: str
    model: str


class Renter(View):
    first_name: str
    last_name: str


class RentalView(View):
    id: UUID
    number: str
    status: Status
    overdue: bool
    vehicle_id: UUID
    vehicle: RentedVehicle
    class_id: UUID | None
    customer_id: UUID
    customer: Renter
    driver_id: UUID | None
    start_at: datetime
    end_at: datetime
    hold_expires_at: datetime | None
    actual_start_at: datetime | None
    actual_end_at: datetime | None
    pickup_branch_id: UUID | None
    dropoff_branch_id: UUID | None
    daily_rate: int
    currency: str
    base_amount: int
    charges: list[ChargeView]
    total_amount: int
    deposit_amount: int
    start_odometer_km: int | None
    end_odometer_km: int | None
    start_fuel_percent: int | None
    end_fuel_percent: int | None
    notes: str | None
    cancel_reason: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class RentalQuery(PageQuery):
    recurs = True

    status: Status | None = None
    vehicle_id: Id | None = None
    customer_id: Id | None = None
    branch_id: Id | None = None
    number: DocumentNumber | None = None
    overdue: Literal["true", "false"] | None = None
    from_: Annotated[Instant | None, Field(alias="from")] = None
    to: Instant | None = None

    def conditions(self) -> list[Condition]:
        """The filters as SQL; `from` and `to` select the rentals that touch the time between them."""
        wanted = {
            "rental.vehicle_id = %s": self.vehicle_id,
            "rental.customer_id = %s": self.customer_id,
            "rental.pickup_branch_id = %s": self.branch_id,
            "rental.number = %s": self.number,
            "rental.end_at > %s": self.from_,
            "rental.start_at < %s": self.to,
        }
        conditions = [Condition(sql, (value,)) for sql, value in wanted.items() if value is not None]
        if self.status is not None:
            conditions.append(in_state("rental.status", self.status))
        if self.overdue is not None:
            # In the text, as states are (`in_state`): few rentals are late.
            conditions.append(OVERDUE if self.overdue == "true" else NOT_OVERDUE)
        return conditions


class ReserveRental(Input):
    customer_id: Id
    start_at: Instant
    end_at: Instant
    vehicle_id: Id | None = None
    class_id: Id | None = None
    pickup_branch_id: Id | None = None
    dropoff_branch_id: Id | None = None
    deposit_amount: AmountOrZero = 0
    notes: Notes | None = None
    hold_minutes: Annotated[int, Field(ge=1, le=1440)] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "ReserveRental":
        if (self.vehicle_id is None) == (self.class_id is None):
            raise PydanticCustomError("vehicle_or_class", "name a vehicle_id or a class_id, and not both")
        return self

    def as_wish(self) -> Wish:
        return Wish(**{name: getattr(self, name) for name in type(self).model_fields})


class ChangeRental(Input):
    # The defaults only let a field be left out; `changes` gives what was sent.
    start_at: Instant = EARLIEST
    end_at: Instant = EARLIEST
    vehicle_id: Id = UUID(int=0)
    notes: Notes | None = None


class ActivateRental(Input):
    start_odometer_km: OdometerKm
    fuel_level_percent: Percent | None = None


class AddCharge(Input):
    type: ChargeType
    description: Line
    amount: Amount

    def as_charge(self) -> ExtraCharge:
        return ExtraCharge(self.type, self.description, self.amount)


class CompleteRental(Input):
    end_odometer_km: OdometerKm
    fuel_level_percent: Percent | None = None
    returned_at: Instant | None = None
    charges: Annotated[list[AddCharge], Field(max_length=50)] = Field(default_factory=list)

    def as_return(self) -> Return:
        charges = tuple(charge.as_charge() for charge in self.charges)
        return Return(self.returned_at or clock.now(), self.end_odometer_km, self.fuel_level_percent, charges)


class CancelRental(Input):
    reason: Line | None = None


def document(row: dict[str, Any]) -> dict[str, Any]:
    """A rental as clients see it, made out of the row itself: a page has fifty of them."""
    row["vehicle"] = {"plate_number": row.pop("plate_number"), "make": row.pop("make"), "model": row.pop("model")}
    row["customer"] = {"first_name": row.pop("first_name"), "last_name": row.pop("last_name")}
    row["driver_id"] = None
    row["charges"] = row["charges"] or []
    return row


def _answer(rental_id: UUID) -> Answer:
    row = rentals.shown(g.actor, rental_id)
    return answer(document(row), version=row["version"])


def _made(row: dict[str, Any]) -> StoredAnswer:
    return made(document(row), version=row["version"], location=f"{bp.url_prefix}/{row['id']}")


_rendered = Rendered(document)


def _listed(**asked: Any) -> list[dict[str, Any]]:
    actor = g.actor
    return _rendered.rows(rentals.listed(actor, **asked), partial(rentals.with_ids, actor))


@bp.get("")
@operation("rentals.read", query=RentalQuery, answer=RentalView, listed=True)
def index(query: RentalQuery) -> Answer:
    """List rentals, newest first."""
    return page_answer(page(query, _listed, itemgetter("shown"), filters=query.conditions()))


@bp.post("")
@operation(
    "rentals.reserve",
    body=ReserveRental,
    answer=RentalView,
    status=201,
    idempotent=True,
    key_required=True,
    claimed_by_service=True,
    problems=("rental_overlap", "no_vehicle_available", "too_many_holds", "too_many_reservations", "invalid_state"),
)
def reserve(body: ReserveRental, claim: Claim) -> Answer:
    """Reserve a vehicle, or the best-fitting one of a class.

    With hold_minutes it is only held and expires by itself; a customer has only so many holds at once, and makes only so many
    reservations.
    A 409 rental_overlap carries alternatives.
    """
    return told(reservations.reserve(g.actor, body.as_wish(), claim=claim, answer_of=_made))


@bp.get("/<uuid:rental_id>")
@operation("rentals.read", answer=RentalView)
def show(rental_id: UUID) -> Answer:
    """Show a rental."""
    return _answer(rental_id)


@bp.patch("/<uuid:rental_id>")
@operation(
    "rentals.update",
    body=ChangeRental,
    answer=RentalView,
    if_match=True,
    idempotent=True,
    problems=("rental_overlap", "invalid_state"),
)
def change(rental_id: UUID, body: ChangeRental) -> Answer:
    """Change a rental's period, vehicle or notes; the price is computed again."""
    rental_changes.change(g.actor, rental_id, expected_version=if_match(), changes=body.changes())
    return _answer(rental_id)


@bp.post("/<uuid:rental_id>/confirm")
@operation("rentals.confirm", answer=RentalView, if_match=True, idempotent=True, problems=("invalid_state",))
def confirm(rental_id: UUID) -> Answer:
    """Turn a hold into a reservation."""
    rentals.confirm(g.actor, rental_id, expected_version=if_match(required=False))
    return _answer(rental_id)


@bp.post("/<uuid:rental_id>/activate")
@operation(
    "rentals.activate",
    body=ActivateRental,
    answer=RentalView,
    if_match=True,
    idempotent=True,
    problems=("invalid_state", "odometer_out_of_sequence", "rental_overlap"),
    priority=Priority.URGENT,
)
def activate(rental_id: UUID, body: ActivateRental) -> Answer:
    """Hand the vehicle over."""
    rentals.activate(
        g.actor,
        rental_id,
        start_odometer_km=body.start_odometer_km,
        fuel_percent=body.fuel_level_percent,
        expected_version=if_match(required=False),
    )
    return _answer(rental_id)


@bp.post("/<uuid:rental_id>/complete")
@operation(
    "rentals.complete",
    body=CompleteRental,
    answer=RentalView,
    if_match=True,
    idempotent=True,
    key_required=True,
    problems=("invalid_state", "odometer_out_of_sequence", "amount_too_large"),
    priority=Priority.URGENT,
)
def complete(rental_id: UUID, body: CompleteRental) -> Answer:
    """Take the vehicle back, settle the rental and issue its invoice."""
    rentals.complete(
        g.actor, rental_id, returned=body.as_return(), expected_version=if_match(required=False)
    )
    return _answer(rental_id)


@bp.post("/<uuid:rental_id>/cancel")
@operation(
    "rentals.cancel", body=CancelRental, answer=RentalView, if_match=True, idempotent=True, problems=("invalid_state",)
)
def cancel(rental_id: UUID, body: CancelRental) -> Answer:
    """Cancel a hold or a reservation, for the fee that was agreed."""
    rentals.cancel(g.actor, rental_id, reason=body.reason, expected_version=if_match(required=False))
    return _answer(rental_id)


@bp.post("/<uuid:rental_id>/no-show")
@operation("rentals.no_show", answer=RentalView, if_match=True, idempotent=True, problems=("invalid_state",))
def no_show(rental_id: UUID) -> Answer:
    """Give up on a customer who did not come."""
    rentals.no_show(g.actor, rental_id, expected_version=if_match(required=False))
    return _answer(rental_id)


@bp.get("/<uuid:rental_id>/charges")
@operation("rentals.read", query=PageQuery, answer=ChargeView, listed=True)
def charges(rental_id: UUID, query: PageQuery) -> Answer:
    """List a rental's charges, newest first."""
    shaped = page(
        query, rentals.charges_listed, lambda row: shape(ChargeView, row), actor=g.actor, rental_id=rental_id
    )
    return page_answer(shaped)


@bp.post("/<uuid:rental_id>/charges")
@operation(
    "rentals.charge",
    body=AddCharge,
    answer=ChargeView,
    status=201,
    idempotent=True,
    problems=("invalid_state", "amount_too_large"),
)
def add_charge(rental_id: UUID, body: AddCharge) -> Answer:
    """Charge something found later: damage, a toll, a fine."""
    kept = rentals.charge(g.actor, rental_id, body.as_charge())
    return answer(shape(ChargeView, kept), 201, location=f"{bp.url_prefix}/{rental_id}/charges")
