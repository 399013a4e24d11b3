"""Whatever is done to the audit log shows, and where: an edit, a deletion, an insertion, a cut, with or without the key."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import peewee
import pytest
from flask import Flask

from fleet import clock, config
from fleet.config import Settings, use
from fleet.db import db, transaction
from fleet.embedded import Databases
from fleet.rules import audit_chain as rules
from fleet.services import audit, audit_chain
from fleet.services.audit_chain import Proof
from tasks import maintenance
from tests.books import behind_the_guards, refused_by
from tests.cast import insert

pytestmark = pytest.mark.usefixtures("fresh_database")

Tamper = Callable[..., None]
EVENT: dict[str, Any] = {"actor": "cli:root", "action": "vehicles.sell", "object_type": "vehicle"}


def record(*object_ids: str) -> None:
    for object_id in object_ids:
        with transaction():
            audit.record("cli:root", "vehicles.sell", "vehicle", object_id, before={"n": 1}, after={"n": 2})


def sealed(count: int = 5) -> None:
    record(*(f"v{n}" for n in range(1, count + 1)))
    assert audit_chain.seal() == count


def wrong(proof: Proof) -> list[tuple[int | None, str]]:
    """What is wrong, in the first words, with its place."""
    return [(problem.position, problem.what.split(":")[0]) for problem in proof.problems]


@pytest.fixture
def tamper(databases: Databases) -> Tamper:
    """Change rows as only a superuser can, who puts the guards aside."""
    return lambda sql, *params: behind_the_guards(databases, sql, *params)


@pytest.fixture
def patient(app: Flask, settings: Settings) -> Iterator[None]:
    """What commands set is put back."""
    yield
    db.close()
    db.configure(settings)
    use(settings)


class TestSealing:
    def test_what_is_committed_is_sealed_in_its_order_and_the_chain_holds(self) -> None:
        sealed(3)
        record("v4")
        assert (audit_chain.seal(), audit_chain.seal()) == (1, 0)
        places = db.rows("SELECT s.position, e.object_id FROM audit_seal s JOIN audit_event e ON e.id = s.event_id ORDER BY 1")
        assert places == [(1, "v1"), (2, "v2"), (3, "v3"), (4, "v4")]
        proof = audit_chain.verify()
        assert proof.holds and (proof.sealed, proof.waiting, proof.head.position) == (4, 0, 4)

    def test_a_backlog_is_sealed_batch_by_batch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit_chain, "BATCH", 2)
        monkeypatch.setattr(audit_chain, "PAGE", 2)
        sealed(5)
        assert audit_chain.verify().holds

    def test_a_transaction_that_commits_after_younger_ones_were_sealed_is_sealed_too(self) -> None:
        early = clock.now() - timedelta(seconds=30)
        sealed(2)
        insert("audit_event", **EVENT, object_id="late", id=clock.first_id_of(early), at=early)
        assert audit_chain.seal() == 1
        proof = audit_chain.verify()
        assert proof.holds and proof.sealed == 3

    def test_what_is_not_sealed_yet_is_told(self) -> None:
        sealed(1)
        record("v2", "v3")
        proof = audit_chain.verify()
        assert proof.holds and proof.waiting == 2 and 0 <= proof.waiting_s < 60

    def test_the_sweep_tells_the_head(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        record("v1")
        maintenance.seal_audit_log()
        [line] = [entry for entry in caplog.records if entry.message == "audit log sealed"]
        assert (line.count, line.position, line.head) == (1, 1, audit_chain.head().hash.hex())  # type: ignore[attr-defined]

    def test_a_time_that_nobody_can_read_is_refused(self) -> None:
        for at in ("infinity", "-infinity", "10000-01-01Z"):
            with refused_by("audit_event_at"):
                insert("audit_event", **EVENT, object_id="x", at=at)


class TestTampering:
    @pytest.mark.parametrize(
        "change",
        [
            "actor = 'cli:nobody'", "action = 'vehicles.buy'", "object_type = 'rental'", "object_id = 'v9'", "before = NULL",
            "after = '{\"n\": 2.0}'", "request_id = 'r'", "address = 'a'", "at = at + interval '1 microsecond'",
        ],
    )  # fmt: skip
    def test_an_edit_of_any_part_is_found_at_its_place(self, tamper: Tamper, change: str) -> None:
        sealed()
        tamper(f"UPDATE audit_event SET {change} WHERE object_id = 'v3'")
        assert wrong(audit_chain.verify()) == [(3, "the event or its seal was changed")]

    def test_a_deleted_event_is_found(self, tamper: Tamper) -> None:
        sealed()
        tamper("DELETE FROM audit_event WHERE object_id = 'v3'")
        assert wrong(audit_chain.verify()) == [(3, "the event is gone")]

    def test_an_event_deleted_with_its_seal_leaves_a_gap(self, tamper: Tamper) -> None:
        sealed()
        tamper("DELETE FROM audit_event WHERE object_id IN ('v2', 'v3'); DELETE FROM audit_seal WHERE position IN (2, 3)")
        assert wrong(audit_chain.verify()) == [(3, "the seals 2 to 3 are gone")]

    def test_closing_the_gap_does_not_help(self, tamper: Tamper) -> None:
        sealed()
        tamper(
            "DELETE FROM audit_event WHERE object_id = 'v3'; DELETE FROM audit_seal WHERE position = 3;"
            "UPDATE audit_seal SET position = 3 WHERE position = 4; UPDATE audit_seal SET position = 4 WHERE position = 5"
        )
        found = wrong(audit_chain.verify())
        assert found[0] == (3, "the seal does not follow from the one before it")
        assert (4, "the event or its seal was changed") in found

    def test_two_events_that_changed_places_are_found(self, tamper: Tamper) -> None:
        sealed()
        [(two,), (three,)] = db.rows("SELECT event_id FROM audit_seal WHERE position IN (2, 3) ORDER BY position")
        swap = "UPDATE audit_seal SET event_id = %s WHERE position = %s"
        tamper(f"{swap}; {swap}; {swap}", clock.new_id(), 2, two, 3, three, 2)
        assert {place for place, _ in wrong(audit_chain.verify())} == {2, 3}

    def test_an_event_slipped_in_with_a_seal_of_ones_own_is_found(self, tamper: Tamper) -> None:
        sealed(2)
        told = insert("audit_event", **EVENT, object_id="forged")
        tamper("DELETE FROM audit_unsealed")
        tamper(
            "INSERT INTO audit_seal SELECT 3, %s, key_id, hash, sha256(hash) FROM audit_seal WHERE position = 2", told
        )
        assert wrong(audit_chain.verify()) == [(3, "the event or its seal was changed")]

    def test_whoever_has_no_key_cannot_write_the_chain_anew(self, tamper: Tamper) -> None:
        sealed(3)
        other = rules.key_of("another-secret-key-0123456789-abcdefgh")
        tamper("UPDATE audit_event SET actor = 'cli:nobody' WHERE object_id = 'v2'")
        last = audit_chain.Head(0, rules.START)
        events = [link.told for link in audit_chain._links(0) if link.told]
        forged = audit_chain._seals(other, last, events)
        tamper("DELETE FROM audit_seal")
        for row in zip(*forged.values(), strict=True):
            tamper("INSERT INTO audit_seal (position, event_id, key_id, previous, hash) VALUES (%s, %s, %s, %s, %s)", *row)
        assert {what for _, what in wrong(audit_chain.verify())} == {"sealed under a key that is not here"}
        tamper("UPDATE audit_seal SET key_id = %s", rules.key_of(config.current().secret_key).key_id)
        assert {what for _, what in wrong(audit_chain.verify())} == {"the event or its seal was changed"}

    def test_an_event_that_bears_an_earlier_time_than_those_before_it_is_found(self) -> None:
        sealed(2)
        insert("audit_event", **EVENT, object_id="backdated", at=clock.now() - timedelta(days=1))
        audit_chain.seal()
        assert wrong(audit_chain.verify())[0][0] == 3

    def test_an_event_that_was_kept_from_the_sealer_is_found(self, tamper: Tamper) -> None:
        sealed(2)
        record("hidden")
        tamper("DELETE FROM audit_unsealed")
        assert wrong(audit_chain.verify()) == [(None, "the event has no seal, and does not wait for one")]

    def test_a_cut_tail_shows_by_a_head_that_was_noted(self, tamper: Tamper) -> None:
        sealed(3)
        early = audit_chain.head().hash
        record("v4", "v5")
        audit_chain.seal()
        noted = audit_chain.head().hash
        tamper("DELETE FROM audit_seal WHERE position > 3; DELETE FROM audit_event WHERE object_id IN ('v4', 'v5')")
        assert audit_chain.verify().holds and audit_chain.verify(expected_head=early).holds
        assert wrong(audit_chain.verify(expected_head=noted)) == [(None, "the head that was noted is not in the chain")]

    def test_no_more_problems_are_told_than_can_be_read(self, tamper: Tamper, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(audit_chain, "MOST_PROBLEMS", 3)
        sealed()
        tamper("UPDATE audit_event SET actor = 'cli:nobody'")
        assert len(audit_chain.verify().problems) == 3


class TestKeys:
    def test_after_a_rotation_the_former_key_is_needed_for_what_it_sealed(self, settings: Settings, patient: None) -> None:
        sealed(2)
        values = {**vars(settings), "secret_key": "the-next-secret-key-of-the-tests-0123"}
        use(Settings(**values))
        record("v3")
        audit_chain.seal()
        assert [place for place, _ in wrong(audit_chain.verify())] == [1, 2]
        use(Settings(**{**values, "audit_previous_secrets": (settings.secret_key,)}))
        assert audit_chain.verify().holds


class TestPruning:
    def days_of_events(self, *ages: int) -> None:
        for age in ages:
            then = clock.now() - timedelta(days=age)
            insert("audit_event", **EVENT, object_id=f"d{age}", id=clock.first_id_of(then), at=then)
            audit_chain.seal()

    def left(self) -> list[str]:
        return [name for (name,) in db.rows("SELECT object_id FROM audit_event ORDER BY id")]

    def test_what_is_old_goes_as_a_whole_and_the_rest_can_still_be_proved(self) -> None:
        self.days_of_events(40, 30, 20, 10)
        noted = audit_chain.head().hash
        assert audit_chain.prune(before=clock.now() - timedelta(days=25)) == 2
        proof = audit_chain.verify(expected_head=noted)
        assert proof.holds and (proof.first, proof.sealed) == (3, 2)
        assert self.left() == ["d20", "d10"]

    def test_it_goes_on_after_everything_went(self) -> None:
        self.days_of_events(40, 30)
        noted = audit_chain.head().hash
        assert audit_chain.prune(before=clock.now() - timedelta(days=25)) == 2
        assert audit_chain.verify(expected_head=noted).holds
        self.days_of_events(1)
        assert audit_chain.prune(before=clock.now() - timedelta(days=25)) == 0
        assert audit_chain.verify().head.position == 3 and audit_chain.verify().holds

    def test_an_old_event_that_was_sealed_late_stays_with_the_younger_ones(self) -> None:
        self.days_of_events(40, 10, 35)
        assert audit_chain.prune(before=clock.now() - timedelta(days=25)) == 1
        assert self.left() == ["d35", "d10"]

    def test_what_is_not_sealed_stays(self) -> None:
        then = clock.now() - timedelta(days=40)
        insert("audit_event", **EVENT, object_id="unsealed", at=then)
        assert audit_chain.prune(before=clock.now()) == 0

    def test_what_is_still_to_happen_is_not_old(self) -> None:
        with pytest.raises(ValueError):
            audit_chain.prune(before=clock.now() + timedelta(days=1))

    def test_a_beginning_that_was_removed_by_hand_shows(self, tamper: Tamper) -> None:
        sealed()
        tamper("DELETE FROM audit_event WHERE object_id IN ('v1', 'v2'); DELETE FROM audit_seal WHERE position <= 2")
        assert wrong(audit_chain.verify()) == [(2, "the seals 1 to 2 are gone")]
        tamper("INSERT INTO audit_anchor SELECT 2, key_id, previous, hash FROM audit_seal WHERE position = 3")
        assert wrong(audit_chain.verify()) == [(2, "the anchor was not made by retention")]


class TestGuards:
    @pytest.mark.parametrize("table", ["audit_seal", "audit_anchor", "audit_unsealed"])
    @pytest.mark.parametrize("sql", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}", "TRUNCATE {0}"])
    def test_what_is_in_the_chain_stays_as_it_is(self, table: str, sql: str) -> None:
        then = clock.now() - timedelta(days=40)
        insert("audit_event", **EVENT, object_id="old", at=then)
        audit_chain.seal()
        audit_chain.prune(before=clock.now() - timedelta(days=1))
        sealed(1)
        record("v2")
        column = "event_id" if table == "audit_unsealed" else "hash"
        with refused_by(f"{table}_kept"):
            db.execute_sql(sql.format(table, column))

    def test_a_seal_that_does_not_continue_the_chain_is_refused(self) -> None:
        sealed(1)
        told = insert("audit_event", **EVENT, object_id="x")
        for position in (1, 2, 3):
            with pytest.raises(peewee.PeeweeException, match=r"continues the chain|audit_seal_pkey"):
                db.execute_sql(
                    "INSERT INTO audit_seal VALUES (%s, %s, decode(repeat('00', 8), 'hex'), %s, %s)",
                    (position, told, b"p" * 32, b"h" * 32),
                )

    @pytest.mark.parametrize(
        ("position", "lengths", "constraint"),
        [
            (0, (8, 32, 32), "audit_seal_chained"),
            (1, (7, 32, 32), "audit_seal_lengths"),
            (1, (8, 32, 31), "audit_seal_lengths"),
        ],
    )
    def test_a_seal_is_whole(self, position: int, lengths: tuple[int, ...], constraint: str) -> None:
        told = insert("audit_event", **EVENT, object_id="x")
        parts = [bytes(length) for length in lengths]
        with refused_by(constraint):
            db.execute_sql("INSERT INTO audit_seal VALUES (%s, %s, %s, %s, %s)", (position, told, *parts))

    def test_an_event_is_sealed_once_and_only_one_that_is_there(self) -> None:
        sealed(1)
        [(told,)] = db.rows("SELECT event_id FROM audit_seal")
        again = "INSERT INTO audit_seal SELECT 2, %s, key_id, hash, hash FROM audit_seal"
        with refused_by("audit_seal_event_key"):
            db.execute_sql(again, (told,))
        with refused_by("audit_seal_event_id_fkey"):
            db.execute_sql(again, (clock.new_id(),))

    def test_an_anchor_is_made_of_a_seal(self) -> None:
        sealed(1)
        with refused_by("audit_anchor_sealed"):
            db.execute_sql(
                "INSERT INTO audit_anchor SELECT position, key_id, previous, hash FROM audit_seal"
            )


class TestCommands:
    def run(self, app: Flask, *args: str) -> tuple[int, str]:
        result = app.test_cli_runner().invoke(args=["audit", *args])
        return result.exit_code, result.output

    def test_verify_says_what_it_found(self, app: Flask, patient: None, tamper: Tamper) -> None:
        sealed(2)
        head = audit_chain.head().hash.hex()
        record("v3")
        code, said = self.run(app, "verify", "--head", head)
        assert code == 0 and head in said and "places 1 to 2" in said and "the chain is whole" in said
        tamper("UPDATE audit_event SET actor = 'cli:nobody' WHERE object_id = 'v2'")
        code, said = self.run(app, "verify")
        assert code == 1 and "place 2: the event or its seal was changed" in said and "whole" not in said
        assert self.run(app, "verify", "--head", "00" * 32)[0] == 1
        assert self.run(app, "verify", "--head", "xyz")[0] == 2

    def test_an_export_can_be_checked_and_is_of_its_period(self, app: Flask, patient: None) -> None:
        sealed(2)
        record("v3")
        code, said = self.run(app, "export", "--from", (clock.now() - timedelta(hours=1)).isoformat())
        events = [json.loads(line) for line in said.splitlines()]
        assert code == 0 and [event["object_id"] for event in events] == ["v1", "v2", "v3"]
        assert [event["position"] for event in events] == [1, 2, None]
        assert events[1]["previous"] == events[0]["hash"] != events[1]["hash"]
        assert self.run(app, "export", "--to", "2020-01-01T00:00:00Z") == (0, "")
        assert self.run(app, "export", "--to", "tomorrow")[0] == 2

    def test_prune_keeps_everything_unless_told_how_long(
        self, app: Flask, patient: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        then = clock.now() - timedelta(days=40)
        insert("audit_event", **EVENT, object_id="old", at=then)
        audit_chain.seal()
        assert self.run(app, "prune")[0] == 1
        chosen = Settings(**{**vars(settings), "audit_keep_days": 30})
        monkeypatch.setattr(app.extensions["fleet"], "settings", chosen)
        assert self.run(app, "prune") == (0, "1 events removed\n")
