"""Where events are sent: who is told, of what, at which address, signed with which secret."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from fleet import clock, config, sealing
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Conflict, Invalid, InvalidState, NotFound
from fleet.gateways import webhooks as gateway
from fleet.gateways.webhooks import NotDelivered
from fleet.models.base import Condition
from fleet.models.webhooks import ENDPOINTS, STANDING, WebhookEndpoint, WebhookHealth
from fleet.rules.events import TEST
from fleet.rules.targets import TargetRefused, target_of
from fleet.rules.webhooks import KEPT_AFTER_ROTATION, SECRET_BYTES, secret_text
from fleet.sealing import SealBroken
from fleet.services import audit, events

# Every event is multiplied by these.
MOST_ENDPOINTS = 50
_LOOKUP_S = 1.0
OBJECT = "webhook_endpoint"


def listed(actor: Actor, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of the endpoints, newest first."""
    return ENDPOINTS.page([STANDING], after=after, limit=limit)


def shown(actor: Actor, endpoint_id: UUID) -> dict[str, Any]:
    """One endpoint. Raises NotFound."""
    found = ENDPOINTS.first([STANDING, Condition("webhook_endpoint.id = %s", (endpoint_id,))])
    if found is None:
        raise NotFound()
    return found


def create(
    actor: Actor, *, url: str, event_types: list[str] | None, description: str | None, enabled: bool
) -> tuple[WebhookEndpoint, str]:
    """Make an endpoint and return it with its secret, which nobody can read again.

    Raises Invalid for an address that no webhook may go to, Conflict when there are too many endpoints.
    """
    check_url(url)
    return _create(actor, url=url, event_types=event_types, description=description, enabled=enabled)


@atomic
def _create(actor: Actor, **values: Any) -> tuple[WebhookEndpoint, str]:
    if WebhookEndpoint.select().where(WebhookEndpoint.deleted_at.is_null()).count() >= MOST_ENDPOINTS:
        raise Conflict(f"There are {MOST_ENDPOINTS} endpoints already; remove one first")
    endpoint_id, secret = clock.new_id(), os.urandom(SECRET_BYTES)
    values |= _switched(values["enabled"])
    endpoint: WebhookEndpoint = WebhookEndpoint.create(
        id=endpoint_id, secret=_sealed(secret, endpoint_id), created_by=actor.user_id, **values
    )
    WebhookHealth.create(endpoint_id=endpoint_id)
    about = {name: values[name] for name in ("url", "event_types", "enabled")}
    audit.record(actor, "webhooks.create", OBJECT, endpoint_id, after=_told(about))
    return endpoint, secret_text(secret)


