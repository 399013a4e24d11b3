"""An act is in the audit log if, and only if, it happened; and what is in it stays."""

import logging
from typing import Any

import pytest

from fleet import logs
from fleet.db import db, patience, transaction
from fleet.models.audit import AuditEvent
from fleet.services import audit
from tests.books import refused_by
from tests.cast import Cast, insert

EVENT: dict[str, Any] = {"actor": "cli:root", "action": "vehicles.sell", "object_type": "vehicle", "object_id": "x"}


def record(**changed: Any) -> None:
    with transaction():
        audit.record("cli:root", "vehicles.sell", "vehicle", "x", **changed)


def the_event() -> AuditEvent:
    [found] = AuditEvent.select()
    return found


class TestRecording:
    def test_an_act_that_is_rolled_back_leaves_no_event(self, cast: Cast) -> None:
        with pytest.raises(ZeroDivisionError), transaction():
            audit.record(cast.admin.actor, "vehicles.sell", "vehicle", cast.corolla)
            raise ZeroDivisionError
        assert AuditEvent.select().count() == 0

    def test_outside_of_a_transaction_nothing_is_recorded(self, cast: Cast) -> None:
        with pytest.raises(RuntimeError):
            audit.record(cast.admin.actor, "vehicles.sell", "vehicle", cast.corolla)
        assert AuditEvent.select().count() == 0

    def test_the_request_and_the_address_come_from_the_context(self, cast: Cast) -> None:
        with logs.context(request_id="req-1", client_address="192.0.2.1"):
            record()
        assert (the_event().request_id, the_event().address) == ("req-1", "192.0.2.1")

    def test_who_knows_better_says_where_it_came_from(self, cast: Cast) -> None:
        logs.enter()
        record(address="cli:root")
        assert (the_event().request_id, the_event().address) == (None, "cli:root")

    def test_an_address_of_any_length_does_not_keep_the_act_from_being_recorded(self, cast: Cast) -> None:
        with logs.context(client_address="x" * 5000):
            record()
        assert the_event().address == "x" * audit.MAX_ADDRESS

    def test_the_address_stands_in_no_log_line(self, cast: Cast, capsys: pytest.CaptureFixture[str]) -> None:
        with logs.context(request_id="req-1", client_address="192.0.2.1"):
            logs.configure("INFO")
            logging.getLogger("fleet.test").info("said")
            logs.configure("WARNING")
        [line] = [line for line in capsys.readouterr().out.splitlines() if '"said"' in line]
        assert "req-1" in line and "192.0.2.1" not in line

    def test_what_is_personal_is_masked(self, cast: Cast) -> None:
        record(before={"email": "ana@example.com", "status": "active"}, after={"status": "erased"})
        assert the_event().before == {"email": "***", "status": "active"}
        assert the_event().after == {"status": "erased"}

    def test_a_user_a_key_and_a_machine_have_each_their_name(self, cast: Cast) -> None:
        assert audit.name_of(cast.admin.actor) == f"user:{cast.admin.user_id}"
        assert audit.name_of("system:beat") == "system:beat"


class TestKeeping:
    @pytest.mark.parametrize(
        "sql",
        ["UPDATE audit_event SET actor = 'cli:nobody'", "DELETE FROM audit_event", "TRUNCATE audit_event CASCADE"],
    )
    def test_what_is_in_the_log_stays_as_it_is(self, cast: Cast, sql: str) -> None:
        record()
        with refused_by("audit_event_kept"):
            db.execute_sql(sql)
        assert the_event().actor == "cli:root"

    @pytest.mark.parametrize(
        ("changed", "constraint"),
        [
            ({"actor": "root"}, "audit_event_actor"),
            ({"actor": "user:"}, "audit_event_actor"),
            ({"actor": "cli:" + "x" * 200}, "audit_event_actor"),
            ({"action": "sell"}, "audit_event_action"),
            ({"action": "vehicles.Sell"}, "audit_event_action"),
            ({"object_type": "Vehicle 1"}, "audit_event_object"),
            ({"object_id": ""}, "audit_event_object"),
            ({"request_id": "x" * 201}, "audit_event_origin"),
            ({"address": "x" * 201}, "audit_event_origin"),
        ],
    )
    def test_an_event_is_whole_and_bounded(self, cast: Cast, changed: dict[str, str], constraint: str) -> None:
        with refused_by(constraint):
            insert("audit_event", **{**EVENT, **changed})

    @pytest.mark.parametrize("column", ["before", "after"])
    def test_a_state_is_an_object(self, cast: Cast, column: str) -> None:
        with refused_by("audit_event_states"):
            db.execute_sql(
                f"""INSERT INTO audit_event (id, actor, action, object_type, object_id, {column})
                VALUES (gen_random_uuid(), 'cli:root', 'vehicles.sell', 'vehicle', 'x', '[1]')"""
            )


@pytest.mark.parametrize("filtered", ["actor", "object"])
def test_a_page_of_the_log_is_found_by_its_index(cast: Cast, filtered: str) -> None:
    with patience(60):
        db.execute_sql(
            """INSERT INTO audit_event (id, actor, action, object_type, object_id)
            SELECT gen_random_uuid(), 'user:' || n %% 500, 'vehicles.sell', 'vehicle', 'v' || n %% 900
            FROM generate_series(1, 20000) AS n"""
        )
        db.execute_sql("ANALYZE audit_event")
    where = {"actor": "actor = 'user:7'", "object": "object_type = 'vehicle' AND object_id = 'v7'"}[filtered]
    plan = db.rows(f"EXPLAIN SELECT * FROM audit_event WHERE {where} ORDER BY id DESC LIMIT 51")
    assert f"audit_event_by_{filtered}" in f"{plan}"
