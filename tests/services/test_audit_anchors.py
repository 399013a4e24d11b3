"""What retention leaves of the audit log begins at the newest anchor, and nothing comes before it any more."""

from datetime import timedelta
from typing import Any

import pytest

from fleet import clock
from fleet.db import db
from fleet.embedded import Databases
from fleet.rules import audit_chain as rules
from fleet.services import audit_chain
from tests.books import behind_the_guards, refused_by
from tests.cast import insert

EVENT: dict[str, Any] = {"actor": "cli:root", "action": "vehicles.sell", "object_type": "vehicle", "object_id": "x"}
SEAL = "INSERT INTO audit_seal VALUES (%s, %s, decode(repeat('00', 8), 'hex'), %s, %s)"


@pytest.mark.usefixtures("fresh_database")
def test_an_event_slipped_in_before_the_anchor_is_refused_and_found(databases: Databases) -> None:
    """By a seal that follows from the start, or from an older anchor: nothing that is left of the chain covers it."""
    for age in (40, 30, 20, 10):
        then = clock.now() - timedelta(days=age)
        insert("audit_event", **EVENT, id=clock.first_id_of(then), at=then)
        audit_chain.seal()
    for age in (35, 25):
        assert audit_chain.prune(before=clock.now() - timedelta(days=age)) == 1
    [(older,)] = db.rows("SELECT hash FROM audit_anchor WHERE position = 1")
    for position, previous in ((1, rules.START), (2, bytes(older))):
        seal = (position, insert("audit_event", **EVENT), previous, b"h" * 32)
        with refused_by("audit_seal_chained"):
            db.execute_sql(SEAL, seal)
        behind_the_guards(databases, SEAL, *seal)
    behind_the_guards(databases, "DELETE FROM audit_unsealed")
    found = [(problem.position, problem.what.split(":")[0]) for problem in audit_chain.verify().problems]
    assert found == [(place, "the event stands before the anchor") for place in (1, 2)]
