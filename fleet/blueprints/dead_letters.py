"""/admin/dead-letters"""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.http import Answer, answer, operation, page_answer, shape
from fleet.models.dead_letters import Chosen
from fleet.paging import page
from fleet.parsing import Input, Instant, Line, PageQuery, View
from fleet.services import dead_letters

bp = Blueprint("dead_letters", __name__, url_prefix="/admin/dead-letters")

Status = Literal["dead", "discarded"]
Name = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z_]+(\.[a-z_]+)*$")]
Reason = Annotated[Line, Field(description="Why; kept with the letter and in the audit log. No personal data")]
Cause = Annotated[Line, Field(description="The class of the cause, or words of the last error")]
Bound = Annotated[int, Field(ge=1, le=dead_letters.MOST_AT_ONCE)]


class DeadLetterSummary(View):
    """`cause` is the class of the last error. `created_at` is when the work was promised."""

    id: UUID
    status: Literal["dead", "discarded", "waiting", "confirmed"]
    topic: str
    queue: str
    aggregate_type: str
    aggregate_id: UUID
    deliveries: int
    replays: int
    cause: str | None
    last_error: str | None
    created_at: datetime
    first_error_at: datetime | None
    last_error_at: datetime | None
    dead_at: datetime | None
    replayed_at: datetime | None
    discarded_at: datetime | None
    discarded_by: str | None
    discard_reason: str | None
    request_id: str | None


class DeadLetterView(DeadLetterSummary):
    payload: dict[str, Any]


class ReplayedView(View):
    """How many letters were replayed, and whether there are more to call again for."""

    replayed: int
    more: bool


class DeadLetterQuery(PageQuery):
    status: Status | None = None
    topic: Name | None = None
    queue: Name | None = None
    cause: Cause | None = None
    from_: Annotated[Instant | None, Field(alias="from", description="Dead since then")] = None
    to: Instant | None = None


class DiscardLetter(Input):
    reason: Reason


class ReplayLetters(Input):
    """Which dead letters to replay. With none of topic, queue, cause, from and to it takes `all: true`."""

    status: Status = "dead"
    topic: Name | None = None
    queue: Name | None = None
    cause: Cause | None = None
    from_: Annotated[Instant | None, Field(alias="from", description="Dead since then")] = None
    to: Instant | None = None
    all: bool = False
    limit: Bound = dead_letters.MOST_AT_ONCE


@bp.get("")
@operation("dead_letters.read", query=DeadLetterQuery, answer=DeadLetterSummary, listed=True)
def index(query: DeadLetterQuery) -> Answer:
    """List dead letters, discarded ones too unless a status is asked for; those promised last come first."""
    read, shown = dead_letters.listed, DeadLetterSummary
    return page_answer(page(query, read, lambda row: shape(shown, row), actor=g.actor, chosen=_chosen(query)))


@bp.get("/<uuid:letter_id>")
@operation("dead_letters.read", answer=DeadLetterView)
def show(letter_id: UUID) -> Answer:
    """Show a dead letter with its payload; one that was replayed shows what became of it."""
    return answer(shape(DeadLetterView, dead_letters.shown(g.actor, letter_id)))


@bp.post("/<uuid:letter_id>/replay")
@operation("dead_letters.replay", answer=DeadLetterView, idempotent=True, problems=("invalid_state",))
def replay(letter_id: UUID) -> Answer:
    """Try a dead or discarded letter again, under its own id, so that what was done already is not done twice."""
    return answer(shape(DeadLetterView, dead_letters.replay(g.actor, letter_id)))


@bp.post("/<uuid:letter_id>/discard")
@operation("dead_letters.discard", body=DiscardLetter, answer=DeadLetterView, idempotent=True, problems=("invalid_state",))
def discard(letter_id: UUID, body: DiscardLetter) -> Answer:
    """Close a dead letter without its work. It is kept for half a year, and can be replayed."""
    return answer(shape(DeadLetterView, dead_letters.discard(g.actor, letter_id, reason=body.reason)))


@bp.post("/replay")
@operation("dead_letters.replay", body=ReplayLetters, answer=ReplayedView, idempotent=True, cost=20)
def replay_chosen(body: ReplayLetters) -> Answer:
    """Replay the dead letters of a choice, oldest first, at most `limit`; `more` tells whether to call again."""
    done = dead_letters.replay_chosen(g.actor, chosen=_chosen(body), everything=body.all, limit=body.limit)
    return answer({"replayed": done.letters, "more": done.more})


def _chosen(asked: DeadLetterQuery | ReplayLetters) -> Chosen:
    return Chosen(asked.topic, asked.queue, asked.from_, asked.to, asked.cause, asked.status)
