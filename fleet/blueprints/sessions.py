"""/v1/auth/sessions, and ending the sessions of a user"""

from datetime import datetime
from uuid import UUID

from flask import Blueprint, g

from fleet.http import Answer, answer, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import PageQuery, View
from fleet.services import sessions

bp = Blueprint("sessions", __name__, url_prefix="/v1")


class SessionView(View):
    """A sign-in. `last_used_at` is when it was opened or last refreshed: a client that is in use does so each 15 minutes."""

    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool


@bp.get("/auth/sessions")
@operation("auth.session", query=PageQuery, answer=SessionView, listed=True)
def index(query: PageQuery) -> Answer:
    """List your live sessions; `current` is the one that you ask in."""
    return page_answer(page(query, sessions.listed, lambda row: shape(SessionView, row), actor=g.actor))


@bp.delete("/auth/sessions/<uuid:session_id>")
@operation("auth.session", status=204)
def end(session_id: UUID) -> Answer:
    """End one of your sessions, its access tokens included, from the next request on. A session has no version."""
    sessions.end(g.actor, session_id)
    return answer()


@bp.delete("/auth/sessions")
@operation("auth.session", status=204)
def end_others() -> Answer:
    """End all your sessions but the one that you ask in."""
    sessions.end_others(g.actor)
    return answer()


@bp.delete("/users/<uuid:user_id>/sessions")
@operation("users.manage", status=204)
def end_of_user(user_id: UUID) -> Answer:
    """End all sessions of a user, from their next request on; their API keys live on until the account is deactivated."""
    sessions.end_of_user(g.actor, user_id)
    return answer()
