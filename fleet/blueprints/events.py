"""/v1/events"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, g
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from fleet.http import Answer, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import MAX_INT, PageQuery, View, digits
from fleet.rules.events import TYPES
from fleet.services import events

bp = Blueprint("events", __name__, url_prefix="/v1/events")


def _known(name: str) -> str:
    if name not in TYPES:
        raise PydanticCustomError("unknown_event_type", "must be a type of event such as rental.reserved")
    return name


EventType = Annotated[
    str, StringConstraints(max_length=64), AfterValidator(_known), Field(json_schema_extra={"enum": list(TYPES)})
]


class EventView(View):
    """What happened to one thing; `data` is the thing as it was then, without names and free text."""

    id: UUID
    type: str
    occurred_at: datetime
    aggregate_type: str
    aggregate_id: UUID
    sequence: int
    schema_version: int
    data: dict[str, Any]


class EventQuery(PageQuery):
    after: Annotated[
        int,
        Field(ge=0, le=MAX_INT, description="The sequence of the last event that you have; 0 for the beginning"),
        BeforeValidator(digits),
    ] = 0
    type: EventType | None = None


@bp.get("")
@operation("events.read", query=EventQuery, answer=EventView, listed=True)
def index(query: EventQuery) -> Answer:
    """List what happened, oldest first, in the order in which it was committed.

    Sequence numbers have no gaps, and an event never appears before one that you have: ask again with `after` the last one.
    Events are kept for 90 days.
    """
    shaped = page(
        query,
        events.listed,
        lambda row: shape(EventView, row),
        actor=g.actor,
        start=query.after,
        type_=query.type,
    )
    return page_answer(shaped)