def change(actor: Actor, endpoint_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> WebhookEndpoint:
    """Change where an endpoint is, what it is told, or whether. Raises NotFound, VersionConflict, Invalid."""
    if "url" in changes:
        check_url(changes["url"])
    return _change(actor, endpoint_id, expected_version, changes)


@atomic
def _change(actor: Actor, endpoint_id: UUID, expected_version: int | None, changes: dict[str, Any]) -> WebhookEndpoint:
    endpoint = _standing(endpoint_id)
    before = {name: getattr(endpoint, name) for name in changes}
    audit.record(actor, "webhooks.change", OBJECT, endpoint_id, before=_told(before), after=_told(changes))
    begins_anew = {"url", "enabled"} & changes.keys()
    if changes.get("enabled") not in {None, endpoint.enabled}:
        changes = {**changes, **_switched(changes["enabled"])}
    endpoint.change(expected_version=expected_version, **changes)
    if begins_anew:
        # What failed before was another address, or has been mended.
        anew = {"failing_since": None, "failures": 0, "rest_until": None}
        WebhookHealth.update(anew).where(WebhookHealth.endpoint_id == endpoint_id).execute()
    return endpoint


@atomic
def remove(actor: Actor, endpoint_id: UUID, *, expected_version: int | None) -> None:
    """Remove an endpoint with its secrets; what still waits for it is not sent. Raises NotFound, VersionConflict."""
    endpoint = _standing(endpoint_id)
    endpoint.change(
        expected_version=expected_version,
        deleted_at=clock.now(),
        secret=None,
        previous_secret=None,
        previous_secret_until=None,
        **_switched(False, reason="deleted"),
    )
    audit.record(actor, "webhooks.remove", OBJECT, endpoint_id, before=_told({"url": endpoint.url}))


@atomic
def rotate_secret(actor: Actor, endpoint_id: UUID, *, expected_version: int | None) -> tuple[WebhookEndpoint, str]:
    """Give an endpoint a new secret and return it; for a day messages are signed with the old one too.

    A second rotation within the day ends the first of the secrets at once. Raises NotFound, VersionConflict.
    """
    endpoint, secret = _standing(endpoint_id), os.urandom(SECRET_BYTES)
    endpoint.change(
        expected_version=expected_version,
        secret=_sealed(secret, endpoint_id),
        previous_secret=endpoint.secret,
        previous_secret_until=clock.now() + KEPT_AFTER_ROTATION,
    )
    until = endpoint.previous_secret_until
    audit.record(actor, "webhooks.rotate_secret", OBJECT, endpoint_id, after={"both_valid_until": until})
    return endpoint, secret_text(secret)


@atomic
def test(actor: Actor, endpoint_id: UUID) -> UUID:
    """Send an endpoint an event of its own; returns the event's id. Raises NotFound, InvalidState while it is disabled."""
    if not _standing(endpoint_id).enabled:
        raise InvalidState("The endpoint is disabled; enable it first")
    return events.record(TEST, "webhook_endpoint", endpoint_id, {"id": endpoint_id})


def check_url(url: str) -> None:
    """Raises Invalid for an address that no webhook may go to.

    A name that does not resolve now is let in: every delivery asks again, and refuses again. Asks the resolver, so that it
    is called outside of the use case's transaction.
    """
    allow_private = config.current().webhook_allow_private
    try:
        target = target_of(url, allow_private=allow_private)
        gateway.addresses_of(target, allow_private=allow_private, timeout_s=_LOOKUP_S)
    except TargetRefused as error:
        raise Invalid.field("url", error.code, error.message) from None
    except NotDelivered:
        return


def secrets_of(endpoint_id: UUID, sealed: bytes, previous: bytes | None) -> list[bytes]:
    """What an endpoint's messages are signed with: its secret, and the one before it while that is valid.

    Raises SealBroken. A secret before it that cannot be opened is left out: a rotation is what heals a lost key.
    """
    secrets = [_opened(sealed, endpoint_id)]
    if previous is not None:
        with suppress(SealBroken):
            secrets.append(_opened(previous, endpoint_id))
    return secrets


def _opened(sealed: bytes, endpoint_id: UUID) -> bytes:
    settings = config.current()
    about, key = endpoint_id.bytes, settings.secret_key
    return sealing.unseal(bytes(sealed), about=about, secret_key=key, previous=settings.secret_key_previous)


def _sealed(secret: bytes, endpoint_id: UUID) -> bytes:
    return sealing.seal(secret, about=endpoint_id.bytes, secret_key=config.current().secret_key)


def _standing(endpoint_id: UUID) -> WebhookEndpoint:
    found: WebhookEndpoint | None = WebhookEndpoint.get_or_none(
        (WebhookEndpoint.id == endpoint_id) & WebhookEndpoint.deleted_at.is_null()
    )
    if found is None:
        raise NotFound()
    return found


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """For the audit log. Of an address no more than its host: the path may be what lets one in."""
    return {name: urlsplit(value).hostname if name == "url" else value for name, value in values.items()}


def _switched(enabled: bool, *, reason: str = "by_hand") -> dict[str, Any]:
    return {
        "enabled": enabled,
        "disabled_reason": None if enabled else reason,
        "disabled_at": None if enabled else clock.now(),
    }
