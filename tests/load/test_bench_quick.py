"""The benchmark's harness measures what it says: real servers, real facts, every answer counted.

Of timings only one is asserted: that nobody waits for 5 s.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet import clock
from fleet.embedded import scratch_databases
from tests.load import renting
from tests.load.arena import Arena, filled, python
from tests.load.backlog import backlog
from tests.load.bars import BARS, Report
from tests.load.contest import Contest, Sample, endless
from tests.load.http_load import drive, request
from tests.load.limit import pgbench
from tests.load.parts import CROWD, MODELS, QUICK, Bench, crowd

pytestmark = pytest.mark.slow

LEFT_BEHIND = """
SELECT count(*), count(block.id), count(record.key), count(promise.id), count(event.id)
FROM rental
LEFT JOIN vehicle_block block ON block.rental_id = rental.id AND block.live
LEFT JOIN outbox promise ON promise.aggregate_id = rental.id AND promise.confirmed_at IS NULL
LEFT JOIN idempotency_record record ON record.headers ->> 'Location' = '/v1/rentals/' || rental.id
LEFT JOIN event ON event.aggregate_id = rental.id AND event.type = 'rental.reserved' AND NOT event.data ? 'customer'
WHERE rental.number LIKE %s
"""
PROMISES_AND_EVENTS = "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM event)"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with scratch_databases() as running, filled(running) as place:
        yield Bench(place, QUICK, Report())


def left_behind(place: Arena, numbers: str) -> set[int]:
    """How many rentals, blocks, stored answers and promises there are for the rentals with such numbers: alike, or not."""
    return set(place.sql(LEFT_BEHIND, (numbers,))[0])


def test_every_reservation_of_the_service_leaves_all_its_facts(bench: Bench) -> None:
    outcome = drive(bench.web, [bench.clerks.reservation() for _ in range(40)], clients=8)
    assert outcome.only(201) and outcome.statuses[201] == 40 == len(outcome.latencies_s)
    assert left_behind(bench.arena, f"RNT-{clock.now().year}-%") == {40}


def test_the_limit_leaves_the_same_facts(bench: Bench) -> None:
    pgbench(bench.arena, clients=2, seconds=1)
    (count,) = left_behind(bench.arena, "RNT-L-%")
    assert count > 0


def test_our_handler_without_layers_leaves_the_same_facts(bench: Bench) -> None:
    before = bench.arena.sql(PROMISES_AND_EVENTS)[0]
    assert drive(bench.flask, [bench.clerks.bare_reservation() for _ in range(20)], clients=4).statuses == {201: 20}
    assert bench.arena.sql(PROMISES_AND_EVENTS)[0] == tuple(count + 20 for count in before)


def test_the_asynchronous_peer_leaves_the_same_facts(bench: Bench) -> None:
    for package in ("asyncpg", "fastapi", "uvicorn", "uvloop", "httptools"):
        pytest.importorskip(package)
    before = bench.arena.sql(PROMISES_AND_EVENTS)[0]
    assert drive(bench.asyncpg, [bench.clerks.bare_reservation() for _ in range(20)], clients=4).statuses == {201: 20}
    assert bench.arena.sql(PROMISES_AND_EVENTS)[0] == tuple(count + 20 for count in before)


def test_reads_are_answered(bench: Bench) -> None:
    paths = [renting.random_vehicle(), renting.random_rental(), renting.random_window(), "/v1/rentals?limit=50"]
    assert drive(bench.web, [bench.clerks.get(path) for path in paths], clients=2).statuses == {200: 4}
    assert drive(bench.flask, [MODELS], clients=1).only(200)


def test_of_five_hundred_clients_for_one_vehicle_one_gets_it(bench: Bench) -> None:
    crowd(bench)
    (answers,) = (result for result in bench.report.results if result.key == "crowd_answers")
    assert answers.measured == CROWD and "{201: 1, 409: 499}, 0 lost" in answers.behind


def test_the_ledger_goes_on_beside_a_backlog_of_letters(bench: Bench) -> None:
    found = backlog(bench.arena, letters=2000, seconds=6)
    assert found.letters > 0 and found.postings > 5 and found.unconfirmed == 0
    assert found.slowest_s < 5


def test_requests_send_few_statements(bench: Bench) -> None:
    output = bench.arena.directory / "statements.json"
    bench.arena.run("statements", python("tests.load.layers", str(output), "statements"))
    sent = json.loads(output.read_text())["statements"]
    assert sent["reservation"] <= 4 and sent["list"] <= 2 and max(sent["vehicle"], sent["rental"]) <= 2


def test_every_answer_is_counted_by_its_status(bench: Bench) -> None:
    outcome = drive(bench.flask, [request("GET", "/nowhere")] * 10, clients=3)
    assert outcome.statuses == {404: 10} and not outcome.only(200)


def test_a_pace_is_kept(bench: Bench) -> None:
    outcome = drive(bench.flask, endless(lambda: request("GET", "/hello")), clients=8, seconds=1.0, pace=20)
    assert 0 < outcome.statuses[200] <= 21


def test_ratios_are_taken_within_a_round() -> None:
    rates = {"a": (1, 10, 30), "b": (2, 40, 30)}
    contest = Contest({name: [Sample(rate, 0, 0) for rate in each] for name, each in rates.items()})
    assert contest.ratio("a", "b") == 0.5 and contest.spread("a", "b") == "0.25–1.00"


def test_a_goal_that_is_not_reached_yet_is_forgiven() -> None:
    report = Report()
    report.add("reservation_8", 0.30, "behind it")
    assert not report.missed and "not yet" in report.table() and "behind it" in report.table()


def test_a_missed_bar_is_told_and_kept(tmp_path: Path) -> None:
    report = Report()
    report.add("memory", 121)
    assert report.missed and "MISSED" in report.table()
    report.keep(tmp_path / "history.jsonl", quick=True)
    report.keep(tmp_path / "history.jsonl", quick=True)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["figures"] for line in lines] == [{"memory": 121}] * 2


def test_more_than_asked_reaches_a_bar_and_less_does_not() -> None:
    assert BARS["list"].reached(0.25, 0.25) and BARS["list"].reached(0.24, 0.25) is False
    assert BARS["memory"].reached(120, 120) and BARS["memory"].reached(121, 120) is False
    assert BARS["availability"].reached(0.1, None) is None
