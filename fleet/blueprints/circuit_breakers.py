"""/admin/circuit-breakers"""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal

from flask import Blueprint, current_app, g
from pydantic import Field

from fleet.breakers import AUTO, FORCED_CLOSED, FORCED_OPEN
from fleet.http import Answer, answer, operation
from fleet.parsing import Input, Line, View
from fleet.services import circuit_breakers

bp = Blueprint("circuit_breakers", __name__, url_prefix="/admin/circuit-breakers")

State = Literal["closed", "half_open", "open"]
Word = Literal["auto", "forced_open", "forced_closed"]
Reason = Annotated[Line, Field(description="Why; shown with the breaker and kept in the audit log. No personal data")]


class BreakerProcessView(View):
    """How the breaker stands in one process. `heard` is false until the process knows the last word of an operator."""

    process: str
    kind: Literal["web", "worker", "relay"]
    reported_at: datetime
    state: State
    failures: int
    opened_at: datetime | None
    control: Word
    heard: bool


class BreakerView(View):
    """`state` is the worst of the processes that have heard the last word, or what they are forced to. `failures` counts those
    within the windows of all processes. `control`, by whom, when and why is the last word of an operator.
    """

    name: str
    state: State
    failures: int
    opened_at: datetime | None
    control: Word
    controlled_by: str | None
    controlled_at: datetime | None
    reason: str | None
    processes: list[BreakerProcessView]


class BreakersView(View):
    """All of them on one page. `shared` is false while Redis is away: then only the process that answers is seen."""

    as_of: datetime
    shared: bool
    data: list[BreakerView]
    next_cursor: None


class ControlBreaker(Input):
    reason: Reason | None = None


@bp.get("")
@operation("circuit_breakers.read", answer=BreakersView)
def index() -> Answer:
    """Show every circuit breaker over all processes: its state, its failures, who has forced it."""
    picture = circuit_breakers.seen(g.actor, current_app.extensions["fleet"].breakers)
    data = [asdict(state) for state in picture.breakers]
    return answer({"as_of": picture.as_of, "shared": picture.shared, "data": data, "next_cursor": None})


@bp.post("/<string:name>/open")
@operation(
    "circuit_breakers.control", body=ControlBreaker, answer=BreakerView, idempotent=True, problems=("invalid_state",)
)
def force_open(name: str, body: ControlBreaker) -> Answer:
    """Hold a breaker open: nothing is asked of what is behind it until it is closed or released. Not PostgreSQL's."""
    return _controlled(name, FORCED_OPEN, body)


@bp.post("/<string:name>/close")
@operation("circuit_breakers.control", body=ControlBreaker, answer=BreakerView, idempotent=True)
def force_closed(name: str, body: ControlBreaker) -> Answer:
    """Hold a breaker closed: everything is asked, however much of it fails, until it is released."""
    return _controlled(name, FORCED_CLOSED, body)


@bp.post("/<string:name>/auto")
@operation("circuit_breakers.control", body=ControlBreaker, answer=BreakerView, idempotent=True)
def release(name: str, body: ControlBreaker) -> Answer:
    """Let a breaker decide by itself again. It begins closed, without what it has counted before."""
    return _controlled(name, AUTO, body)


def _controlled(name: str, state: str, body: ControlBreaker) -> Answer:
    sharing = current_app.extensions["fleet"].breakers
    done = circuit_breakers.control(g.actor, name, state, reason=body.reason, sharing=sharing)
    return answer(asdict(done))
