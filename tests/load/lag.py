"""How long a promise takes from the commit of its fact to its confirmed effect, with the real relay and worker running."""

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.load.arena import ROOT, Arena
from tests.load.http_load import drive
from tests.load.renting import Clerks

CLIENTS = 8
CHARGED_ONE_IN = 5
CREW = ("relay", "worker")
DRAIN_TIMEOUT_S = 30
WARM_UP_S = 4.0


@dataclass(frozen=True)
class Lag:
    """The lag of one queue at half of the rate that the same clients reach, in milliseconds."""

    promises: int
    unconfirmed: int
    median_ms: float
    p99_ms: float


def can_be_measured() -> bool:
    return (ROOT / "tasks" / "relay.py").exists()


def lag(arena: Arena, web: int, clerks: Clerks, *, full_rate: float, seconds: float) -> dict[str, Lag]:
    """Reserve and charge at half of `full_rate` while relay and worker work; the lag of each queue when all is done.

    What is not done after DRAIN_TIMEOUT_S counts as it is by then.
    """
    # What earlier contests promised is not what is measured here.
    arena.sql("UPDATE outbox SET confirmed_at = now() WHERE confirmed_at IS NULL")
    for name in CREW:
        arena.start(name, ["/bin/sh", "-c", f"exec env {procfile()[name]}"])
    pace = full_rate / 2
    drive(web, _mixed(clerks), clients=CLIENTS, seconds=WARM_UP_S, pace=pace)
    drain(arena)
    started_at = arena.sql("SELECT now()")[0][0]
    drive(web, _mixed(clerks), clients=CLIENTS, seconds=seconds, pace=pace)
    drain(arena)
    for name in CREW:
        arena.stop(name)
    found = arena.sql(_LAG, (started_at,))
    return {queue: Lag(count, open_, float(median), float(p99)) for queue, count, open_, median, p99 in found}


def _mixed(clerks: Clerks) -> Iterator[bytes]:
    """Four reservations, which are confirmed by letter, then a charge, whose invoice is accounted for and sent."""
    for number in itertools.count():
        yield clerks.charge() if number % CHARGED_ONE_IN == 0 else clerks.reservation()


def drain(arena: Arena) -> None:
    """Wait until every promise is kept, DRAIN_TIMEOUT_S at most."""
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while time.monotonic() < deadline and arena.sql(_OPEN)[0][0]:
        time.sleep(0.1)


def procfile() -> dict[str, str]:
    """The commands of the Procfile."""
    return dict(re.findall(r"^([\w-]+):\s*(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE))


_OPEN = "SELECT EXISTS (SELECT 1 FROM outbox WHERE confirmed_at IS NULL AND dead_at IS NULL)"
_LAG = """
WITH lag AS (
  SELECT queue, confirmed_at, 1000 * extract(epoch FROM coalesce(confirmed_at, now()) - created_at) AS ms
  FROM outbox WHERE created_at >= %s
)
SELECT queue, count(*), count(*) FILTER (WHERE confirmed_at IS NULL), percentile_cont(0.5) WITHIN GROUP (ORDER BY ms),
  percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)
FROM lag GROUP BY queue"""
