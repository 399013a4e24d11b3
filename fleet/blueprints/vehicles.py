"""/v1/vehicles and their odometer readings"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from fleet import clock
from fleet.http import Answer, answer, if_match, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Amount, Currency, Id, Input, Instant, Line, OdometerKm, PageQuery, View
from fleet.rules import text
from fleet.services import odometer, vehicles

bp = Blueprint("vehicles", __name__, url_prefix="/v1/vehicles")


def _spelled(normal: Callable[[str], str], code: str) -> AfterValidator:
    """One spelling, so that a plate or VIN typed in two ways is still one."""

    def read(raw: str) -> str:
        try:
            return normal(raw)
        except ValueError as error:
            raise PydanticCustomError(code, "{reason}", {"reason": str(error)}) from None

    return AfterValidator(read)


def _model_year(year: int) -> int:
    if year > clock.now().year + 2:
        raise PydanticCustomError("out_of_range", "must not be beyond the models of the next years")
    return year


Plate = Annotated[str, StringConstraints(max_length=20), _spelled(text.plate, "invalid_plate")]
Vin = Annotated[str, StringConstraints(max_length=40), _spelled(text.vin, "invalid_vin")]
Year = Annotated[int, Field(ge=1900, le=2100), AfterValidator(_model_year)]
Word = Annotated[Line, StringConstraints(max_length=40)]
Seats = Annotated[int, Field(ge=1, le=100)]
Status = Literal["onboarding", "in_service", "out_of_service", "sold", "written_off"]


class VehicleView(View):
    id: UUID
    plate_number: str
    vin: str | None
    make: str
    model: str
    year: int
    class_id: UUID | None
    branch_id: UUID | None
    status: Status
    fuel_type: str | None
    transmission: str | None
    color: str | None
    passenger_capacity: int | None
    odometer_km: int
    daily_rate: int | None = Field(description="Its own, in minor units; null where it is let at the rate of its class")
    currency: str
    retired_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class RegisterVehicle(Input):
    plate_number: Plate
    vin: Vin | None = None
    make: Line
    model: Line
    year: Year
    class_id: Id | None = None
    branch_id: Id | None = None
    status: Literal["onboarding", "in_service"] = "in_service"
    fuel_type: Word | None = None
    transmission: Word | None = None
    color: Word | None = None
    passenger_capacity: Seats | None = None
    odometer_km: OdometerKm = 0
    daily_rate: Amount | None = None
    currency: Currency | None = None


class ChangeVehicle(Input):
    plate_number: Plate = ""
    vin: Vin | None = None
    make: Line = ""
    model: Line = ""
    year: Year = 0
    class_id: Id | None = None
    branch_id: Id | None = None
    fuel_type: Word | None = None
    transmission: Word | None = None
    color: Word | None = None
    passenger_capacity: Seats | None = None
    daily_rate: Amount | None = None
    currency: Currency = ""


class MoveVehicle(Input):
    status: Status


class VehicleQuery(PageQuery):
    """Which vehicles are listed: those of the fleet, or those that were retired from it."""

    status: Status | None = None
    class_id: Id | None = None
    branch_id: Id | None = None
    q: Annotated[str, StringConstraints(strip_whitespace=True, max_length=100)] | None = Field(
        None, description="Part of the plate, VIN, make or model"
    )
    retired: Literal["true", "false"] = "false"


class ReadingView(View):
    id: UUID
    vehicle_id: UUID
    reading_km: int
    measured_at: datetime
    source: Literal["manual", "handover", "return"]
    recorded_by: UUID | None
    created_at: datetime


class RecordReading(Input):
    reading_km: OdometerKm
    measured_at: Instant | None = None


@bp.get("")
@operation("vehicles.read", query=VehicleQuery, answer=VehicleView, listed=True)
def index(query: VehicleQuery) -> Answer:
    """List vehicles."""
    wanted = query.model_dump(exclude={"cursor", "limit"}) | {"retired": query.retired == "true"}
    return page_answer(page(query, vehicles.listed, lambda row: shape(VehicleView, row), actor=g.actor, **wanted))


@bp.post("")
@operation("vehicles.create", body=RegisterVehicle, answer=VehicleView, status=201, idempotent=True, problems=("duplicate",))
def register(body: RegisterVehicle) -> Answer:
    """Take a vehicle into the fleet.

    It needs a daily rate, or a class that has one. Without a currency it takes that of its class, else of its branch.
    """
    vehicle = vehicles.register(g.actor, **body.model_dump())
    return answer(shape(VehicleView, vehicle), 201, version=vehicle.version, location=f"{bp.url_prefix}/{vehicle.id}")


@bp.get("/<uuid:vehicle_id>")
@operation("vehicles.read", answer=VehicleView)
def show(vehicle_id: UUID) -> Answer:
    """Show a vehicle."""
    vehicle = vehicles.shown(g.actor, vehicle_id)
    return answer(vehicle, version=vehicle["version"])


@bp.patch("/<uuid:vehicle_id>")
@operation("vehicles.update", body=ChangeVehicle, answer=VehicleView, if_match=True, idempotent=True, problems=("duplicate",))
def change(vehicle_id: UUID, body: ChangeVehicle) -> Answer:
    """Change what is written of a vehicle; its status and odometer have calls of their own."""
    vehicle = vehicles.change(g.actor, vehicle_id, expected_version=if_match(), changes=body.changes())
    return answer(shape(VehicleView, vehicle), version=vehicle.version)


@bp.delete("/<uuid:vehicle_id>")
@operation("vehicles.delete", status=204, if_match=True, problems=("invalid_state", "in_use"))
def remove(vehicle_id: UUID) -> Answer:
    """Retire a vehicle that has a history, remove one that has none."""
    vehicles.remove(g.actor, vehicle_id, expected_version=if_match())
    return answer()


@bp.post("/<uuid:vehicle_id>/status")
@operation(
    "vehicles.status",
    body=MoveVehicle,
    answer=VehicleView,
    if_match=True,
    idempotent=True,
    problems=("invalid_state",),
)
def move(vehicle_id: UUID, body: MoveVehicle) -> Answer:
    """Move a vehicle along its lifecycle: into service, out of it, sold or written off."""
    vehicle = vehicles.change_status(g.actor, vehicle_id, status=body.status, expected_version=if_match(required=False))
    return answer(shape(VehicleView, vehicle), version=vehicle.version)


@bp.get("/<uuid:vehicle_id>/odometer-readings")
@operation("odometer.read", query=PageQuery, answer=ReadingView, listed=True)
def readings(vehicle_id: UUID, query: PageQuery) -> Answer:
    """List the odometer readings of a vehicle."""
    return page_answer(page(query, odometer.listed, lambda row: shape(ReadingView, row), actor=g.actor, vehicle_id=vehicle_id))


@bp.post("/<uuid:vehicle_id>/odometer-readings")
@operation(
    "odometer.record",
    body=RecordReading,
    answer=ReadingView,
    status=201,
    idempotent=True,
    problems=("odometer_out_of_sequence",),
)
def record(vehicle_id: UUID, body: RecordReading) -> Answer:
    """Record what an odometer shows, or showed at a time that is past."""
    reading = odometer.read_off(g.actor, vehicle_id, **body.model_dump())
    location = f"{bp.url_prefix}/{vehicle_id}/odometer-readings/{reading.id}"
    return answer(shape(ReadingView, reading), 201, location=location)


@bp.get("/<uuid:vehicle_id>/odometer-readings/<uuid:reading_id>")
@operation("odometer.read", answer=ReadingView)
def reading(vehicle_id: UUID, reading_id: UUID) -> Answer:
    """Show an odometer reading."""
    return answer(odometer.shown(g.actor, vehicle_id, reading_id))
