"""The chain of the audit log: sealing what was written, proving that nothing of it was changed, and letting old parts go."""

import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import chain, islice
from typing import Any, NamedTuple

from fleet import clock, config
from fleet.db import db, patience, transaction
from fleet.models import audit as models
from fleet.rules import audit_chain as rules
from fleet.rules.audit_chain import Key, Told

# Any fixed number does, as long as every release of the service asks for the same one.
SEALER_LOCK = 7_305_422
BATCH, BUDGET_S = 500, 2.0
PAGE = 1000
MOST_PROBLEMS = 100
_PATIENCE_S = 600
# How much later than others a transaction may commit what it wrote at a time, and clocks of our machines may differ.
LATE_S = 900


class Head(NamedTuple):
    """The newest place of the chain and its hash, which covers everything before it."""

    position: int
    hash: bytes


class Problem(NamedTuple):
    """What is wrong, at which place of the chain and with which event, as far as there are such."""

    what: str
    position: int | None = None
    event_id: str | None = None


class Proof(NamedTuple):
    """What a walk along the chain found. `waiting` are events that the sealer has not come to, `waiting_s` since when."""

    first: int
    head: Head
    sealed: int
    waiting: int
    waiting_s: float
    problems: list[Problem]

    @property
    def holds(self) -> bool:
        return not self.problems


class Link(NamedTuple):
    """A seal as it is stored, with its event; `told` is None where that is gone."""

    position: int
    event_id: str
    key_id: bytes
    previous: bytes
    hash: bytes
    told: Told | None


# --- sealing ----------------------------------------------------------------------------------------------------------


def seal() -> int:
    """Seal what is committed and has no seal yet, a batch a transaction; returns how many events.

    One sealer at a time: another one finds the lock taken and nothing left to do.
    """
    sealed, deadline = 0, time.monotonic() + BUDGET_S
    while batch := _seal_batch():
        sealed += batch
        if batch < BATCH or time.monotonic() >= deadline:
            break
    return sealed


def _seal_batch() -> int:
    key = rules.key_of(config.current().secret_key)
    with transaction():
        if db.one(models.SEALER, (SEALER_LOCK,)) != (True,):
            return 0
        events = [Told(*row) for row in db.rows(models.UNSEALED, {"limit": BATCH})]
        if not events:
            return 0
        db.execute_sql(models.SEAL, _seals(key, head(), events))
        db.execute_sql(models.SEALED, {"ids": [told.id for told in events]})
    return len(events)


def _seals(key: Key, last: Head, events: list[Told]) -> Mapping[str, list[Any]]:
    """The columns of the seals that go on after `last`."""
    hashes = [last.hash]
    positions = range(last.position + 1, last.position + 1 + len(events))
    for position, told in zip(positions, events, strict=True):
        hashes.append(rules.seal(key, position, hashes[-1], told))
    return {
        "positions": list(positions),
        "ids": [told.id for told in events],
        "key_ids": [key.key_id] * len(events),
        "before": hashes[:-1],
        "hashes": hashes[1:],
    }


def head() -> Head:
    """Where the chain has come to."""
    row = db.one(models.HEAD)
    return Head(0, rules.START) if row is None else Head(row[0], bytes(row[1]))


def waiting_s() -> float:
    """How long the oldest event has waited for its seal, in seconds; 0 when none waits."""
    row = db.one(models.OLDEST_WAITING_S)
    return 0.0 if row is None else float(row[0])


# --- proving ----------------------------------------------------------------------------------------------------------


def verify(*, expected_head: bytes | None = None) -> Proof:
    """Walk the whole chain. At most MOST_PROBLEMS are told.

    `expected_head` is a head that was noted earlier: it must stand in the chain, or its end was cut off since, or all was
    written anew. Not to be asked while retention removes what is old.
    """
    settings = config.current()
    keys = rules.keys_of([settings.secret_key, *settings.secret_key_previous, *settings.audit_previous_secrets])
    walk = _Walk(keys, expected_head)
    with patience(_PATIENCE_S):
        # Drawn from one after the other, so that what no seal holds is looked for after the last seal was read.
        problems = list(islice(chain(walk.problems(), _kept_out()), MOST_PROBLEMS))
        [(waiting,)] = db.rows(models.WAITING)
    return Proof(walk.first, walk.last, walk.sealed, waiting, waiting_s(), problems)


