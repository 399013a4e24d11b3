"""docs/failure-modes.md is up to date, each of its rows is proven by something that exists, and each drill has a row."""

from collections import Counter
from pathlib import Path

import pytest

from tests.faults import pages
from tests.faults.modes import MODES, Mode
from tests.faults.repertoire import DRILLS
from tests.source import ROOT

# What has to be drilled against the real processes, in the words of those who asked for it, and the rows that say so.
ASKED_FOR = {
    "kill -9 of a web worker mid-request": "web-killed-mid-request",
    "after commit, before the answer": "web-killed-before-answer",
    "of the relay after claim": "relay-killed-after-claim",
    "of the relay after publish": "relay-killed-after-publish",
    "of a pool child": "pool-child-killed",
    "of the whole worker": "worker-killed",
    "between effect and acknowledgement": "killed-before-acknowledgement",
    "Redis killed with a full queue, without persistence": "redis-killed-full-queue",
    "FLUSHALL": "redis-flushed",
    "Redis frozen 30 s": "redis-frozen",
    "PostgreSQL stopped at once and restarted": "postgres-stopped-at-once",
    "PostgreSQL frozen 10 s": "postgres-frozen",
    "a row lock held 10 s": "row-locked",
    "a slow query": "slow-query",
    "connections exhausted": "connections-exhausted",
    "the same message 100 times": "same-message-100",
    "poison that raises": "poison-raises",
    "poison that kills its process": "poison-kills",
    "a task that hangs": "task-hangs",
    "two replays at once": "two-replays",
    "50 requests with one key": "one-key-50",
    "50 clients for one slot": "one-slot-50",
    "HUP under load": "hup-under-load",
    "worker TERM with a long task": "worker-term-long-task",
    "a backlog of 50,000": "backlog",
    "a dependency that fails 80 %": "hooks-fail-80",
    "one that hangs": "cards-hang",
    "two beats": "two-beats",
}


def test_the_page_is_as_the_modes_the_drills_and_the_last_run_have_it() -> None:
    page = pages.PAGE.read_text()
    assert page == pages.written(page), "write it with `python -m tests.faults.pages`"


def test_every_drill_proves_a_row_and_says_what() -> None:
    proven = {proof for mode in MODES for proof in mode.proofs}
    assert [name for name, drill in DRILLS.items() if name not in proven or not drill.proves] == []


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: f"{mode.dependency} {mode.failure}")
def test_every_row_is_proven_by_what_exists(mode: Mode) -> None:
    assert mode.proofs
    for proof in mode.proofs:
        path, _, name = proof.partition("::")
        assert proof in DRILLS or f"def {name}" in (ROOT / path).read_text(), proof


def test_no_row_is_there_twice() -> None:
    assert [row for row, count in Counter((mode.dependency, mode.failure) for mode in MODES).items() if count > 1] == []


def test_all_that_was_asked_for_is_drilled() -> None:
    assert {what: name for what, name in ASKED_FOR.items() if name not in DRILLS} == {}


def test_no_last_run_of_a_drill_lost_or_doubled_anything() -> None:
    ran = pages.last_run()
    assert ran and [name for name, one in ran.items() if one["lost"] or one["duplicated"] or one["findings"]] == []


def test_a_drill_that_is_repeated_says_where_and_leaves_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PAGE", "LAST_RUN"):
        copy = tmp_path / getattr(pages, name).name
        copy.write_text(getattr(pages, name).read_text())
        monkeypatch.setattr(pages, name, copy)
    before = pages.last_run()
    pages.keep("0123abc", 5, [{**before["redis-frozen"], "requests": 12345}])
    after = pages.last_run()
    assert after.pop("redis-frozen") == {**before.pop("redis-frozen"), "requests": 12345, "commit": "0123abc", "seed": 5}
    assert after == before
    [row] = [line for line in pages.PAGE.read_text().splitlines() if line.startswith("| redis-frozen |")]
    assert "| 12345 |" in row and row.endswith("| 0123abc | 5 |")
