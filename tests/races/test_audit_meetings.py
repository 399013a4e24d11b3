"""Sealers, writers and retention meet at the audit log: every event gets one place in one chain."""

from datetime import timedelta

from fleet import clock
from fleet.db import db, transaction
from fleet.services import audit, audit_chain
from tests.cast import Cast, insert
from tests.races.meeting import Call, Meeting, in_one_transaction

SEALING = "INSERT INTO audit_seal"


def record(object_id: str) -> None:
    audit.record("cli:root", "vehicles.sell", "vehicle", object_id)


def recording(object_id: str) -> Call:
    return in_one_transaction(lambda: record(object_id))


def record_three() -> None:
    with transaction():
        for number in range(3):
            record(f"v{number}")


def test_two_sealers_do_not_seal_the_same_event(cast: Cast, meet: Meeting) -> None:
    record_three()
    one, other = meet(audit_chain.seal, audit_chain.seal, before=SEALING)
    assert (one.value, other.value, other.waited) == (3, 0, False), "sealed by both"
    assert audit_chain.verify().holds


def test_nobody_who_acts_waits_for_the_sealer(cast: Cast, meet: Meeting) -> None:
    record_three()
    sealed, recorded = meet(audit_chain.seal, recording("meanwhile"), before="COMMIT")
    assert (sealed.result, recorded.error, recorded.waited) == (3, None, False)
    assert audit_chain.seal() == 1


def test_what_commits_after_younger_events_were_sealed_is_sealed_next(cast: Cast, meet: Meeting) -> None:
    """The slow one drew its id and its time first; a sealer that went by either would never come back for it."""
    record_three()
    _, sealed = meet(recording("slow"), audit_chain.seal)
    assert (sealed.result, sealed.waited) == (3, False)
    assert audit_chain.seal() == 1
    assert audit_chain.verify().holds
    assert db.one("SELECT count(*) FROM audit_unsealed") == (0,)


def test_retention_leaves_the_chain_to_a_sealer_at_work(cast: Cast, meet: Meeting) -> None:
    record_three()
    then = clock.now() - timedelta(days=40)
    about = {"actor": "cli:root", "action": "vehicles.sell", "object_type": "vehicle", "object_id": "old"}
    insert("audit_event", **about, id=clock.first_id_of(then), at=then)
    audit_chain.seal()
    with transaction():
        record("new")
    sealed, pruned = meet(audit_chain.seal, lambda: audit_chain.prune(before=clock.now() - timedelta(days=30)), before=SEALING)
    assert (sealed.result, pruned.result) == (1, 0)
    assert audit_chain.verify().holds
