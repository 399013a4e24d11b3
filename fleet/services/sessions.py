"""The sessions of a user as the user sees them, and ending them: it works at the next request of whoever has one."""

from typing import Any
from uuid import UUID

from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import NotFound
from fleet.models.access import end_session, end_sessions, live_sessions_of, user_for_update
from fleet.models.accounts import SESSIONS
from fleet.services import audit


def listed(actor: Actor, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of the actor's live sessions, newest first; `current` is the one they ask in. Raises Forbidden for an API key."""
    current = actor.must_have_session()
    rows = SESSIONS.page([live_sessions_of(actor.user_id)], after=after, limit=limit)
    return [{**row, "current": row["id"] == current} for row in rows]


@atomic
def end(actor: Actor, session_id: UUID) -> None:
    """End one of the actor's sessions. Raises Forbidden for an API key, NotFound."""
    actor.must_have_session()
    if not end_session(actor.user_id, session_id, "ended_by_user"):
        raise NotFound()


@atomic
def end_others(actor: Actor) -> None:
    """End all of the actor's sessions but the one they ask in. Raises Forbidden for an API key."""
    end_sessions(actor.user_id, "ended_by_user", spare=actor.must_have_session())


@atomic
def end_of_user(actor: Actor, user_id: UUID) -> None:
    """End all sessions of a user, as an admin. Raises NotFound.

    The user's row is locked: a sign-in at the same time waits, or its session ends too.
    """
    user_for_update(user_id)
    ended = end_sessions(user_id, "ended_by_admin")
    audit.record(actor, "sessions.end", "user", user_id, after={"ended": ended})
