"""The most telling drills, with short faults and a fixed seed. `make faults` performs all of them at full length."""

from collections.abc import Iterator

import pytest

from tests.faults.performance import Performer
from tests.faults.repertoire import DRILLS
from tests.faults.run import details
from tests.faults.stage import stage

pytestmark = pytest.mark.slow

SEED = 7
TELLING = (
    "web-killed-before-answer",
    "killed-before-acknowledgement",
    "redis-killed-full-queue",
    "postgres-stopped-at-once",
    "cards-late",
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
