"""The page about the keys in Redis is complete, and what it says of lifetimes is true: read from a product that works."""

import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from redis import Redis

from fleet.db import db
from fleet.embedded import Databases
from fleet.services import outbox
from tests.cast import Cast, at, iso
from tests.source import ROOT
from tests.tasks.crew import BEAT, RELAY, WORKER, await_, running

PAGE = ROOT / "docs" / "redis-keys.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.M)
UNBOUNDED = "none"


class Row(NamedTuple):
    pattern: str
    owner: str
    kind: str
    ttl: str
    without: str


def page() -> list[Row]:
    return [Row(*(cell.strip() for cell in found)) for found in ROW.findall(PAGE.read_text())]


def row_of(key: str) -> Row | None:
    """The first row whose pattern the key fits: `<x>` in it stands for anything."""
    return next((row for row in page() if fnmatchcase(key, re.sub(r"<[^>]+>", "*", row.pattern))), None)


@contextmanager
def watched(client: Redis) -> Iterator[dict[str, set[bool]]]:
    """Every key that is there meanwhile, and whether it was seen with and without a lifetime."""
    seen: dict[str, set[bool]] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            for key in client.scan_iter(count=1000):
                ttl: Any = client.pttl(key)
                if ttl != -2:  # it is gone already
                    seen.setdefault(key.decode(), set()).add(ttl >= 0)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield seen
    finally:
        over.set()
        watching.join()


@pytest.fixture
def seen(
    cast: Cast, databases: Databases, processes_environment: dict[str, str], tmp_path: Path
) -> dict[str, set[bool]]:
    """The keys of a morning: reads, a reservation, its letter sent by a worker, a sweep by the clock, a task that is held."""
    with Redis.from_url(databases.redis_url) as client, ExitStack() as stack:
        client.flushdb()
        found = stack.enter_context(watched(client))
        for name, command in (("worker", WORKER), ("relay", RELAY), ("beat", [*BEAT, str(tmp_path / "schedule")])):
            stack.enter_context(running(command, processes_environment, tmp_path / f"{name}.log"))
        for path in (f"/v1/vehicles/{cast.corolla}", f"/v1/branches/{cast.lisbon}", f"/v1/vehicle-classes/{cast.compact}"):
            assert cast.agent.get(path).status_code == 200
        window = f"start_at={iso(at(1))}&end_at={iso(at(2))}"
        assert cast.agent.get(f"/v1/availability/summary?{window}").status_code == 200
        wish = {"customer_id": f"{cast.ana.customer_id}", "vehicle_id": f"{cast.corolla}"}
        times = {"start_at": iso(at(1)), "end_at": iso(at(2))}
        assert cast.agent.post("/v1/rentals", wish | times, key=str(uuid4())).status_code == 201
        await_(lambda: db.one("SELECT 1 FROM outbox WHERE confirmed_at IS NOT NULL"))
        await_(lambda: any(key.startswith("fleet:unacked") for key in found))
    return found


def test_every_key_has_a_row_and_the_lifetime_that_the_row_says(seen: dict[str, set[bool]]) -> None:
    assert {"fleet-cache", "fleet-limit", "fleet"} <= {key.partition(":")[0] for key in seen}
    rows = {key: row_of(key) for key in seen}
    assert [key for key, row in rows.items() if row is None] == []
    eternal = [key for key, row in rows.items() if row and False in seen[key] and not row.ttl.startswith(UNBOUNDED)]
    assert eternal == []


def test_only_the_structures_of_the_broker_live_without_an_end() -> None:
    assert all(row.pattern.startswith("fleet:") for row in page() if row.ttl.startswith(UNBOUNDED))
    assert all(row.owner and row.without for row in page())


def test_a_key_that_nobody_wrote_down_is_found() -> None:
    assert [row_of(key) for key in ("somebodys:key", "fleet:unknown", "fleet-cache:2:vehicles:an-id")] == [None] * 3
    assert {row.pattern for row in page()} >= {f"fleet:{queue}" for queue in outbox.QUEUES}
    assert row_of("fleet-cache:1:vehicles:an-id") is not None
