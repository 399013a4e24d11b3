"""/v1/vehicle-classes"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field

from fleet.http import Answer, answer, if_match, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Amount, AmountOrZero, Code, Currency, Input, Line, Notes, PageQuery, View
from fleet.services import vehicle_classes

bp = Blueprint("vehicle_classes", __name__, url_prefix="/v1/vehicle-classes")

Minutes = Annotated[int, Field(ge=0, le=24 * 60)]
Hours = Annotated[int, Field(ge=0, le=365 * 24)]


class VehicleClassView(View):
    id: UUID
    code: str
    name: str
    description: str | None
    daily_rate: int | None
    currency: str
    late_fee_per_hour: int
    fuel_fee_per_percent: int
    cancellation_fee: int
    free_cancellation_hours: int
    no_show_fee: int
    turnaround_before_minutes: int
    turnaround_after_minutes: int
    version: int
    created_at: datetime
    updated_at: datetime


class CreateVehicleClass(Input):
    code: Code
    name: Line
    description: Notes | None = None
    daily_rate: Amount | None = None
    currency: Currency | None = None
    late_fee_per_hour: AmountOrZero = 0
    fuel_fee_per_percent: AmountOrZero = 0
    cancellation_fee: AmountOrZero = 0
    free_cancellation_hours: Hours = 24
    no_show_fee: AmountOrZero = 0
    turnaround_before_minutes: Minutes = 0
    turnaround_after_minutes: Minutes = 0


class ChangeVehicleClass(Input):
    code: Code = ""
    name: Line = ""
    description: Notes | None = None
    daily_rate: Amount | None = None
    currency: Currency = ""
    late_fee_per_hour: AmountOrZero = 0
    fuel_fee_per_percent: AmountOrZero = 0
    cancellation_fee: AmountOrZero = 0
    free_cancellation_hours: Hours = 0
    no_show_fee: AmountOrZero = 0
    turnaround_before_minutes: Minutes = 0
    turnaround_after_minutes: Minutes = 0


@bp.get("")
@operation("vehicle_classes.read", query=PageQuery, answer=VehicleClassView, listed=True)
def index(query: PageQuery) -> Answer:
    """List vehicle classes."""
    return page_answer(page(query, vehicle_classes.listed, lambda row: shape(VehicleClassView, row), actor=g.actor))


@bp.post("")
@operation(
    "vehicle_classes.manage",
    body=CreateVehicleClass,
    answer=VehicleClassView,
    status=201,
    idempotent=True,
    problems=("duplicate",),
)
def create(body: CreateVehicleClass) -> Answer:
    """Make a vehicle class.

    Rates and fees are net, in minor units; the turnaround times keep a vehicle of the class free before and after each rental.
    """
    made = vehicle_classes.create(g.actor, **body.model_dump())
    return answer(shape(VehicleClassView, made), 201, version=made.version, location=f"{bp.url_prefix}/{made.id}")


@bp.get("/<uuid:class_id>")
@operation("vehicle_classes.read", answer=VehicleClassView)
def show(class_id: UUID) -> Answer:
    """Show a vehicle class."""
    found = vehicle_classes.shown(g.actor, class_id)
    return answer(found, version=found["version"])


@bp.patch("/<uuid:class_id>")
@operation(
    "vehicle_classes.manage",
    body=ChangeVehicleClass,
    answer=VehicleClassView,
    if_match=True,
    idempotent=True,
    problems=("duplicate", "in_use"),
)
def change(class_id: UUID, body: ChangeVehicleClass) -> Answer:
    """Change a vehicle class; rentals that are booked already keep their terms."""
    changed = vehicle_classes.change(g.actor, class_id, expected_version=if_match(), changes=body.changes())
    return answer(shape(VehicleClassView, changed), version=changed.version)


@bp.delete("/<uuid:class_id>")
@operation("vehicle_classes.manage", status=204, if_match=True, problems=("in_use",))
def remove(class_id: UUID) -> Answer:
    """Remove a vehicle class that nothing refers to."""
    vehicle_classes.remove(g.actor, class_id, expected_version=if_match())
    return answer()
