"""Which letters a customer wants, and the links by which they end one kind of them."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fleet import clock, config
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import FieldError, Invalid, InvalidState, NotFound, VersionConflict
from fleet.models.base import Condition
from fleet.models.notifications import STOP_EMAIL, Preference
from fleet.models.people import CUSTOMERS, Customer, customer_for_update, customers_seen_by
from fleet.rules import unsubscribing
from fleet.rules.languages import Language, offered
from fleet.rules.notices import BY_DEFAULT, KINDS, REQUIRED

UNSUBSCRIBE_PATH = "/v1/unsubscribe"


@dataclass(frozen=True, slots=True)
class Preferences:
    """What goes which way: the kinds of each channel. Version 0 is that of a customer who never chose."""

    customer_id: UUID
    by_email: frozenset[str]
    by_sms: frozenset[str]
    version: int
    updated_at: datetime | None

    def choices(self) -> dict[str, dict[str, bool]]:
        """Yes or no for each kind and channel."""
        return {kind: {"email": kind in self.by_email, "sms": kind in self.by_sms} for kind in KINDS}


def shown(actor: Actor, customer_id: UUID) -> Preferences:
    """A customer's preferences. Raises NotFound."""
    if CUSTOMERS.first([customers_seen_by(actor), Condition("customer.id = %s", (customer_id,))]) is None:
        raise NotFound()
    return _of(customer_id)


@atomic
def choose(
    actor: Actor, customer_id: UUID, *, expected_version: int | None, choices: Mapping[str, Mapping[str, bool]]
) -> Preferences:
    """Replace a customer's preferences; a kind that is left out goes as it does for everybody.

    The customer's row is locked: an erasure waits, and is seen; of two who choose at once the second finds another version.
    Raises NotFound, VersionConflict, Invalid for a kind that cannot be switched off, InvalidState for the erased.
    """
    _check(choices)
    if customer_for_update(actor, customer_id).erased_at is not None:
        raise InvalidState("The customer is erased")
    known = _of(customer_id)
    if expected_version not in {None, known.version}:
        raise VersionConflict()
    kinds = {
        f"{channel}_kinds": sorted(kind for kind in KINDS if choices.get(kind, {}).get(channel, kind in usual))
        for channel, usual in BY_DEFAULT.items()
    }
    if known.version:
        Preference.update(**kinds).where(Preference.customer_id == customer_id).execute()
    else:
        Preference.create(customer_id=customer_id, **kinds)
    return _of(customer_id)


def stored(customer_id: UUID) -> dict[str, Any] | None:
    """What is stored of a customer's choice; None for one who never chose."""
    known = _of(customer_id)
    return {"kinds": known.choices(), "updated_at": known.updated_at} if known.version else None


def forget(customer_id: UUID) -> None:
    """Delete what a customer chose. Part of their erasure, which holds the customer's row."""
    Preference.delete().where(Preference.customer_id == customer_id).execute()


# --- links ------------------------------------------------------------------------------------------------------------


def unsubscribe_url(customer_id: UUID, kind: str) -> str | None:
    """The address that ends this kind of letter; None where PUBLIC_URL does not say where we can be reached."""
    settings = config.current()
    if not settings.public_url:
        return None
    token = unsubscribing.token(_keys()[0], customer_id=customer_id, kind=kind, now=clock.now())
    return f"{settings.public_url.rstrip('/')}{UNSUBSCRIBE_PATH}?token={token}"


def language_of_bearer(token: str) -> Language:
    """The language in which to talk to who holds the token. Raises NotFound for one that is not (or no longer) good."""
    customer_id, _ = _read(token)
    customer = Customer.get_or_none((Customer.id == customer_id) & Customer.erased_at.is_null())
    if customer is None:
        raise NotFound()
    return offered(customer.language, config.current().default_language)


@atomic
def unsubscribe(token: str) -> Language:
    """End the kind of letter by e-mail that the token is about; a second time finds it done. Returns as above. Raises NotFound.

    The bearer acts as the customer, for this alone; the customer's row is locked as in `choose`.
    """
    customer_id, kind = _read(token)
    bearer = Actor(user_id=customer_id, roles=(), permissions=frozenset(), customer_id=customer_id)
    customer = customer_for_update(bearer, customer_id)
    if customer.erased_at is not None:
        raise NotFound()
    usual = {f"{channel}_kinds": sorted(kinds) for channel, kinds in BY_DEFAULT.items()}
    db.execute_sql(STOP_EMAIL, {"customer_id": customer_id, "kind": kind, **usual})
    return offered(customer.language, config.current().default_language)


def _read(token: str) -> tuple[UUID, str]:
    try:
        customer_id, kind = unsubscribing.read(_keys(), token, now=clock.now())
    except unsubscribing.BadToken:
        raise NotFound("The link is not valid, or its time is over") from None
    if kind not in KINDS or kind in REQUIRED:
        raise NotFound("The link is not valid, or its time is over")
    return customer_id, kind


def _keys() -> list[bytes]:
    """The first one signs. Derived, so that a token never speaks for another secret of ours."""
    return [hmac.digest(key.encode(), b"fleet unsubscribe tokens", hashlib.sha256) for key in config.current().secret_keys]


def _of(customer_id: UUID) -> Preferences:
    known = Preference.get_or_none(Preference.customer_id == customer_id)
    if known is None:
        return Preferences(customer_id, BY_DEFAULT["email"], BY_DEFAULT["sms"], 0, None)
    return Preferences(
        customer_id,
        # Who chose before a required kind was there gets it all the same, and reads so.
        REQUIRED.union(known.email_kinds),
        frozenset(known.sms_kinds),
        known.version,
        known.updated_at,
    )


def _check(choices: Mapping[str, Mapping[str, bool]]) -> None:
    refused = sorted(kind for kind in REQUIRED if choices.get(kind, {}).get("email") is False)
    if refused:
        message = "is sent by e-mail whatever you prefer: the law or your contract asks for it"
        raise Invalid(errors=[FieldError(f"kinds.{kind}.email", "required_kind", message) for kind in refused])
