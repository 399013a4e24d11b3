import re
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from fleet import clock
from fleet.db import db, patience
from fleet.models.availability import AVAILABLE, counting, free, not_overdue, offerable
from fleet.models.base import Condition
from fleet.rules.money import MAX_AMOUNT
from fleet.rules.periods import Period
from tests.cast import Cast, Person, at, insert, iso
from tests.statements import counted


def ask(person: Person, start: datetime, end: datetime, query: str = "") -> Any:
    return person.get(f"/v1/availability?start_at={quote(iso(start))}&end_at={quote(iso(end))}{query}")


def found(cast: Cast, start: datetime, end: datetime, query: str = "") -> list[str]:
    answered = ask(cast.ana, start, end, query)
    assert answered.status_code == 200, answered.json
    return [row["plate_number"] for row in answered.json["data"]]


def taken(vehicle_id: UUID, start: datetime, end: datetime, **values: Any) -> UUID:
    values = {"kind": "manual", "occupied": f"[{iso(start)},{iso(end)})", **values}
    return insert("vehicle_block", vehicle_id=vehicle_id, start_at=start, end_at=end, **values)


def out(cast: Cast, end: datetime) -> None:
    """The Corolla is out, due back at `end`, and its block has not been extended."""
    start = end - timedelta(days=2)
    rental_id = insert(
        "rental", number="RNT-1", status="active", vehicle_id=cast.corolla, customer_id=cast.ana.customer_id,
        start_at=start, end_at=end, actual_start_at=start, start_odometer_km=0, daily_rate=1, currency="EUR",
        base_amount=1, total_amount=1, terms={},
    )  # fmt: skip
    taken(cast.corolla, start, end, kind="rental", rental_id=rental_id)


# --- what is free -----------------------------------------------------------------------------------------------------


def test_a_customer_sees_what_is_free_and_what_it_costs(cast: Cast) -> None:
    row = ask(cast.ana, at(1), at(3)).json["data"][0]
    assert (row["id"], row["plate_number"], row["make"]) == (str(cast.corolla), "AA-11-BB", "Toyota")
    assert (row["daily_rate"], row["currency"], row["days"]) == (4500, "EUR", 2)
    assert (row["base_amount"], row["total_amount"]) == (9000, 9000)
    assert "vin" not in row


def test_a_rate_of_its_own_goes_before_that_of_the_class(cast: Cast) -> None:
    db.execute_sql("UPDATE vehicle SET daily_rate = 7000 WHERE id = %s", (cast.corolla,))
    assert ask(cast.ana, at(1), at(2)).json["data"][0]["total_amount"] == 7000


@pytest.mark.parametrize(
    ("start", "end", "is_free"),
    [
        (1, 3, True),
        (1, 3.5, False),
        # The compacts stand for an hour after each rental, so one that ends on the dot of the block comes too late.
        (1, 4, False),
        (1, 4 - 1 / 24, True),
        (4.25, 4.75, False),
        (3, 6, False),
        (4.5, 6, False),
        (5, 6, True),
    ],
)
def test_a_vehicle_is_free_when_nothing_occupies_it_in_the_padded_window(
    cast: Cast, start: float, end: float, is_free: bool
) -> None:
    taken(cast.corolla, at(4), at(5))
    if (start, end) == (1, 3.5):
        taken(cast.corolla, at(3), at(3.25))
    assert found(cast, at(start), at(end)) == (["AA-11-BB"] if is_free else [])


def test_the_time_before_a_rental_is_kept_free_too(cast: Cast) -> None:
    db.execute_sql("UPDATE vehicle_class SET turnaround_before_minutes = 30 WHERE id = %s", (cast.compact,))
    taken(cast.corolla, at(1), at(2))
    assert found(cast, at(2), at(3)) == []
    assert found(cast, at(2, hours=0.5), at(3)) == ["AA-11-BB"]


def test_a_vehicle_without_a_class_needs_no_turnaround(cast: Cast) -> None:
    loner = cast.vehicle(plate_number="LONER", class_id=None, daily_rate=100)
    for vehicle_id in (loner, cast.corolla):
        taken(vehicle_id, at(2), at(3))
    assert found(cast, at(1), at(2)) == ["LONER"]


