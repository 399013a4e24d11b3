"""Cache-aside in Redis, for single reads and summaries. It unloads the database; nothing is decided by it.

Who misses takes a lease, reads the database and stores what it read while the lease stands (Nishtala and others, "Scaling
Memcache at Facebook", 2013). Others wait for it, so a thousand who miss at once ask once, over all processes. A change
deletes value and lease after its commit: who read the row before that can store it no more.

Redis that fails, hangs, is full or was emptied costs a moment and is done without: no failure of it leaves this module but
by `flush`. Within a transaction nothing is read from here and nothing stored: it may have changed what it reads.
"""

import math
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import orjson
import peewee
import redis
from circuitbreaker import STATE_CLOSED
from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet import breakers, config, metrics
from fleet.config import Settings
from fleet.db import db
from fleet.errors import Unavailable
from fleet.redis_line import Line, Script

T = TypeVar("T")

# Of how keys and leases work together, not of what is stored: each value says its own shape, so that two releases that run
# beside each other invalidate the same keys.
PREFIX = "fleet-cache:1:"
TIMEOUT_S = 0.2
# As long as a load may take; who dies with the lease keeps others from storing for so long, and from nothing else.
LEASE_MS = 2000
# Who waits longer than this for somebody else's load reads for itself.
PATIENCE_S = 0.5
MAX_VALUE_BYTES = 128 * 1024
_PAUSES_S = (0.002, 0.005, 0.01, 0.02)
_JITTER = 0.1
_EAGERNESS = 1.0
_DEAF_S = 1.0
_MOST_OWED = 10_000
_SCAN_COUNT = 1000
_TROUBLE = (redis.RedisError, OSError)

# What is stored, or else whether the asker got the lease: in one step, so that nobody stores anything between the two, and in
# one trip. Keys: value, lease. Arguments: token, milliseconds.
_FIND_OR_LEASE = Script("""
local stored = redis.call('GET', KEYS[1])
if stored then return {stored, 0} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {false, 1} end
return {false, 0}
""")

# Gives the lease back and stores, for so many milliseconds, what there is to store, unless the lease ended meanwhile.
# Keys: value, lease. Arguments: token, what to store or nothing, milliseconds.
_GIVE_BACK = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[2] == '' then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")


@dataclass(frozen=True)
class Namespace:
    """One kind of value: fresh for `ttl_s`, give or take a tenth, and kept `grace_s` longer for when the database fails."""

    name: str
    ttl_s: float
    grace_s: float


VEHICLES = Namespace("vehicles", ttl_s=30, grace_s=30)
VEHICLE_CLASSES = Namespace("vehicle_classes", ttl_s=60, grace_s=30)
BRANCHES = Namespace("branches", ttl_s=60, grace_s=30)
AVAILABILITY = Namespace("availability", ttl_s=3, grace_s=12)
NAMESPACES = {namespace.name: namespace for namespace in (VEHICLES, VEHICLE_CLASSES, BRANCHES, AVAILABILITY)}


class _Away(Exception):
    """Redis does not help at the moment."""


class _Names(NamedTuple):
    value: str
    lease: str


class _Entry(NamedTuple):
    """What is stored, whether it is time to read it anew, and whether it is past that time."""

    value: Any
    due: bool
    old: bool

    @property
    def outcome(self) -> str:
        return "stale" if self.old else "hit"


class _Flight:
    """A thread of this process that sees to a missing value, and those that wait for it."""

    def __init__(self) -> None:
        self.landed = threading.Event()
        self.found = False


