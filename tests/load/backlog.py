"""A backlog of letters, and the ledger's work that goes on beside it: how long a new posting takes while the letters drain.

`python -m tests.load.backlog` drains a whole backlog of 50,000, which takes minutes; the benchmark looks at its first seconds.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from uuid import UUID, uuid4

from tests.load.arena import Arena, arena
from tests.load.lag import procfile
from tests.load.renting import id_of

BACKLOG = 50_000
PROBE_EVERY_S = 0.25
SETTLE_TIMEOUT_S = 30


@dataclass(frozen=True)
class Drained:
    """What was drained in so many seconds, and how long the postings took that were promised meanwhile, in seconds."""

    letters: int
    seconds: float
    postings: int
    unconfirmed: int
    median_s: float
    slowest_s: float

    @property
    def rate(self) -> float:
        return self.letters / self.seconds


def backlog(place: Arena, *, letters: int, seconds: float) -> Drained:
    """Promise so many letters at once, start relay and worker as they are deployed, and post to the ledger meanwhile.

    Looks for `seconds`, or until the letters are sent.
    """
    place.sql("UPDATE outbox SET confirmed_at = now() WHERE confirmed_at IS NULL AND dead_at IS NULL")
    place.sql(_PROMISE_LETTERS, (id_of(7, 1), letters))
    before = _waiting(place)
    crew = procfile()
    for name in ("relay", "worker"):
        place.start(name, ["/bin/sh", "-c", f"exec env {crew[name]}"])
    _await_first_letter(place, before)
    started, before = time.monotonic(), _waiting(place)
    probes: list[UUID] = []
    while time.monotonic() < started + seconds and _waiting(place):
        probes.append(uuid4())
        place.sql(_PROMISE_POSTING, (str(probes[-1]), str(probes[-1])))
        time.sleep(PROBE_EVERY_S)
    done, took = before - _waiting(place), time.monotonic() - started
    _settle(place, probes)
    for name in ("relay", "worker"):
        place.stop(name)
    [(unconfirmed, median, slowest)] = place.sql(_POSTINGS, ([str(probe) for probe in probes],))
    return Drained(done, took, len(probes), unconfirmed, float(median), float(slowest))


def _waiting(place: Arena) -> int:
    return int(place.sql("SELECT count(*) FROM outbox WHERE queue = 'notifications' AND confirmed_at IS NULL")[0][0])


def _await_first_letter(place: Arena, before: int) -> None:
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while _waiting(place) == before and time.monotonic() < deadline:
        time.sleep(0.05)


def _settle(place: Arena, probes: list[UUID]) -> None:
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    while time.monotonic() < deadline and place.sql(_OPEN_POSTINGS, ([str(probe) for probe in probes],))[0][0]:
        time.sleep(0.1)


_PROMISE_LETTERS = """INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id)
SELECT gen_random_uuid(), 'notifications.rental_reserved', 'notifications', 'rental', %s FROM generate_series(1, %s)"""
_PROMISE_POSTING = """INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id)
VALUES (%s, 'accounting.post_invoice', 'accounting', 'invoice', %s)"""
_OPEN_POSTINGS = "SELECT count(*) FROM outbox WHERE id = ANY (%s::uuid[]) AND confirmed_at IS NULL"
_POSTINGS = """SELECT count(*) FILTER (WHERE confirmed_at IS NULL),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY took), max(took)
FROM (SELECT confirmed_at, extract(epoch FROM coalesce(confirmed_at, now()) - created_at) AS took
      FROM outbox WHERE id = ANY (%s::uuid[])) AS probe"""


def main() -> int:
    """Drain a backlog and tell how it went; the exit code is 1 when a posting took longer than 5 s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--letters", type=int, default=BACKLOG)
    parser.add_argument("--seconds", type=float, default=3600.0, help="look no longer than this")
    chosen = parser.parse_args()
    with arena() as place:
        found = backlog(place, letters=chosen.letters, seconds=chosen.seconds)
    print(f"{found.letters} letters in {found.seconds:.0f} s, {found.rate:.0f} a second")
    print(f"{found.postings} postings meanwhile: median {found.median_s:.3f} s, slowest {found.slowest_s:.3f} s")
    return 1 if found.unconfirmed or found.slowest_s > 5 else 0


if __name__ == "__main__":
    sys.exit(main())
