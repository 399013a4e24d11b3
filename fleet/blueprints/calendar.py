"""/v1/vehicles/{id}/calendar, its manual blocks, and /v1/availability"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import icalendar
from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.http import Answer, answer, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Id, Input, Instant, Line, PageQuery, Query, View
from fleet.rules.priorities import Priority
from fleet.services import availability, calendar

bp = Blueprint("calendar", __name__, url_prefix="/v1")

_VEHICLE = "/vehicles/<uuid:vehicle_id>"
Reason = Annotated[Line, StringConstraints(max_length=200)]


class BlockView(View):
    id: UUID
    kind: Literal["hold", "reservation", "rental", "maintenance", "manual", "transfer"]
    start_at: datetime
    end_at: datetime
    live: bool
    rental_id: UUID | None
    reason: str | None
    created_at: datetime


class WindowQuery(Query):
    """The part of a calendar to look at: by default from now on, thirty days; at most 400 days."""

    from_: Instant | None = Field(None, alias="from")
    to: Instant | None = None


class CalendarQuery(PageQuery, WindowQuery):
    """A page of a part of a calendar."""


class BlockVehicle(Input):
    start_at: Instant
    end_at: Instant
    reason: Reason | None = None


class SummaryQuery(Query):
    """Which vehicles are wanted, and when."""

    start_at: Instant
    end_at: Instant
    class_id: Id | None = None
    branch_id: Id | None = None


class AvailabilityQuery(PageQuery, SummaryQuery):
    """A page of the vehicles that are wanted."""


class FreeVehicle(View):
    """A vehicle that is free, with the price of the window before tax, in minor units of `currency`."""

    id: UUID
    plate_number: str
    make: str
    model: str
    year: int
    class_id: UUID | None
    branch_id: UUID | None
    fuel_type: str | None
    transmission: str | None
    color: str | None
    passenger_capacity: int | None
    daily_rate: int
    currency: str
    days: int
    base_amount: int
    total_amount: int


class FreeInClass(View):
    """How many vehicles of a class are free at rates of one currency; `class_id` is null for those of none."""

    class_id: UUID | None
    currency: str
    free: int
    lowest_daily_rate: int


class AvailabilitySummary(View):
    """`as_of` is when it was counted: usually a few seconds ago at most. At most 500 classes."""

    as_of: datetime
    data: list[FreeInClass]


@bp.get(f"{_VEHICLE}/calendar")
@operation("calendar.read", query=CalendarQuery, answer=BlockView, listed=True)
def show(vehicle_id: UUID, query: CalendarQuery) -> Answer:
    """Show what occupies a vehicle, and what occupied it, in the order of time."""
    window = calendar.view(query.from_, query.to)
    return page_answer(
        page(query, calendar.listed, lambda row: shape(BlockView, row), actor=g.actor, vehicle_id=vehicle_id, window=window)
    )


@bp.get(f"{_VEHICLE}/calendar.ics")
@operation("calendar.read", query=WindowQuery, media=("text/calendar",), report=True, priority=Priority.DEFERRABLE)
def feed(vehicle_id: UUID, query: WindowQuery) -> Answer:
    """Show what occupies a vehicle, for calendar programs (RFC 5545)."""
    blocks = calendar.live_blocks(g.actor, vehicle_id, calendar.view(query.from_, query.to))
    return Answer(_as_ical(blocks), content_type="text/calendar; charset=utf-8")


@bp.post(f"{_VEHICLE}/blocks")
@operation(
    "blocks.manage",
    body=BlockVehicle,
    answer=BlockView,
    status=201,
    idempotent=True,
    problems=("rental_overlap", "invalid_state"),
)
def block(vehicle_id: UUID, body: BlockVehicle) -> Answer:
    """Block a vehicle by hand."""
    made = calendar.block(g.actor, vehicle_id, **body.model_dump())
    return answer(made, 201, location=f"{bp.url_prefix}/vehicles/{vehicle_id}/blocks/{made['id']}")


@bp.get(f"{_VEHICLE}/blocks/<uuid:block_id>")
@operation("calendar.read", answer=BlockView)
def show_block(vehicle_id: UUID, block_id: UUID) -> Answer:
    """Show a block of a vehicle."""
    return answer(calendar.shown(g.actor, vehicle_id, block_id))


@bp.delete(f"{_VEHICLE}/blocks/<uuid:block_id>")
@operation("blocks.manage", status=204, problems=("invalid_state",))
def unblock(vehicle_id: UUID, block_id: UUID) -> Answer:
    """Give back what a manual block took; it stays in the history."""
    calendar.unblock(g.actor, vehicle_id, block_id)
    return answer()


@bp.get("/availability")
@operation("availability.read", query=AvailabilityQuery, answer=FreeVehicle, listed=True, cost=2, priority=Priority.NORMAL)
def free(query: AvailabilityQuery) -> Answer:
    """List the vehicles that are free in a window, each with its price before tax."""
    wanted = query.model_dump(exclude={"cursor", "limit"})
    return page_answer(page(query, availability.listed, lambda row: shape(FreeVehicle, row), actor=g.actor, **wanted))


@bp.get("/availability/summary")
@operation("availability.read", query=SummaryQuery, answer=AvailabilitySummary)
def summary(query: SummaryQuery) -> Answer:
    """Count the vehicles that are free in a window, by class: for pages that many look at.

    It may be some seconds old, up to fifteen while the database fails. The list of free vehicles and reservations are exact.
    """
    return answer(availability.summary(g.actor, **query.model_dump()))


def _as_ical(blocks: list[dict[str, Any]]) -> bytes:
    feed = icalendar.Calendar()
    feed.add("prodid", "-//Fleet//Vehicle calendar//EN")
    feed.add("version", "2.0")
    for block in blocks:
        event = icalendar.Event()
        event.add("uid", f"{block['id']}@fleet")
        event.add("dtstamp", block["created_at"])
        event.add("dtstart", block["start_at"])
        event.add("dtend", block["end_at"])
        event.add("summary", block["kind"].capitalize())
        if block["reason"]:
            event.add("description", block["reason"])
        feed.add_component(event)
    return bytes(feed.to_ical())
