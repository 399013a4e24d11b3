"""What the calendar offers instead of a taken vehicle, and how late vehicles keep blocking it."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from fleet import clock
from fleet.db import db
from fleet.rules.periods import Period
from fleet.services import calendar
from tests.cast import Cast, at, insert, iso

MINUTE = timedelta(minutes=1)


def block(vehicle_id: UUID, start: datetime, end: datetime, **values: Any) -> UUID:
    """A manual block unless `values` say otherwise; `turnaround` is kept free behind it."""
    until = end + values.pop("turnaround", timedelta())
    values = {"kind": "manual", "occupied": f"[{iso(start)},{iso(until)})", **values}
    return insert("vehicle_block", vehicle_id=vehicle_id, start_at=start, end_at=end, **values)


def late(cast: Cast, vehicle_id: UUID, end: datetime, *, turnaround: timedelta = timedelta(hours=1)) -> UUID:
    """An active rental that was due at `end`; returns its block."""
    start = end - timedelta(days=2)
    rental_id = insert(
        "rental", number=f"RNT-{uuid4()}", status="active", vehicle_id=vehicle_id, customer_id=cast.ana.customer_id,
        start_at=start, end_at=end, actual_start_at=start, start_odometer_km=0, daily_rate=1, currency="EUR",
        base_amount=1, total_amount=1, terms={},
    )  # fmt: skip
    return block(vehicle_id, start, end, kind="rental", rental_id=rental_id, turnaround=turnaround)


def ends(block_id: UUID) -> tuple[datetime, datetime]:
    """The end of a block, and of what it occupies."""
    row = db.one("SELECT end_at, upper(occupied) FROM vehicle_block WHERE id = %s", (block_id,))
    assert row is not None
    return row[0], row[1]


def offered(cast: Cast, start: datetime, end: datetime, **values: Any) -> dict[str, Any]:
    asked = {"vehicle_id": cast.corolla, "class_id": cast.compact, "branch_id": cast.lisbon, **values}
    return calendar.alternatives(**asked, period=Period(start, end))


def window(cast: Cast, start: datetime, end: datetime, **values: Any) -> Any:
    found = offered(cast, start, end, **values)["nearest_window"]
    return None if found is None else (found["start_at"], found["end_at"])


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> datetime:
    """A clock that stands still."""
    instant = clock.now()
    monkeypatch.setattr(clock, "now", lambda: instant)
    return instant


# --- alternatives -----------------------------------------------------------------------------------------------------


def test_other_free_vehicles_of_the_class_are_offered_with_their_price(cast: Cast) -> None:
    own_rate = cast.vehicle(plate_number="OWN", daily_rate=9900)
    busy = cast.vehicle(plate_number="BUSY")
    block(busy, at(1), at(3))
    cast.vehicle(plate_number="OUT", status="out_of_service")
    cast.vehicle(plate_number="GONE", status="out_of_service", retired_at=clock.now())
    cast.vehicle(plate_number="VAN", class_id=insert("vehicle_class", code="VAN", name="Van", currency="EUR", daily_rate=1))
    clio = cast.vehicle(plate_number="CLIO")
    clio_of_class = {"make": "Renault", "model": "Clio", "currency": "EUR"}
    assert offered(cast, at(2), at(4))["vehicles"] == [
        {"id": str(clio), "plate_number": "CLIO", "daily_rate": 4500, **clio_of_class},
        {"id": str(own_rate), "plate_number": "OWN", "daily_rate": 9900, **clio_of_class},
    ]


def test_a_branch_offers_its_own_vehicles_and_none_offers_all(cast: Cast) -> None:
    porto = insert("branch", code="OPO", name="Porto", timezone="Europe/Lisbon", currency="EUR")
    cast.vehicle(plate_number="PORTO", branch_id=porto)
    cast.vehicle(plate_number="LISBON")
    here = offered(cast, at(2), at(4))["vehicles"]
    anywhere = offered(cast, at(2), at(4), branch_id=None)["vehicles"]
    assert [one["plate_number"] for one in here] == ["LISBON"]
    assert [one["plate_number"] for one in anywhere] == ["LISBON", "PORTO"]


def test_no_more_alternatives_are_offered_than_asked_for(cast: Cast) -> None:
    for _ in range(7):
        cast.vehicle()
    assert len(offered(cast, at(2), at(4))["vehicles"]) == 5
    assert len(offered(cast, at(2), at(4), limit=2)["vehicles"]) == 2


def test_a_vehicle_without_a_class_has_no_others_like_it(cast: Cast) -> None:
    cast.vehicle()
    assert offered(cast, at(2), at(4), class_id=None)["vehicles"] == []


def test_the_turnaround_of_a_class_counts_for_its_alternatives(cast: Cast) -> None:
    clio = cast.vehicle()
    block(clio, at(4), at(5))
    assert offered(cast, at(2), at(4))["vehicles"] == []
    assert [one["id"] for one in offered(cast, at(2), at(4, hours=-1))["vehicles"]] == [str(clio)]


HOUR = 1 / 24


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ([], 5),
        ([(5, 7)], 7),
        ([(5.5, 6)], 6),
        # Before a block there must be room for the hour of turnaround of a compact, too.
        ([(5, 9)], 3 - HOUR),
        ([(4.5, 5), (7, 9)], 2.5 - HOUR),
        ([(4.5, 5), (7 + HOUR, 9)], 5),
        # The gap is too short, and what is over is not offered.
        ([(0, 3), (4.5, 9)], 9),
    ],
)
def test_the_nearest_free_window_is_found_on_either_side(cast: Cast, taken: list[tuple[float, float]], expected: float) -> None:
    for first, last in taken:
        block(cast.corolla, at(first), at(last))
    assert window(cast, at(5), at(7)) == (at(expected), at(expected + 2))


def test_a_window_that_was_asked_for_too_late_may_start_now(cast: Cast, now: datetime) -> None:
    block(cast.corolla, now - timedelta(hours=3), now - 10 * MINUTE)
    assert window(cast, now - 30 * MINUTE, now + timedelta(days=1)) == (now, now + timedelta(days=1, minutes=30))


def test_only_live_blocks_of_the_vehicle_itself_are_in_the_way(cast: Cast) -> None:
    block(cast.corolla, at(5), at(7), live=False)
    block(cast.vehicle(), at(5), at(7))
    assert window(cast, at(5), at(7)) == (at(5), at(7))


def test_a_rental_that_is_being_moved_is_not_in_its_own_way(cast: Cast) -> None:
    block_id = late(cast, cast.corolla, at(6))
    (rental_id,) = db.one("SELECT rental_id FROM vehicle_block WHERE id = %s", (block_id,)) or ()
    assert window(cast, at(5), at(7)) == (at(6, hours=1), at(8, hours=1))
    assert window(cast, at(5), at(7), rental_id=rental_id) == (at(5), at(7))


def test_a_vehicle_that_is_late_is_offered_for_later(cast: Cast, now: datetime) -> None:
    late(cast, cast.corolla, now - timedelta(hours=2), turnaround=timedelta())
    assert window(cast, now, now + timedelta(days=1)) == (now + 30 * MINUTE, now + timedelta(days=1, minutes=30))
    late(cast, clio := cast.vehicle(), now - timedelta(hours=2))
    assert offered(cast, now, now + timedelta(days=1))["vehicles"] == []
    assert [one["id"] for one in offered(cast, at(5), at(7))["vehicles"]] == [str(clio)]


def test_a_vehicle_out_of_service_has_no_window(cast: Cast) -> None:
    db.execute_sql("UPDATE vehicle SET status = 'out_of_service' WHERE id = %s", (cast.corolla,))
    assert window(cast, at(5), at(7)) is None


# --- late vehicles ----------------------------------------------------------------------------------------------------


def test_a_late_vehicle_keeps_blocking_its_calendar(cast: Cast, now: datetime) -> None:
    block_id = late(cast, cast.corolla, now - timedelta(hours=5))
    assert calendar.extend_overdue() == 1
    assert ends(block_id) == (now + 15 * MINUTE, now + 75 * MINUTE)


def test_a_second_sweep_finds_nothing_to_do(cast: Cast, now: datetime) -> None:
    late(cast, cast.corolla, now - MINUTE)
    assert [calendar.extend_overdue(), calendar.extend_overdue()] == [1, 0]


def test_sweeps_follow_the_clock(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    start = clock.now()
    block_id = late(cast, cast.corolla, start)
    for minutes in (0, 10, 60):
        instant = start + minutes * MINUTE
        monkeypatch.setattr(clock, "now", lambda instant=instant: instant)
        assert calendar.extend_overdue() == 1
        assert ends(block_id)[0] == instant + 15 * MINUTE


def test_a_rental_that_is_not_due_yet_keeps_its_block(cast: Cast, now: datetime) -> None:
    block_id = late(cast, cast.corolla, now + MINUTE)
    assert calendar.extend_overdue() == 0
    assert ends(block_id) == (now + MINUTE, now + 61 * MINUTE)


def test_what_has_come_back_or_never_left_is_not_late(cast: Cast, now: datetime) -> None:
    back = late(cast, cast.corolla, now - timedelta(hours=5))
    db.execute_sql("UPDATE vehicle_block SET live = false WHERE id = %s", (back,))
    reserved = late(cast, cast.vehicle(), now - timedelta(hours=5))
    db.execute_sql("UPDATE vehicle_block SET kind = 'reservation' WHERE id = %s", (reserved,))
    by_hand = block(cast.vehicle(), now - timedelta(days=2), now - timedelta(days=1))
    before = [ends(one) for one in (back, reserved, by_hand)]
    assert calendar.extend_overdue() == 0
    assert [ends(one) for one in (back, reserved, by_hand)] == before


def test_a_late_vehicle_does_not_eat_into_the_next_booking(cast: Cast, now: datetime) -> None:
    block_id = late(cast, cast.corolla, now - 2 * MINUTE, turnaround=3 * MINUTE)
    block(cast.corolla, now + 5 * MINUTE, now + timedelta(days=1))
    assert calendar.extend_overdue() == 1
    assert ends(block_id) == (now + 5 * MINUTE, now + 5 * MINUTE)
    assert calendar.extend_overdue() == 0


def test_turnaround_time_gives_way_before_the_lateness_does(cast: Cast, now: datetime) -> None:
    block_id = late(cast, cast.corolla, now - 2 * MINUTE)
    block(cast.corolla, now + 58 * MINUTE, now + timedelta(days=1))
    assert calendar.extend_overdue() == 1
    assert ends(block_id) == (now + 15 * MINUTE, now + 58 * MINUTE)


def test_every_late_vehicle_is_seen_to(cast: Cast, now: datetime) -> None:
    blocks = [late(cast, cast.vehicle(), now - number * MINUTE) for number in range(1, 6)]
    assert calendar.extend_overdue() == 5
    assert {ends(block_id)[0] for block_id in blocks} == {now + 15 * MINUTE}
