"""Numbers of driving licences: in the clear or, with LICENCE_KEY, sealed, and found by a digest that takes the key to make.

Sealing is for those who read the database and not the settings: a number can be guessed, so a digest without a key would tell.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from fleet import config, sealing
from fleet.db import atomic, patience
from fleet.errors import Conflict
from fleet.models.people import Customer, about_licence, licence_taken, licences_to_seal
from fleet.sealing import SealBroken
from fleet.services import audit

_BATCH, _PATIENCE_S = 100, 30
_COLUMNS = ("driver_license_number", "driver_license_sealed", "driver_license_digest")

log = logging.getLogger("fleet.people")


@dataclass
class Outcome:
    """How many numbers were sealed, and whose could not be: another customer has the same, or no key of ours opens it."""

    sealed: int = 0
    taken: list[UUID] = field(default_factory=list)
    unreadable: list[UUID] = field(default_factory=list)


def number_of(customer: Mapping[str, Any]) -> str | None:
    """The number of a customer's row. None too when its seal cannot be opened: the rest of the profile can be shown."""
    sealed = customer["driver_license_sealed"]
    if sealed is None:
        number: str | None = customer["driver_license_number"]
        return number
    try:
        return _opened(customer["id"], bytes(sealed))
    except SealBroken:
        log.error("a licence number cannot be read", extra={"customer_id": customer["id"]})
        return None


def columns(customer_id: UUID, number: str) -> dict[str, Any]:
    """The number as it is stored with a customer. Raises Conflict `duplicate` where another one is known to have it.

    The unique indexes have the last word; but none of them sees one number stored in two ways, as while numbers are being
    sealed or keys changed.
    """
    settings = config.current()
    if settings.licence_keys and licence_taken(number, _digests(number), but=customer_id):
        raise Conflict(code="duplicate")
    if not settings.licence_key:
        return dict(zip(_COLUMNS, (number, None, None), strict=True))
    return _sealed(customer_id, number)


def forgotten(customer_id: UUID) -> dict[str, Any]:
    """What stands there once the customer is erased: it says nothing of anybody, and in small letters it is nobody's number."""
    return dict(zip(_COLUMNS, (f"erased {customer_id}", None, None), strict=True))


def seal_all(actor: str) -> Outcome:
    """Seal every number that is in the clear, and make anew each digest of another key than LICENCE_KEY.

    A batch a transaction, in the order of the ids; whatever stops it, another run goes on. Nothing else stops: both ways of
    storing a number are read meanwhile.
    """
    outcome, after = Outcome(), UUID(int=0)
    while batch := _batch(after):
        after = batch[-1].id
        outcome.sealed += _written(actor, list(_ready(batch, outcome)))
    return outcome


def _batch(after: UUID) -> list[Customer]:
    index_key = sealing.name_of_index_key(config.current().licence_key)
    with patience(_PATIENCE_S):  # the last one looks through the whole table and finds nothing
        return licences_to_seal(index_key, after=after, limit=_BATCH)


def _ready(batch: list[Customer], outcome: Outcome) -> Iterator[tuple[Customer, str]]:
    for customer in batch:
        number = number_of(customer.__data__)
        if number is None:
            outcome.unreadable.append(customer.id)
        elif licence_taken(number, _digests(number), but=customer.id):
            outcome.taken.append(customer.id)
        else:
            yield customer, number


@atomic
def _written(actor: str, ready: list[tuple[Customer, str]]) -> int:
    acts = []
    for customer, number in ready:
        # Compare and set: a number that was changed meanwhile, or forgotten, is newer than what was read. Not by the version:
        # where something else of the customer changed, the number would stay in the clear and nobody be told.
        clear, digest = customer.driver_license_number, customer.driver_license_digest
        same = (Customer.driver_license_number == clear) & (Customer.driver_license_digest == digest)
        if Customer.update(**_sealed(customer.id, number)).where(Customer.id == customer.id, same).execute():
            acts.append(audit.Act(customer.id))
    audit.record_each(actor, "secrets.seal_licence", "customer", acts, address=actor)
    return len(acts)


def _sealed(customer_id: UUID, number: str) -> dict[str, Any]:
    settings, plain = config.current(), number.encode()
    sealed = sealing.seal(plain, about=about_licence(customer_id), secret_key=settings.secret_key)
    digest = sealing.blind_index(plain, key=settings.licence_key)
    return dict(zip(_COLUMNS, (None, sealed, digest), strict=True))


def _opened(customer_id: UUID, sealed: bytes) -> str:
    settings, about = config.current(), about_licence(customer_id)
    plain = sealing.unseal(sealed, about=about, secret_key=settings.secret_key, previous=settings.secret_key_previous)
    return plain.decode()


def _digests(number: str) -> list[bytes]:
    return [sealing.blind_index(number.encode(), key=key) for key in config.current().licence_keys]
