"""Who is behind a credential. Asked of the database at every request, so that a logout or a lost role works at once."""

from datetime import timedelta
from functools import lru_cache

from fleet import clock
from fleet.auth import Actor, Claims, permissions_of, secret_hash
from fleet.db import db
from fleet.errors import Unauthenticated
from fleet.models.access import ACTOR_OF_API_KEY, ACTOR_OF_SESSION, ApiKey

_LAST_USE_PRECISION = timedelta(minutes=1)


def of_session(claims: Claims) -> Actor:
    """The user behind a verified access token, with the roles of this moment. Raises Unauthenticated."""
    rows = db.run(ACTOR_OF_SESSION, (claims.session_id, claims.user_id))
    if not rows:
        raise Unauthenticated("The session has ended")
    roles, customer_id = rows[0]
    return Actor(
        user_id=claims.user_id,
        roles=tuple(roles),
        permissions=_permissions_of(tuple(roles)),
        customer_id=customer_id,
        session_id=claims.session_id,
    )


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


@lru_cache(maxsize=256)
def _permissions_of(roles: tuple[str, ...]) -> frozenset[str]:
    return permissions_of(list(roles))

