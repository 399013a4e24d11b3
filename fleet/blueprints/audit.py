"""/admin/audit-events"""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.http import Answer, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Instant, Line, PageQuery, View
from fleet.services import audit

bp = Blueprint("audit", __name__, url_prefix="/admin/audit-events")

Name = Annotated[str, StringConstraints(max_length=100, pattern=r"^[a-z_]+(\.[a-z_]+)*$")]


class AuditEventView(View):
    """Personal data in `before` and `after` is masked. `actor` is `user:<id>`, `key:<id>`, `cli:<name>` or `system:<name>`.

    `position` is the event's place in the sealed chain; null for the seconds until it is sealed.
    """

    id: UUID
    at: datetime
    actor: str
    action: str
    object_type: str
    object_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None
    address: str | None
    position: int | None


class AuditQuery(PageQuery):
    actor: Line | None = None
    action: Name | None = None
    object_type: Name | None = None
    object_id: Line | None = None
    from_: Annotated[Instant | None, Field(alias="from")] = None
    to: Instant | None = None


@bp.get("")
@operation("audit.read", query=AuditQuery, answer=AuditEventView, listed=True)
def index(query: AuditQuery) -> Answer:
    """List who did what, when, from where, before and after; newest first."""
    asked = {
        "who": query.actor,
        "action": query.action,
        "object_type": query.object_type,
        "object_id": query.object_id,
        "since": query.from_,
        "until": query.to,
    }
    return page_answer(page(query, audit.listed, lambda row: shape(AuditEventView, row), actor=g.actor, **asked))
