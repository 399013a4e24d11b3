"""Each test breaks the rules of dead letters by hand, in SQL; the database refuses by the name of its rule."""

import pytest

from fleet.db import db
from tests.books import refused_by
from tests.tasks.outboxes import dead_letter, promised

pytestmark = pytest.mark.usefixtures("fresh_database")

DISCARDED = "discarded_at = now(), discarded_by = 'cli:root', discard_reason = 'x'"


def test_only_what_is_dead_is_discarded():
    promised()
    with refused_by("outbox_discarded_is_dead"):
        db.execute_sql(f"UPDATE outbox SET {DISCARDED}")


def test_what_is_discarded_does_not_come_back_to_life_by_half():
    dead_letter()
    db.execute_sql(f"UPDATE outbox SET {DISCARDED}")
    for change in ("dead_at = NULL", "dead_at = NULL, confirmed_at = now()"):
        with refused_by("outbox_discarded_is_dead"):
            db.execute_sql(f"UPDATE outbox SET {change}")


@pytest.mark.parametrize(
    "change",
    ["discarded_by = NULL", "discard_reason = NULL", "discarded_by = ''", "discard_reason = ''", "discarded_at = NULL",
     "discard_reason = repeat('x', 1001)", "discarded_by = repeat('x', 201)"],
)  # fmt: skip
def test_a_discard_has_a_time_an_actor_and_a_reason(change):
    dead_letter()
    db.execute_sql(f"UPDATE outbox SET {DISCARDED}")
    with refused_by("outbox_discarded_by_whom_and_why"):
        db.execute_sql(f"UPDATE outbox SET {change}")


@pytest.mark.parametrize("change", ["replays = -1", "replays = 1", "replayed_at = now()"])
def test_replays_are_counted_with_their_time(change):
    dead_letter()
    with refused_by("outbox_replays"):
        db.execute_sql(f"UPDATE outbox SET {change}")