class _Debts:
    """Deletions that Redis did not take. Their keys are not read until it did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: dict[str, object] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._marks

    def __bool__(self) -> bool:
        return bool(self._marks)

    def add(self, names: Sequence[str]) -> None:
        with self._lock:
            for name in names:
                self._marks[name] = object()
            while len(self._marks) > _MOST_OWED:  # what is dropped ends with its TTL
                del self._marks[next(iter(self._marks))]

    def all(self) -> dict[str, object]:
        with self._lock:
            return dict(self._marks)

    def settle(self, paid: dict[str, object]) -> None:
        """These were deleted; one that was added again meanwhile is still owed."""
        with self._lock:
            for name, mark in paid.items():
                if self._marks.get(name) is mark:
                    del self._marks[name]


class Cache:
    """The cache of one process. Every method may be called by all its threads at once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.enabled = frozenset(settings.cache_namespaces)
        self._pool = redis.ConnectionPool.from_url(
            settings.redis_url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
        self._line = Line(self._pool)
        self._breaker = breakers.breaker("redis-cache", is_failure=_tells_that_redis_is_away)
        self._flights: dict[str, _Flight] = {}
        self._flying = threading.Lock()
        self._debts = _Debts()
        self._deaf_until = 0.0

    @property
    def breaker_state(self) -> str:
        return self._breaker.state

    def get(self, namespace: Namespace, key: str, load: Callable[[], T], shape: str) -> T:
        """The stored value, or what `load` reads. Raises what `load` raises, unless there is an older value to give."""
        look = _Look(namespace, names_of(namespace, key), load, shape)
        try:
            return self._found_or_loaded(look)
        except _Away:
            look.count("error")
            return load()

    def forget(self, names: Sequence[str]) -> None:
        """Delete these and what is owed. Not through the breaker: others may well read what we cannot delete."""
        self._debts.add(names)
        self._pay()

    def flush(self, pattern: str) -> int:
        """Delete all keys that match; returns how many. Raises Unavailable."""
        removed = 0
        try:
            with redis.Redis.from_pool(self._pool) as client:
                for batch in _batches(client.scan_iter(match=pattern, count=_SCAN_COUNT)):
                    removed += int(client.unlink(*batch))
        except _TROUBLE:
            raise Unavailable("Redis is away: nothing can be served from the cache either") from None
        return removed

    # --- looking --------------------------------------------------------------------------------------------------

    def _found_or_loaded(self, look: "_Look") -> Any:
        if self._debts:
            self._pay()
            if look.names.value in self._debts:
                raise _Away
        entry, lease = self._find_or_lease(look)
        if entry is not None:
            return self._renewed(look, entry) if entry.due else self._given(look, entry)
        if lease is None:
            return self._missed(look)
        with self._flight(look.names.value) as (flight, ours):
            value, found = self._load(look, lease)
            if ours:
                flight.found = found
        return value

    def _given(self, look: "_Look", entry: _Entry) -> Any:
        look.count(entry.outcome)
        return entry.value

    def _renewed(self, look: "_Look", older: _Entry) -> Any:
        """The value read anew, by one of those who find that it is time."""
        lease = self._lease(look)
        if lease is None:
            return self._given(look, older)
        entry = self._read(look)
        if entry is not None and not entry.due:
            # Somebody has renewed it between our look and our lease.
            self._give_back(look, lease, b"", 0)
            return self._given(look, entry)
        return self._load(look, lease, older=older)[0]

    def _missed(self, look: "_Look") -> Any:
        """Wait for whoever has the lease; who waits longest in vain reads for themself."""
        deadline = time.monotonic() + PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            with self._flight(look.names.value) as (flight, ours):
                if ours:
                    return self._lead(look, flight, deadline)
            # What another thread read may be older than our question: only Redis tells that it still holds.
            flight.landed.wait(left)
            entry = self._read(look) if flight.found else None
            if entry is not None:
                return self._given(look, entry)
            if not flight.found:
                break
        look.count("miss")
        return look.load()

    def _lead(self, look: "_Look", flight: _Flight, deadline: float) -> Any:
        """Ask Redis for all who wait for the value in this process, until it is there or nobody else is at it."""
        for pause_s in _pauses():
            time.sleep(pause_s)
            entry, lease = self._find_or_lease(look)
            if entry is not None:
                flight.found = True
                return self._given(look, entry)
            if lease:
                value, flight.found = self._load(look, lease)
                return value
            if time.monotonic() >= deadline:
                break
        look.count("miss")
        return look.load()

    def _load(self, look: "_Look", lease: str, older: _Entry | None = None) -> tuple[Any, bool]:
        """What `load` reads, or `older` when the database fails; and whether others find it in Redis."""
        started = time.monotonic()
        try:
            value = look.load()
        except BaseException as error:
            failed = isinstance(error, peewee.DatabaseError | peewee.InterfaceError)
            with suppress(_Away):
                if failed:
                    self._give_back(look, lease, b"", 0)
                else:
                    self._ask("DEL", *look.names)
            if older is None or not failed:
                raise
            look.count("stale")
            return older.value, True
        look.count("miss" if older is None else "refresh")
        try:
            return value, self._give_back(look, lease, *look.envelope(value, time.monotonic() - started))
        except _Away:
            # What was read is good for whoever asked for it, also when Redis does not take it.
            return value, False

    @contextmanager
    def _flight(self, name: str) -> Iterator[tuple[_Flight, bool]]:
        with self._flying:
            flight = self._flights.get(name)
            ours = flight is None
            if flight is None:
                flight = self._flights[name] = _Flight()
        try:
            yield flight, ours
        finally:
            if ours:
                with self._flying:
                    del self._flights[name]
                flight.landed.set()

    # --- Redis ----------------------------------------------------------------------------------------------------

    def _read(self, look: "_Look") -> _Entry | None:
        return look.entry(self._ask("GET", look.names.value))

    def _find_or_lease(self, look: "_Look") -> tuple[_Entry | None, str | None]:
        """What is stored; or the lease, unless somebody else has it. What is of another shape is as if it were not there."""
        token = secrets.token_hex(8)
        stored, leased = self._tried(self._line.run, _FIND_OR_LEASE, look.names, token, LEASE_MS)
        entry = look.entry(stored)
        return entry, token if leased else None if entry or stored is None else self._lease(look)

    def _lease(self, look: "_Look") -> str | None:
        token = secrets.token_hex(8)
        return token if self._ask("SET", look.names.lease, token, "NX", "PX", LEASE_MS) else None

    def _give_back(self, look: "_Look", lease: str, stored: bytes, kept_ms: int) -> bool:
        """Let go of the lease; whether the value was stored."""
        return bool(self._tried(self._line.run, _GIVE_BACK, look.names, lease, stored, kept_ms))

    def _ask(self, *command: Any) -> Any:
        return self._tried(self._line.ask, *command)

    def _tried(self, call: Callable[..., Any], *args: Any) -> Any:
        """Raises _Away. Only failures are noted: to note each success would cost as much as a look-up."""
        try:
            if self._breaker.state != STATE_CLOSED:
                return self._breaker.call(call, *args)
            try:
                return call(*args)
            except _TROUBLE as error:
                self._breaker.call(_raise, error)
        except (*_TROUBLE, breakers.Open):
            raise _Away from None

    def _pay(self) -> None:
        if time.monotonic() < self._deaf_until:
            return
        owed = self._debts.all()
        if not owed:
            return  # another thread was quicker; Redis would refuse to delete nothing
        try:
            self._line.ask("DEL", *owed)
        except _TROUBLE:
            self._deaf_until = time.monotonic() + _DEAF_S
            return
        self._debts.settle(owed)


class _Look:
    """One look for one value."""

    def __init__(self, namespace: Namespace, names: _Names, load: Callable[[], Any], shape: str) -> None:
        self._namespace, self.names, self.load, self._shape = namespace, names, load, shape

    def count(self, outcome: str) -> None:
        metrics.looks_of(self._namespace.name, outcome).inc()

    def entry(self, stored: bytes | None) -> _Entry | None:
        """What is stored, unless it is of another shape, such as that of the release before."""
        if stored is None:
            return None
        try:
            shape, until, took_s, value = orjson.loads(stored)
        except (ValueError, TypeError):
            return None
        if shape != self._shape:
            return None
        # XFetch (Vattani and others, 2015): the dearer the load and the nearer its end, the likelier one reads it early.
        early_s = -took_s * _EAGERNESS * math.log(1.0 - random.random())  # noqa: S311 - no secret
        now = time.time()
        return _Entry(value, due=now + early_s >= until, old=now >= until)

    def envelope(self, value: Any, took_s: float) -> tuple[bytes, int]:
        """What is stored of a value, and for how many milliseconds; nothing of one that is too large."""
        fresh_s = self._namespace.ttl_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        stored = orjson.dumps([self._shape, time.time() + fresh_s, took_s, value], option=orjson.OPT_UTC_Z)
        if len(stored) > MAX_VALUE_BYTES:
            return b"", 0
        return stored, int((fresh_s + self._namespace.grace_s) * 1000)


def get(namespace: Namespace, key: str, load: Callable[[], T], *, shape: str) -> T:
    """The value of `key`, or what `load` reads and everybody after us finds. `shape` names the form of the value.

    What comes from the cache is as JSON has it: instants and identifiers are text. Who asks has been found to be allowed
    to see it: a value that is not the same for all who may ask belongs here no more than a secret. `load` reads the
    primary: a replica that lags would bring back what was just invalidated.
    """
    cache = current()
    if namespace.name not in cache.enabled or db.in_transaction():
        return load()
    return cache.get(namespace, key, load, shape)


def forget_after_commit(namespace: Namespace, key: str) -> None:
    """Invalidate `key` when the open transaction has committed, before anybody hears of it; at once where none is open.

    Peewee's hook is good for no more than this: a deletion too many costs nothing, and this one never raises.
    """
    cache = current()
    if namespace.name in cache.enabled:
        db.after_commit(partial(cache.forget, names_of(namespace, key)))


def current() -> Cache:
    """The cache by the process's settings, made at its first use: a worker's children each have their own."""
    global _current  # noqa: PLW0603 - a process has one cache, as it has one configuration
    settings = config.current()
    cache = _current
    if cache is None or cache.settings is not settings:
        cache = _current = Cache(settings)
    return cache


_current: Cache | None = None


def names_of(namespace: Namespace, key: str) -> _Names:
    """The keys in Redis of a value and of its lease."""
    value = f"{PREFIX}{namespace.name}:{key}"
    return _Names(value, f"{value}:lease")


def _pauses() -> Iterator[float]:
    yield from _PAUSES_S
    while True:
        yield _PAUSES_S[-1]


def _batches(found: Iterator[Any]) -> Iterator[list[Any]]:
    batch = []
    for name in found:
        batch.append(name)
        if len(batch) == _SCAN_COUNT:
            yield batch
            batch = []
    if batch:
        yield batch


def _tells_that_redis_is_away(kind: type[BaseException], error: BaseException) -> bool:
    """Not a Redis that answers and refuses: one that is full still reads and deletes."""
    return not issubclass(kind, redis.ResponseError)


def _raise(error: BaseException) -> None:
    raise error
