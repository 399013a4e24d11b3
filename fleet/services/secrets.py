"""Sealing anew, under the present SECRET_KEY, what was sealed under a previous one."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from fleet import config, sealing
from fleet.db import atomic, patience
from fleet.models.sealed import SEALED, Sealed, replace, under_other_keys
from fleet.sealing import SealBroken
from fleet.services import audit

_BATCH, _PATIENCE_S = 500, 30
FIRST = UUID(int=0)


@dataclass
class Outcome:
    """How many secrets were sealed anew, and where those are that no key of ours opens."""

    resealed: int
    unreadable: list[str]


def reseal(actor: str) -> Outcome:
    """Seal everything anew that lies under a previous key; each secret commits by itself, with its audit event.

    Nothing is locked and nothing stops: both keys open all of it meanwhile. Another run finds the work done.
    """
    resealed = 0
    while True:
        done, unreadable = _once(actor)
        resealed += done
        # A secret that was rotated meanwhile may have left its old seal in a column that this run had passed.
        if not done:
            return Outcome(resealed, unreadable)


def _once(actor: str) -> tuple[int, list[str]]:
    done: int = 0
    unreadable: list[str] = []
    name = sealing.name_of_key(config.current().secret_key)
    for place in SEALED:
        for row_id, sealed in _to_seal_anew(place, name):
            try:
                done += _sealed_anew(actor, place, row_id, sealed)
            except SealBroken:
                unreadable.append(f"{place.table}.{place.column} of {row_id}")
    return done, unreadable


def _to_seal_anew(place: Sealed, name: bytes) -> Iterator[tuple[UUID, bytes]]:
    """A batch at a time: there may be a seal for each customer."""
    after = FIRST
    while rows := _batch(place, name, after):
        yield from rows
        after = rows[-1][0]


def _batch(place: Sealed, name: bytes, after: UUID) -> list[tuple[UUID, bytes]]:
    with patience(_PATIENCE_S):  # the last one looks through the whole table and finds nothing
        return under_other_keys(place, name, after=after, limit=_BATCH)


@atomic
def _sealed_anew(actor: str, place: Sealed, row_id: UUID, sealed: bytes) -> bool:
    settings, about = config.current(), place.about(row_id)
    plain = sealing.unseal(sealed, about=about, secret_key=settings.secret_key, previous=settings.secret_key_previous)
    done = replace(place, row_id, sealed, sealing.seal(plain, about=about, secret_key=settings.secret_key))
    if done:
        audit.record(actor, "secrets.reseal", place.table, row_id, address=actor)
    return done
