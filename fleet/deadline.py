"""The deadline of a request, shared by all that it waits for: nothing works on for a client who has gone.

Each call outside and each wait for PostgreSQL takes what is left of it, if that is less than its own limit. It belongs to the
thread. Workers have none: a task has the time limits of Celery.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# What a call outside leaves over, so that its outcome can still be written down and answered.
KEPT_S = 2.0


class Over(Exception):
    """There is no time left to begin anything."""


class _Deadline(threading.local):
    begun_at = 0.0
    ends_at: float | None = None  # on the monotonic clock; None: there is no deadline


_own = _Deadline()


def begin(seconds: float) -> None:
    """A request begins in this thread, and has so long."""
    _own.begun_at = now = time.monotonic()
    _own.ends_at = now + seconds


def allow(seconds: float) -> None:
    """The request has so long, counted from its beginning. Where there is no deadline, there still is none."""
    if _own.ends_at is not None:
        _own.ends_at = _own.begun_at + seconds


def end() -> None:
    """The request is over."""
    _own.ends_at = None


def left_s() -> float | None:
    """What is left, in seconds, at least 0; None where there is no deadline."""
    ends_at = _own.ends_at
    return None if ends_at is None else max(0.0, ends_at - time.monotonic())


def least(seconds: float | None) -> float | None:
    """`seconds`, or what is left if that is less. None is for ever."""
    ends_at = _own.ends_at
    if ends_at is None:
        return seconds
    left = max(0.0, ends_at - time.monotonic())
    return left if seconds is None or left < seconds else seconds


def earliest(moment: float | None) -> float | None:
    """`moment` on the monotonic clock, or the deadline if that is sooner. None is never."""
    ends_at = _own.ends_at
    if ends_at is None or (moment is not None and moment < ends_at):
        return moment
    return ends_at


def for_a_call(total_s: float, *, kept_s: float = KEPT_S) -> float:
    """How long a call outside may take in all: `total_s`, or what is left but for `kept_s`. Raises Over."""
    left = left_s()
    seconds = total_s if left is None else min(total_s, left - kept_s)
    if seconds <= 0:
        raise Over
    return seconds


@contextmanager
def lifted() -> Iterator[None]:
    """What is done here has limits of its own, and takes nothing from the request's time."""
    ends_at, _own.ends_at, began = _own.ends_at, None, time.monotonic()
    try:
        yield
    finally:
        _own.ends_at = None if ends_at is None else ends_at + time.monotonic() - began
