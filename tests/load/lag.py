"""How long a promise takes from the commit of its fact to its confirmed effect, with the real relay and worker running."""

import re
import time
from dataclasses import dataclass

from tests.load.arena import ROOT, Arena
from tests.load.contest import endless
from tests.load.http_load import drive
from tests.load.renting import Clerks

CLIENTS = 8
CREW = ("relay", "worker")
DRAIN_TIMEOUT_S = 30
WARM_UP_S = 4.0


@dataclass(frozen=True)
class Lag:
    """The lag at half of the rate that the same clients reach, in milliseconds."""

    promises: int
    unconfirmed: int
    rate: float
    median_ms: float
    p99_ms: float
    slowest_ms: float


def can_be_measured() -> bool:
    return (ROOT / "tasks" / "relay.py").exists()


def lag(arena: Arena, web: int, clerks: Clerks, *, full_rate: float, seconds: float) -> Lag:
    """Reserve at half of `full_rate` while relay and worker do their work; returns when all is done, or patience ends."""
    # What earlier contests promised is not what is measured here.
    arena.sql("UPDATE outbox SET confirmed_at = now() WHERE confirmed_at IS NULL")
    for name in CREW:
        arena.start(name, ["/bin/sh", "-c", f"exec env {_procfile()[name]}"])
    pace = full_rate / 2
    drive(web, endless(clerks.reservation), clients=CLIENTS, seconds=WARM_UP_S, pace=pace)
    drain(arena)
    started_at = arena.sql("SELECT now()")[0][0]
    outcome = drive(web, endless(clerks.reservation), clients=CLIENTS, seconds=seconds, pace=pace)
    drain(arena)
    for name in CREW:
        arena.stop(name)
    ((promises, unconfirmed, median, p99, slowest),) = arena.sql(_LAG, (started_at,))
    return Lag(promises, unconfirmed, outcome.rate, float(median), float(p99), float(slowest))


def drain(arena: Arena) -> None:
    """Wait until every promise is kept, DRAIN_TIMEOUT_S at most."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < deadline and arena.sql(_OPEN)[0][0]:
        time.sleep(0.1)


def _procfile() -> dict[str, str]:
    return dict(re.findall(r"^([\w-]+):\s*(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE))


_OPEN = "SELECT EXISTS (SELECT 1 FROM outbox WHERE confirmed_at IS NULL AND dead_at IS NULL)"
_LAG = """
WITH lag AS (
  SELECT confirmed_at, 1000 * extract(epoch FROM coalesce(confirmed_at, now()) - created_at) AS ms
  FROM outbox WHERE created_at >= %s
)
SELECT count(*), count(*) FILTER (WHERE confirmed_at IS NULL), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms),
  percentile_cont(0.99) WITHIN GROUP (ORDER BY ms), max(ms)
FROM lag"""
