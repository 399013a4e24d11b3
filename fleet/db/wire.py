"""What goes over the wire to PostgreSQL and back: deadlines on every wait, and how values are written and read."""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import orjson
import psycopg2
from psycopg2 import extensions, extras
from psycopg2.extensions import AsIs, QuotedString, register_adapter

from fleet import deadline


class NoAnswer(psycopg2.OperationalError):
    """The server did not answer in time; the connection is lost with what it may still say."""


class Connection(extensions.connection):
    """A connection that knows what was prepared on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared: set[str] = set()


class _Budget(threading.local):
    """How long the thread may wait on the wire: so many seconds in one call, and never beyond `until`; None: for ever."""

    seconds: float | None = None
    until: float | None = None

    def deadline(self) -> float | None:
        """When the wait that begins now ends, on the monotonic clock."""
        if self.seconds is None:
            return self.until
        own = time.monotonic() + self.seconds
        return own if self.until is None else min(own, self.until)


budget = _Budget()


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """All that the thread waits for inside ends in so many seconds altogether, or sooner where a block around it says so."""
    before = budget.until
    if seconds is not None:
        until = time.monotonic() + seconds
        budget.until = until if before is None else min(before, until)
    try:
        yield
    finally:
        budget.until = before


@contextmanager
def each_within(seconds: float | None) -> Iterator[None]:
    """Every single call inside may take so long."""
    before, budget.seconds = budget.seconds, seconds
    try:
        yield
    finally:
        budget.seconds = before


def _wait_within_budget(connection: extensions.connection) -> None:
    """Wait for the server, but not for ever: a frozen one keeps its sockets open, and no server-side timeout fires."""
    ends_at = deadline.earliest(budget.deadline())
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        left = None if ends_at is None else ends_at - time.monotonic()
        if left is not None and left <= 0:
            raise NoAnswer("the server did not answer in time")
        readers = [connection] if state == extensions.POLL_READ else []
        writers = [connection] if state == extensions.POLL_WRITE else []
        select.select(readers, writers, [], left)


def _shown_instant(value: str | None, _: Any) -> str | None:
    """PostgreSQL's `2026-11-26 12:00:00.12+00` as RFC 3339, as orjson would write it: a page has hundreds of them."""
    if value is None:
        return None
    fraction = value[19:-3].ljust(7, "0") if len(value) > 22 else ""
    return f"{value[:10]}T{value[11:19]}{fraction}Z"


_TIMESTAMPTZ_OID = 1184
SHOWN_INSTANT = extensions.new_type((_TIMESTAMPTZ_OID,), "SHOWN_INSTANT", _shown_instant)
extensions.set_wait_callback(_wait_within_budget)
extras.register_default_jsonb(globally=True, loads=orjson.loads)
register_adapter(UUID, lambda value: AsIs(f"'{value}'"))
register_adapter(dict, lambda value: QuotedString(orjson.dumps(value).decode()))