def test_history_takes_no_time(cast: Cast) -> None:
    taken(cast.corolla, at(1), at(3), live=False)
    assert found(cast, at(1), at(3)) == ["AA-11-BB"]


def test_only_vehicles_in_service_with_a_rate_are_offered(cast: Cast) -> None:
    cast.vehicle(status="out_of_service")
    cast.vehicle(status="onboarding")
    cast.vehicle(status="sold")
    cast.vehicle(status="out_of_service", retired_at=clock.now())
    cast.vehicle(class_id=insert("vehicle_class", code="X", name="Without a rate", currency="EUR"))
    assert found(cast, at(1), at(3)) == ["AA-11-BB"]


def test_vehicles_are_found_by_class_and_branch(cast: Cast) -> None:
    porto = insert("branch", code="OPO", name="Porto", timezone="Europe/Lisbon", currency="EUR")
    van = insert("vehicle_class", code="VAN", name="Van", currency="EUR", daily_rate=9000)
    cast.vehicle(plate_number="PORTO", branch_id=porto)
    cast.vehicle(plate_number="VAN", class_id=van)
    assert found(cast, at(1), at(2), f"&branch_id={porto}") == ["PORTO"]
    assert found(cast, at(1), at(2), f"&class_id={van}") == ["VAN"]
    assert found(cast, at(1), at(2), f"&class_id={van}&branch_id={porto}") == []
    assert found(cast, at(1), at(2), f"&class_id={uuid4()}") == []


def test_a_vehicle_that_is_late_is_not_free_now_but_next_month(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    out(cast, now - timedelta(hours=2))
    assert found(cast, now + timedelta(minutes=15), at(2)) == []
    assert found(cast, now + timedelta(minutes=16), at(2)) == ["AA-11-BB"]
    assert found(cast, at(30), at(32)) == ["AA-11-BB"]


def test_a_vehicle_that_is_out_in_time_is_free_afterwards(cast: Cast) -> None:
    out(cast, at(1))
    assert found(cast, at(0), at(2)) == []
    assert found(cast, at(1), at(2)) == ["AA-11-BB"]


# --- what it costs ----------------------------------------------------------------------------------------------------


def test_days_are_counted_on_the_clock_of_the_vehicle_s_branch(cast: Cast) -> None:
    """The clocks go back in Lisbon on 31 October 2027: from 10:00 to 10:00 are 25 hours, and one day; in Tokyo two."""
    tokyo = insert("branch", code="TYO", name="Tokyo", timezone="Asia/Tokyo", currency="EUR")
    cast.vehicle(plate_number="NOWHERE", branch_id=None)
    cast.vehicle(plate_number="TOKYO", branch_id=tokyo)
    rows = ask(cast.ana, datetime.fromisoformat("2027-10-30T09:00Z"), datetime.fromisoformat("2027-10-31T10:00Z")).json
    days = {row["plate_number"]: row["days"] for row in rows["data"]}
    assert days == {"AA-11-BB": 1, "TOKYO": 2, "NOWHERE": 2}


def test_the_grace_of_the_house_is_not_charged(cast: Cast) -> None:
    assert ask(cast.ana, at(1), at(2) + timedelta(minutes=59)).json["data"][0]["days"] == 1
    assert ask(cast.ana, at(1), at(2) + timedelta(minutes=60)).json["data"][0]["days"] == 2


def test_a_rate_beyond_every_amount_hides_the_vehicle_and_not_the_list(cast: Cast) -> None:
    cast.vehicle(plate_number="GOLD", daily_rate=MAX_AMOUNT // 3)
    assert found(cast, at(1), at(1, hours=1)) == ["GOLD", "AA-11-BB"]
    assert found(cast, at(1), at(10)) == ["AA-11-BB"]


# --- the question itself ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [
        (1, 1, "period_empty"),
        (2, 1, "period_empty"),
        (1, 1 + 0.5 / 24, "period_too_short"),
        (1, 367, "period_too_long"),
        (-1, 2, "period_in_past"),
    ],
)
def test_a_window_that_could_not_be_rented_is_refused(cast: Cast, start: float, end: float, code: str) -> None:
    refused = ask(cast.ana, at(start), at(end))
    assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, code)


def test_who_may_backdate_may_ask_about_the_past(cast: Cast) -> None:
    assert ask(cast.manager, at(-10), at(-8)).status_code == 200