class _Walk:
    """One walk: `last` is the place that it has come to, by what is stored, also where that is wrong."""

    def __init__(self, keys: Mapping[bytes, Key], expected_head: bytes | None) -> None:
        self.keys, self.expected_head = keys, expected_head
        self.last, self.first, self.sealed = Head(0, rules.START), 1, 0
        self.seen = expected_head is None
        self.newest = ""

    def problems(self) -> Iterator[Problem]:
        yield from self._begin()
        for link in _links(self.last.position):
            yield from self._look(link)
            self.last = Head(link.position, link.hash)
            self.sealed += 1
            self.seen = self.seen or link.hash == self.expected_head
        if not self.seen:
            yield Problem("the head that was noted is not in the chain: its end was cut off, or it was written anew")

    def _begin(self) -> Iterator[Problem]:
        row = db.one(models.ANCHOR)
        if row is None:
            return
        position, key_id, last, mac = row[0], *map(bytes, row[1:])
        self.last, self.first = Head(position, last), position + 1
        self.seen = self.seen or last == self.expected_head
        key = self.keys.get(key_id)
        if key is None:
            yield Problem("the anchor was made under a key that is not here", position)
        elif mac != rules.anchor(key, position, last):
            yield Problem("the anchor was not made by retention: what was before it was removed by hand", position)
        for place, event_id in db.rows(models.BEFORE_ANCHOR, {"position": position, "limit": MOST_PROBLEMS}):
            yield Problem("the event stands before the anchor: retention left none there", place, event_id)

    def _look(self, link: Link) -> Iterator[Problem]:
        about = (link.position, link.event_id)
        if link.position != self.last.position + 1:
            yield Problem(f"the seals {self.last.position + 1} to {link.position - 1} are gone", link.position - 1)
        elif link.previous != self.last.hash:
            yield Problem("the seal does not follow from the one before it", *about)
        key = self.keys.get(link.key_id)
        if link.told is None:
            yield Problem("the event is gone", *about)
        elif key is None:
            yield Problem("sealed under a key that is not here", *about)
        elif link.hash != rules.seal(key, link.position, link.previous, link.told):
            yield Problem("the event or its seal was changed", *about)
        elif _is_late(link.told.at, self.newest):
            yield Problem(f"the event bears an earlier time, {link.told.at}, than those sealed before it", *about)
        else:
            self.newest = max(self.newest, link.told.at)


def _is_late(at: str, newest: str) -> bool:
    """Whether a time is further before another than the commit of an honest transaction can be."""
    if at >= newest:
        return False
    return (datetime.fromisoformat(newest) - datetime.fromisoformat(at)).total_seconds() > LATE_S


def _links(position: int) -> Iterator[Link]:
    while rows := db.rows(models.CHAIN_AFTER, {"position": position, "limit": PAGE}):
        for row in rows:
            place, event_id, key_id, previous, hash_, *told = row
            yield Link(place, event_id, bytes(key_id), bytes(previous), bytes(hash_), Told(*told) if told[0] else None)
        position = rows[-1][0]


def _kept_out() -> Iterator[Problem]:
    for (event_id,) in db.rows(models.KEPT_OUT, {"limit": MOST_PROBLEMS}):
        yield Problem("the event has no seal, and does not wait for one", event_id=event_id)


# --- letting go -------------------------------------------------------------------------------------------------------


def prune(*, before: datetime) -> int:
    """Remove the sealed beginning of the log that is older than `before`; returns how many events went.

    Only the owner of the tables may. What goes is a whole beginning of the chain, and an anchor with the hash of its last
    seal stays, from which `verify` goes on. Raises ValueError for a time to come.
    """
    if before > clock.now():
        raise ValueError("what is still to happen cannot be old")
    key = rules.key_of(config.current().secret_key)
    with transaction():
        # The sealer keeps out, and so does a second one of these.
        if db.one(models.SEALER, (SEALER_LOCK,)) != (True,):
            return 0
        row = db.one(models.LAST_OF_OLD, {"before": before})
        if row is None:
            return 0
        position, last = row[0], bytes(row[1])
        mac = rules.anchor(key, position, last)
        db.execute_sql(models.ADD_ANCHOR, {"position": position, "key_id": key.key_id, "hash": last, "mac": mac})
        db.execute_sql(models.EVENTS_AND_SEALS_GO_TOGETHER)
        gone: int = db.execute_sql(models.FORGET_SEALED, {"position": position}).rowcount
        db.execute_sql(models.FORGET_SEALS, {"position": position})
    return gone
