"""The checker complains: histories that no service may leave behind, and databases that somebody broke."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from fleet import clock
from fleet.embedded import Databases
from tests.books import posted
from tests.cast import Cast, at, iso
from tests.faults.checker import check, letters_twice
from tests.faults.drills import Drill
from tests.faults.evidence import Evidence, Sql
from tests.faults.history import Exchange, History
from tests.faults.performance import Outcome, out_of_bounds
from tests.faults.run import table

ANSWERED = Exchange("drill", "drill/1", "reserve", "/v1/rentals", "key-1", {}, 0.0, 0.1, 201, None, "{}")
KEY = "key-1"


def said(evidence: Evidence) -> set[str]:
    """The findings as text."""
    return {f"{finding}" for finding in check(evidence)}


def nothing(*_: Any) -> list[tuple[Any, ...]]:
    return []


def refused(code: str, status: int = 409) -> Exchange:
    return replace(ANSWERED, status=status, answer=json.dumps({"code": code}))


class TestHistories:
    """Answers alone, before an empty database."""

    def wrong(self, *exchanges: Exchange) -> set[str]:
        return {text for text in said(Evidence(exchanges, nothing)) if text.startswith("wrong")}

    def test_a_key_with_two_answers(self) -> None:
        assert self.wrong(ANSWERED, replace(ANSWERED, answer='{"id": 2}')) == {
            "wrong: key key-1 got different answers from /v1/rentals"
        }

    def test_a_key_that_was_granted_and_refused(self) -> None:
        assert "wrong: key key-1 got different answers from /v1/rentals" in self.wrong(ANSWERED, refused("rental_overlap"))

    def test_what_is_no_answer_yet_is_no_second_answer(self) -> None:
        passing = [replace(ANSWERED, status=None, answer=""), replace(ANSWERED, status=503, retry_after="1", answer="")]
        assert self.wrong(*passing, refused("idempotency_in_progress"), ANSWERED) == set()

    @pytest.mark.parametrize(
        ("status", "retry_after"), [(500, None), (502, "1"), (504, "1"), (503, None), (503, ""), (503, "soon")]
    )
    def test_a_failure_that_is_no_503_with_retry_after(self, status: int, retry_after: str | None) -> None:
        failed = replace(ANSWERED, status=status, retry_after=retry_after, answer="")
        assert self.wrong(failed) == {f"wrong: reserve with key key-1: {status} Retry-After {retry_after}"}

    @pytest.mark.parametrize(("status", "code"), [(401, "unauthenticated"), (404, "not_found"), (409, "invalid_state")])
    def test_a_refusal_that_nobody_had_to_expect(self, status: int, code: str) -> None:
        assert self.wrong(refused(code, status)) == {f"wrong: reserve with key key-1: {status} {code}"}


@pytest.fixture
def sql(cast: Cast, databases: Databases) -> Iterator[Sql]:
    """One transaction of somebody whom no trigger stops; all of it is undone in the end, dropped constraints included."""
    connection = psycopg2.connect(databases.superuser_url)
    cursor = connection.cursor()

    def run(statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        cursor.execute(statement, values)
        return cursor.fetchall() if cursor.description else []

    run("SET session_replication_role = replica")
    run("CREATE TABLE drill_effect (message_id uuid NOT NULL)")
    yield run
    connection.rollback()
    connection.close()


def keep_all_promises(sql: Sql) -> dict[str, int]:
    """Let every promise be kept; returns the letters that arrive then."""
    sql("INSERT INTO inbox (consumer, message_id) SELECT topic, id FROM outbox ON CONFLICT DO NOTHING")
    sql("UPDATE outbox SET confirmed_at = now() WHERE dead_at IS NULL")
    order = "SELECT id, row_number() OVER (ORDER BY insert_order) AS nth FROM event"
    sql(f"UPDATE event SET position = nth FROM ({order}) AS placed WHERE event.id = placed.id")
    return {promise: 1 for (promise,) in sql("SELECT id::text FROM outbox WHERE queue = 'notifications'")}


@pytest.fixture
def reserved(cast: Cast) -> Exchange:
    """A reservation as a drill makes one, with its exchange."""
    body = {
        "vehicle_id": f"{cast.corolla}",
        "customer_id": f"{cast.ana.customer_id}",
        "start_at": iso(at(days=2)),
        "end_at": iso(at(days=3)),
        "notes": KEY,
    }
    answer = cast.agent.post("/v1/rentals", body, key=KEY)
    assert answer.status_code == 201
    return replace(ANSWERED, sent=body, answer=answer.text)


@pytest.fixture
def evidence(reserved: Exchange, sql: Sql) -> Evidence:
    """One reservation, its letter, and nothing wrong."""
    return Evidence([reserved], sql, letters=keep_all_promises(sql))


def promise(sql: Sql, topic: str = "drills.work", *, ended: str | None = None, received: bool = True) -> str:
    """A promise that `ended` as this column says; received by its consumer where it was kept."""
    identity = f"{clock.new_id()}"
    sql(
        "INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id) VALUES (%s, %s, 'default', 'drill', %s)",
        (identity, topic, identity),
    )
    if ended:
        sql(f"UPDATE outbox SET {ended} = now() WHERE id = %s", (identity,))
    if ended == "confirmed_at" and received:
        sql("INSERT INTO inbox (consumer, message_id) VALUES (%s, %s)", (topic, identity))
    return identity


def copy(sql: Sql, table: str, **changes: Any) -> None:
    """A second one of every row, under another id."""
    sql(
        f"""INSERT INTO {table} SELECT (jsonb_populate_record(r, %s || jsonb_build_object('id', gen_random_uuid()))).*
        FROM {table} r""",
        (json.dumps(changes),),
    )


class TestReservations:
    """One sound reservation, then one thing broken behind the back of every constraint."""

    def test_a_sound_one_is_let_pass(self, evidence: Evidence) -> None:
        assert check(evidence) == []

    @pytest.mark.parametrize(
        ("broken_by", "finding"),
        [
            ("DELETE FROM rental", "lost: the reservation of key key-1 was acknowledged and does not exist"),
            ("DELETE FROM vehicle_block", "lost: 0 × block in the calendar for the reservation of key key-1"),
            ("DELETE FROM idempotency_record", "lost: 0 × stored answer for the reservation of key key-1"),
            ("DELETE FROM outbox", "lost: 0 × promised letter for the reservation of key key-1"),
            (
                "UPDATE rental SET vehicle_id = gen_random_uuid()",
                "wrong: the rental of key key-1 is another one than was acknowledged",
            ),
        ],
    )
    def test_an_acknowledged_one_that_is_not_whole(self, broken_by: str, finding: str, evidence: Evidence) -> None:
        evidence.sql(broken_by)
        assert finding in said(evidence)

    def test_one_that_exists_twice_whether_anybody_was_told_or_not(self, evidence: Evidence) -> None:
        copy(evidence.sql, "rental", number="RNT-2")
        assert "duplicated: 2 rentals for key key-1" in said(evidence)
        evidence.exchanges = [replace(ANSWERED, status=None, answer="")]
        assert "duplicated: 2 rentals for key key-1" in said(evidence)

    def test_one_that_was_promised_twice(self, evidence: Evidence) -> None:
        copy(evidence.sql, "outbox")
        assert "duplicated: 2 × promised letter for the reservation of key key-1" in said(evidence)

    def test_a_refused_one_that_exists(self, evidence: Evidence) -> None:
        evidence.exchanges = [refused("rental_overlap")]
        assert "wrong: key key-1 was refused, and its rental exists" in said(evidence)

    def test_one_that_nobody_asked_for(self, evidence: Evidence) -> None:
        evidence.exchanges = []
        assert "wrong: a rental with the notes key-1 exists, for which nobody asked" in said(evidence)

    def test_one_without_an_answer_may_be_there_or_not(self, evidence: Evidence) -> None:
        evidence.exchanges = [replace(ANSWERED, status=None, answer="")]
        assert check(evidence) == []

    def test_a_vehicle_that_is_taken_twice(self, evidence: Evidence) -> None:
        evidence.sql("ALTER TABLE vehicle_block DROP CONSTRAINT vehicle_block_no_overlap")
        copy(evidence.sql, "vehicle_block", rental_id=f"{clock.new_id()}")
        [text] = said(evidence)
        assert text.startswith("duplicated: vehicle") and "is taken twice" in text


class TestPromises:
    def test_one_that_never_ended(self, evidence: Evidence) -> None:
        left = promise(evidence.sql)
        assert said(evidence) == {f"lost: promise {left} of drills.work has not ended"}

    def test_a_dead_one_that_is_no_poison(self, evidence: Evidence) -> None:
        dead = promise(evidence.sql, ended="dead_at")
        assert said(evidence) == {f"lost: promise {dead} of drills.work is dead and no poison"}
        evidence.poison = frozenset({dead})
        assert check(evidence) == []

    def test_poison_that_lives(self, evidence: Evidence) -> None:
        kept = promise(evidence.sql, ended="confirmed_at")
        evidence.poison = frozenset({kept})
        assert f"wrong: promise {kept} is poison and not dead" in said(evidence)

    def test_a_kept_one_without_its_effect(self, evidence: Evidence) -> None:
        kept = promise(evidence.sql, ended="confirmed_at")
        assert said(evidence) == {f"lost: promise {kept} took effect 0 times"}

    def test_a_kept_one_that_its_consumer_never_received(self, evidence: Evidence) -> None:
        topic = "accounting.post_invoice"
        kept = promise(evidence.sql, topic, ended="confirmed_at", received=False)
        assert said(evidence) == {f"lost: promise {kept} of {topic} is 0 times in the inbox"}

    def test_one_that_was_received_and_not_kept(self, evidence: Evidence) -> None:
        dead = promise(evidence.sql, ended="dead_at")
        evidence.poison = frozenset({dead})
        evidence.sql("INSERT INTO inbox (consumer, message_id) VALUES ('drills.work', %s)", (dead,))
        assert said(evidence) == {f"wrong: promise {dead} of drills.work is 1 times in the inbox"}

    @pytest.mark.parametrize(
        ("ended", "times", "kind"), [("confirmed_at", 2, "duplicated"), ("dead_at", 1, "wrong"), ("dead_at", 2, "duplicated")]
    )
    def test_an_effect_too_many(self, ended: str, times: int, kind: str, evidence: Evidence) -> None:
        one = promise(evidence.sql, ended=ended)
        evidence.poison = frozenset({one} if ended == "dead_at" else ())
        for _ in range(times):
            evidence.sql("INSERT INTO drill_effect VALUES (%s)", (one,))
        assert said(evidence) == {f"{kind}: promise {one} took effect {times} times"}

    def test_a_letter_that_never_arrived_and_one_that_nobody_promised(self, evidence: Evidence) -> None:
        [letter] = evidence.letters
        evidence.letters = {"another": 1}
        assert said(evidence) == {
            f"lost: letter {letter} counts as sent and never arrived",
            "wrong: letter another arrived, which nobody promised",
        }

    def test_a_letter_that_came_again_is_counted_and_allowed(self, evidence: Evidence) -> None:
        [letter] = evidence.letters
        evidence.letters = {letter: 3}
        assert (check(evidence), letters_twice(evidence)) == ([], 2)


class TestBooks:
    def test_an_invoice_without_its_entry(self, cast: Cast, sql: Sql) -> None:
        invoice = posted(cast)
        evidence = Evidence([], sql, letters=keep_all_promises(sql))
        assert check(evidence) == []
        sql("DELETE FROM journal_entry")
        assert said(evidence) == {f"lost: invoice {invoice.number} has 0 ledger entries"}

    def test_an_invoice_with_two_entries(self, cast: Cast, sql: Sql) -> None:
        invoice = posted(cast)
        sql("ALTER TABLE journal_entry DROP CONSTRAINT journal_entry_source_key")
        copy(sql, "journal_entry")
        found = said(Evidence([], sql, letters=keep_all_promises(sql)))
        assert found == {f"duplicated: invoice {invoice.number} has 2 ledger entries"}

    def test_what_the_services_own_proof_says(self, sql: Sql) -> None:
        assert said(Evidence([], sql, books="1 wrong")) == {"wrong: the books do not prove: 1 wrong"}

    @pytest.mark.parametrize("operation", ["activate", "complete"])
    def test_a_step_that_was_acknowledged_and_is_not_there(self, operation: str, evidence: Evidence) -> None:
        step = replace(evidence.exchanges[0], operation=operation, path="/v1/rentals/1", key="key-2")
        evidence.exchanges = [*evidence.exchanges, step]
        assert f"lost: {operation} with key key-2 was acknowledged, and the rental is None" in said(evidence)

    def test_a_return_without_its_invoice_with_two_or_over_another_amount(self, cast: Cast, sql: Sql) -> None:
        invoice = posted(cast)
        answer = json.dumps({"id": f"{invoice.rental_id}", "total_amount": invoice.net_amount})
        returned = replace(ANSWERED, operation="complete", path="/v1/rentals/1/complete", answer=answer)
        sql(
            """INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
            VALUES (gen_random_uuid(), 'rental.completed', now(), 'rental', %s, '{}')""",
            (invoice.rental_id,),
        )
        evidence = Evidence([returned], sql, letters=keep_all_promises(sql))
        assert check(evidence) == []
        sql("UPDATE invoice SET net_amount = net_amount + 1, total_amount = total_amount + 1")
        assert said(evidence) == {"wrong: the invoice for the return of key key-1 is over another amount"}
        copy(sql, "invoice", number="INV-2")
        assert "duplicated: 2 invoices for the return of key key-1" in said(evidence)
        sql("DELETE FROM invoice")
        assert "lost: 0 invoices for the return of key key-1" in said(evidence)


def test_a_drill_with_a_finding_fails_in_the_table_and_one_without_holds() -> None:
    finding = check(Evidence([replace(ANSWERED, status=500)], nothing))
    held, failed = table([Outcome("one"), Outcome("another", findings=finding)]).splitlines()[2:]
    assert held.endswith("held") and failed.endswith("FAILED")


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        ({"web_s": 9}, "not recovered: the first success"),
        ({"settled_s": 31}, "not recovered: promises were open"),
        ({"slowest_s": 8}, "an answer took 8.0 s"),
        ({"unavailable": 1}, "clients noticed: 1 × 503"),
        ({"cut": 1}, "1 connections cut"),
    ],
)
def test_a_drill_out_of_its_bounds(seen: dict[str, Any], complaint: str) -> None:
    strict = Drill("one", lambda scene: None, web_s=5, settled_s=30, calm=True, slowest_s=5, boots=1, drops=0)
    assert not list(out_of_bounds(strict, Outcome("one", web_s=5, settled_s=30, slowest_s=7), boot_s=2))
    [said_of_it] = out_of_bounds(strict, Outcome("one", **seen), boot_s=2)
    assert complaint in said_of_it


def test_a_history_keeps_what_was_sent_and_seen(tmp_path: Path) -> None:
    history = History()
    history.add(ANSWERED)
    history.add(replace(ANSWERED, drill="another", status=None, thrown_away=True))
    history.write(tmp_path / "exchanges.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "exchanges.jsonl").read_text().splitlines()]
    assert [(line["drill"], line["key"], line["status"]) for line in lines] == [("drill", KEY, 201), ("another", KEY, None)]
    assert [seen.cut for seen in history.exchanges] == [False, False]
    assert history.of_drill("another") == history.exchanges[1:]