@pytest.mark.parametrize("query", ["", "?start_at=2027-01-01T10:00:00Z", "?start_at=2027-01-01&end_at=2027-01-02"])
def test_a_window_must_be_whole(cast: Cast, query: str) -> None:
    assert cast.ana.get(f"/v1/availability{query}").status_code == 422


def test_what_is_free_comes_in_pages_without_gaps(cast: Cast) -> None:
    for number in range(4):
        vehicle_id = cast.vehicle(plate_number=f"P{number}")
        if number == 2:
            taken(vehicle_id, at(1), at(2))
    first = ask(cast.ana, at(1), at(2), "&limit=2")
    assert [row["plate_number"] for row in first.json["data"]] == ["P3", "P1"]
    second = cast.ana.get(first.headers["Link"].split(">")[0][1:])
    assert [row["plate_number"] for row in second.json["data"]] == ["P0", "AA-11-BB"]
    assert second.json["next_cursor"] is None


def test_a_cursor_is_good_for_its_own_window_alone(cast: Cast) -> None:
    cast.vehicle()
    cursor = ask(cast.ana, at(1), at(2), "&limit=1").json["next_cursor"]
    assert ask(cast.ana, at(1), at(3), f"&limit=1&cursor={cursor}").json["code"] == "invalid_cursor"


def test_availability_takes_the_same_statements_whatever_its_length(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = counted(monkeypatch)
    for _ in range(30):
        cast.vehicle()
    counts = []
    cast.ana.known()
    for wanted in (3, 30):
        sent.clear()
        assert len(found(cast, at(1), at(2), f"&limit={wanted}")) == wanted
        counts.append(len(sent))
    assert counts == [1, 1]


# --- the plan ---------------------------------------------------------------------------------------------------------

_FLEET = """
INSERT INTO vehicle (id, plate_number, make, model, year, class_id, branch_id, currency)
SELECT gen_random_uuid(), 'N' || n, 'Make', 'Model', 2024, %s, %s, 'EUR' FROM generate_series(1, 2000) n
"""
# A month of history and two weeks ahead for each vehicle.
_HISTORY = """
INSERT INTO vehicle_block (id, vehicle_id, kind, start_at, end_at, occupied, live)
SELECT gen_random_uuid(), vehicle.id, 'manual', spans.start_at, spans.start_at + interval '2 days',
  tstzrange(spans.start_at, spans.start_at + interval '2 days 1 hour'), spans.start_at > now()
FROM vehicle, LATERAL (SELECT now() + n * interval '5 days' AS start_at FROM generate_series(-6, 3) n) spans
"""


def plan(conditions: list[Condition]) -> str:
    where = " AND ".join(f"({condition.sql})" for condition in conditions)
    params = [value for condition in conditions for value in condition.params]
    sql = f"EXPLAIN {AVAILABLE._select} WHERE {where} ORDER BY vehicle.id DESC LIMIT 51"
    return "\n".join(line for (line,) in db.rows(sql, params))


def test_a_page_looks_each_vehicle_up_in_the_index_of_live_blocks_until_it_is_full(cast: Cast) -> None:
    with patience(60):
        db.execute_sql(_FLEET, (cast.compact, cast.lisbon))
        db.execute_sql(_HISTORY)
        for table in ("vehicle", "vehicle_block", "vehicle_class", "branch", "rental"):
            db.execute_sql(f"ANALYZE {table}")
    here = Condition("vehicle.class_id = %s AND vehicle.branch_id = %s", (cast.compact, cast.lisbon))
    for window in (Period(at(1), at(3)), Period(at(0), at(300)), Period(at(20), at(60))):
        for further in ([], [not_overdue(at=clock.now())], [here]):
            explained = plan([offerable(window), free(window), *further])
            assert re.search(r"Index (Only )?Scan using vehicle_block_no_overlap", explained), explained
            assert "Seq Scan on vehicle_block" not in explained, explained
            assert "Sort" not in explained, explained
        sql, params = counting([offerable(window), free(window)])
        counted_so = "\n".join(line for (line,) in db.rows(f"EXPLAIN {sql}", params))
        assert re.search(r"Index (Only )?Scan using vehicle_block_no_overlap", counted_so), counted_so
        assert "Seq Scan on vehicle_block" not in counted_so, counted_so
