"""The most telling drills, with short faults and a fixed seed. `make faults` performs all of them at full length."""

from collections.abc import Iterator

import pytest

from tests.faults.drills import DRILLS
from tests.faults.performance import Performer
from tests.faults.run import details
from tests.faults.stage import ROOT, stage

pytestmark = pytest.mark.slow

SEED = 7
TELLING = (
    "web-killed-before-answer",
    "killed-before-acknowledgement",
    "redis-killed-full-queue",
    "postgres-stopped-at-once",
)


@pytest.fixture(scope="module")
def performer() -> Iterator[Performer]:
    with stage(SEED) as place:
        yield Performer(place, SEED, full=False)


@pytest.mark.parametrize("name", TELLING)
def test_nothing_is_lost_or_doubled(name: str, performer: Performer) -> None:
    outcome = performer.perform(DRILLS[name])
    assert outcome.held, details(outcome)
    assert outcome.faults and outcome.requests


def test_the_documentation_says_what_every_drill_proves() -> None:
    shown = (ROOT / "docs" / "failure-drills.md").read_text()
    assert DRILLS and [name for name, drill in DRILLS.items() if f"| `{name}` | {drill.proves} |" not in shown] == []
