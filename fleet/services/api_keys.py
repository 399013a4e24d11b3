"""Machine keys: what a program signs its requests with, on behalf of the user who made the key."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import API_KEY_PREFIX, Actor, new_secret, secret_hash
from fleet.db import atomic
from fleet.errors import Invalid, NotFound
from fleet.models.access import API_KEYS, ApiKey, keys_seen_by
from fleet.models.base import Condition
from fleet.services import audit

DEFAULT_LIFETIME = timedelta(days=90)
MAX_LIFETIME = timedelta(days=365)
_SHOWN_LENGTH = len(API_KEY_PREFIX) + 8


def listed(actor: Actor, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of the actor's own keys, newest first."""
    return API_KEYS.page([keys_seen_by(actor)], after=after, limit=limit)


def shown(actor: Actor, key_id: UUID) -> dict[str, Any]:
    """One of the actor's own keys. Raises NotFound."""
    found = API_KEYS.first([keys_seen_by(actor), Condition("api_key.id = %s", (key_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def create(actor: Actor, *, name: str, permissions: list[str], expires_at: datetime | None) -> tuple[ApiKey, str]:
    """Make a key and return it with its secret, which nobody can read again.

    Raises Forbidden for another key, which must not multiply; Invalid for permissions that the actor lacks and for an
    expiry that has passed or is further away than MAX_LIFETIME.
    """
    actor.must_have_session()
    if not actor.permissions.issuperset(permissions):
        raise Invalid.field("permissions", "not_held", "must be permissions that you hold yourself")
    secret = new_secret(API_KEY_PREFIX)
    key: ApiKey = ApiKey.create(
        user=actor.user_id,
        name=name,
        prefix=secret[:_SHOWN_LENGTH],
        key_hash=secret_hash(secret),
        permissions=sorted(set(permissions)),
        expires_at=_expiry(expires_at),
    )
    about = {"permissions": key.permissions, "expires_at": key.expires_at}
    audit.record(actor, "api_keys.create", "api_key", key.id, after=about)
    return key, secret


@atomic
def revoke(actor: Actor, key_id: UUID) -> None:
    """Make the key worthless from the next request on. Raises NotFound."""
    mine = (ApiKey.id == key_id) & (ApiKey.user == actor.user_id) & ApiKey.revoked_at.is_null()
    if not ApiKey.update(revoked_at=clock.now()).where(mine).execute():
        raise NotFound()
    audit.record(actor, "api_keys.revoke", "api_key", key_id, after={"revoked": True})


def _expiry(asked: datetime | None) -> datetime:
    now = clock.now()
    if asked is None:
        return now + DEFAULT_LIFETIME
    if not now < asked <= now + MAX_LIFETIME:
        raise Invalid.field("expires_at", "out_of_range", f"must be within the next {MAX_LIFETIME.days} days")
    return asked
