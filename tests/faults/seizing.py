"""Killing a process at one exact point of its work: before its COMMIT, or after it and before it can know of it.

The scene's gates let a COMMIT wait for an advisory lock. Who waits there is found by the port of its connection. To kill it
after its COMMIT it is frozen first; then the gate opens, PostgreSQL commits by itself, and nobody ever hears the answer.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psutil

from tests.faults.stage import Stage, StageBroken

RESERVATION, POSTING, CLAIM, DELIVERY, CAPTURE, REFUND = 1, 2, 3, 4, 5, 6
WAIT_S = 40  # a new web worker boots first, on a busy machine
# The service gives up waiting for a lock after 0.8 s: a gate that was held longer may have ended in a ROLLBACK.
SURELY_COMMITS_S = 0.6

_WAITING = """
SELECT a.pid, a.client_port FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid
WHERE l.locktype = 'advisory' AND l.objid = %s AND NOT l.granted AND a.client_port IS NOT NULL
"""
_BUSY = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND state <> 'idle'"


def kill_at(stage: Stage, gate: int, among: Callable[[], Sequence[psutil.Process]], *, committed: bool) -> psutil.Process:
    """Kill the next of these processes that comes to the gate. Raises StageBroken when none does."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with stage.connection() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", (gate,))
            closed_at = time.monotonic()
            caught = _first_at(cursor, gate, among, end)
            if caught is None:
                continue
            victim, backend = caught
            if not committed:
                victim.kill()
                return victim
            victim.suspend()
            cursor.execute("SELECT pg_advisory_unlock(%s)", (gate,))
            surely = time.monotonic() - closed_at < SURELY_COMMITS_S
            while surely and _rows(cursor, _BUSY, backend):
                time.sleep(0.005)
            if surely:
                victim.kill()
                return victim
            victim.resume()
    raise StageBroken(f"nobody came to gate {gate} within {WAIT_S} s")


def _first_at(
    cursor: Any, gate: int, among: Callable[[], Sequence[psutil.Process]], end: float
) -> tuple[psutil.Process, int] | None:
    """The process that waits at the closed gate and its backend; None when it is time to open for those whom we spare."""
    closed_at = time.monotonic()
    while time.monotonic() < min(end, closed_at + SURELY_COMMITS_S):
        for backend, port in _rows(cursor, _WAITING, gate):
            for process in among():
                if port in _ports(process):
                    return process, backend
        time.sleep(0.01)
    return None


def _ports(process: psutil.Process) -> set[int]:
    with suppress(psutil.Error):
        return {connection.laddr.port for connection in process.net_connections() if connection.laddr}
    return set()


def _rows(cursor: Any, statement: str, value: int) -> list[Any]:
    cursor.execute(statement, (value,))
    found: list[Any] = cursor.fetchall()
    return found
