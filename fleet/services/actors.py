"""Who is behind a credential. Asked of the database at every request, so that a logout or a lost role works at once.

What it said of a session is remembered, but only as an assumption: the next request of that session proves it with a check
that travels ahead of its first statement, and is done over when the check fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from uuid import UUID

from fleet import clock, metrics
from fleet.auth import Actor, Claims, permissions_of, secret_hash
from fleet.db import AssumptionFailed, db
from fleet.errors import Unauthenticated
from fleet.models.access import ACTOR_OF_API_KEY, ACTOR_OF_SESSION, ACTOR_STANDS, ApiKey, User

_LAST_USE_PRECISION = timedelta(minutes=1)
_MOST_REMEMBERED = 10_000
_remembered: dict[UUID, Actor] = {}


def remembered(claims: Claims) -> Actor | None:
    """The user behind a verified access token as of an earlier request: to be used only while it is `assumed`."""
    actor = _remembered.get(claims.session_id)
    return actor if actor is not None and actor.user_id == claims.user_id else None


@contextmanager
def assumed(actor: Actor) -> Iterator[None]:
    """Do something as a remembered user. Raises AssumptionFailed when they have changed; nothing was done then."""
    assert actor.session_id is not None  # noqa: S101 - only users of sessions are remembered
    outcome = "hit"
    try:
        with db.assuming(ACTOR_STANDS, (actor.session_id, actor.user_id, list(actor.roles), actor.customer_id)):
            yield
    except AssumptionFailed:
        outcome = "refresh"
        _remembered.pop(actor.session_id, None)
        raise
    finally:
        metrics.looks_of("permissions", outcome).inc()


def of_session(claims: Claims) -> Actor:
    """The user behind a verified access token, with the roles of this moment. Raises Unauthenticated."""
    rows = db.run(ACTOR_OF_SESSION, (claims.session_id, claims.user_id))
    if not rows:
        raise Unauthenticated("The session has ended")
    roles, customer_id = rows[0]
    actor = Actor(
        user_id=claims.user_id,
        roles=tuple(roles),
        permissions=_permissions_of(tuple(roles)),
        customer_id=customer_id,
        session_id=claims.session_id,
    )
    metrics.looks_of("permissions", "miss").inc()
    if len(_remembered) >= _MOST_REMEMBERED:
        _remembered.clear()
    _remembered[claims.session_id] = actor
    return actor


def of_api_key(secret: str) -> Actor:
    """The user behind a machine key, with no more than the key's own permissions. Raises Unauthenticated."""
    rows = db.run(ACTOR_OF_API_KEY, (secret_hash(secret),))
    if not rows:
        raise Unauthenticated("The key is not valid")
    key_id, user_id, permissions, roles, customer_id, last_used_at = rows[0]
    now = clock.now()
    if last_used_at is None or now - last_used_at > _LAST_USE_PRECISION:
        ApiKey.update(last_used_at=now).where(ApiKey.id == key_id).execute()
    return Actor(
        user_id=user_id,
        roles=tuple(roles),
        permissions=_permissions_of(tuple(roles)) & frozenset(permissions),
        customer_id=customer_id,
        api_key_id=key_id,
    )


def of_email(email: str) -> Actor | None:
    """The active user of this address, for the command line, where whoever runs it owns the machine anyway."""
    user = User.get_or_none((User.email == email) & User.deactivated_at.is_null())
    if user is None:
        return None
    return Actor(user_id=user.id, roles=tuple(user.roles), permissions=_permissions_of(tuple(user.roles)))


@lru_cache(maxsize=256)
def _permissions_of(roles: tuple[str, ...]) -> frozenset[str]:
    return permissions_of(list(roles))
