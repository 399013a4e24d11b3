"""Vehicles that are sold, retired or read off, and classes that lose their rate, while somebody counts on them."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fleet import clock
from fleet.db import atomic, db
from fleet.services import calendar
from tests.cast import Cast, at, insert, iso
from tests.races.meeting import Meeting
from tests.races.mutation import without
from tests.races.scenes import blocking, count, overlaps, selling, sold_and_taken
from tests.races.together import together

YARIS = {"plate_number": "CC-22-DD", "make": "Toyota", "model": "Yaris", "year": 2025}


def removing(cast: Cast, version: int = 1) -> Callable[[], Any]:
    return lambda: cast.manager.delete(f"/v1/vehicles/{cast.corolla}", version=str(version))


def reading_off(cast: Cast, km: int, hours_ago: float = 1) -> Callable[[], Any]:
    body = {"reading_km": km, "measured_at": iso(clock.now() - timedelta(hours=hours_ago))}
    return lambda: cast.agent.post(f"/v1/vehicles/{cast.corolla}/odometer-readings", body)


def registering(cast: Cast) -> Callable[[], Any]:
    """A vehicle that is priced by its class."""
    return lambda: cast.manager.post("/v1/vehicles", {**YARIS, "class_id": str(lone_class(cast))})


def changing_class(cast: Cast, **changes: Any) -> Callable[[], Any]:
    return lambda: cast.manager.patch(f"/v1/vehicle-classes/{lone_class(cast)}", changes, version="1")


def lone_class(cast: Cast) -> Any:
    """The class of no vehicle yet."""
    rows = db.rows("SELECT id FROM vehicle_class WHERE code = 'LONE'")
    return rows[0][0] if rows else insert("vehicle_class", code="LONE", name="Lone", daily_rate=4000, currency="EUR")


def unpriced() -> int:
    """How many vehicles have no rate anywhere."""
    return count("""vehicle JOIN vehicle_class ON vehicle_class.id = class_id
        WHERE vehicle.daily_rate IS NULL AND vehicle_class.daily_rate IS NULL""")


# --- sold or taken ----------------------------------------------------------------------------------------------------


def test_a_vehicle_is_not_sold_while_somebody_takes_its_time(cast: Cast, meet: Meeting) -> None:
    block, sale = meet(blocking(cast), selling(cast))
    assert sold_and_taken() == 0, "sold and taken"
    assert (block.said, sale.said) == ((201, None), (409, "invalid_state"))


def test_a_vehicle_is_not_taken_while_it_is_sold(cast: Cast, meet: Meeting) -> None:
    sale, block = meet(selling(cast), blocking(cast))
    assert sold_and_taken() == 0, "sold and taken"
    assert (sale.said, block.said) == ((200, None), (409, "invalid_state"))


def test_a_vehicle_that_is_being_sold_is_looked_at_again_before_it_is_blocked(cast: Cast, meet: Meeting) -> None:
    block, sale = meet(blocking(cast), selling(cast), before="INSERT INTO vehicle_block")
    assert sold_and_taken() == 0, "sold and taken"
    assert (block.said, sale.said) == ((201, None), (409, "invalid_state"))


@pytest.mark.parametrize(
    ("lock", "race"),
    [
        ("vehicle_for_update", test_a_vehicle_is_not_sold_while_somebody_takes_its_time),
        ("VEHICLE_TO_BLOCK_FOR_SHARE", test_a_vehicle_is_not_taken_while_it_is_sold),
        ("VEHICLE_TO_BLOCK_FOR_SHARE", test_a_vehicle_that_is_being_sold_is_looked_at_again_before_it_is_blocked),
    ],
)
def test_without_the_lock_a_vehicle_is_sold_and_taken(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, lock: str, race: Callable[..., None]
) -> None:
    with without(monkeypatch, lock), pytest.raises(AssertionError, match="sold and taken"):
        race(cast, meet)


# --- removed or used --------------------------------------------------------------------------------------------------


def test_a_vehicle_is_not_removed_while_somebody_takes_its_time(cast: Cast, meet: Meeting) -> None:
    block, removal = meet(blocking(cast), removing(cast))
    assert (block.said, removal.said) == ((201, None), (409, "invalid_state"))


def test_a_vehicle_that_is_being_removed_is_not_there_to_be_blocked(cast: Cast, meet: Meeting) -> None:
    removal, block = meet(removing(cast), blocking(cast))
    assert (removal.said, block.said) == ((204, None), (404, "not_found"))


def test_a_vehicle_is_not_removed_while_its_first_reading_is_written(cast: Cast, meet: Meeting) -> None:
    reading, removal = meet(reading_off(cast, 100), removing(cast))
    assert (reading.said, removal.said) == ((201, None), (412, "version_conflict"))


def test_a_vehicle_that_is_being_removed_is_not_there_to_be_read_off(cast: Cast, meet: Meeting) -> None:
    removal, reading = meet(removing(cast), reading_off(cast, 100))
    assert (removal.said, reading.said) == ((204, None), (404, "not_found"))


# --- one odometer -----------------------------------------------------------------------------------------------------


def test_two_readings_that_contradict_each_other_are_not_both_written(cast: Cast, meet: Meeting) -> None:
    """Both are of the past, below what the odometer shows by now: the vehicle's version does not tell them apart."""
    db.execute_sql("UPDATE vehicle SET odometer_km = 5000")
    one, other = meet(reading_off(cast, 2000, hours_ago=2), reading_off(cast, 1000, hours_ago=1))
    assert count("odometer_reading") == 1, "both written"
    assert (one.said, other.said) == ((201, None), (409, "odometer_out_of_sequence"))


def test_the_database_keeps_readings_in_order_whoever_forgets_to_lock(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without(monkeypatch, "vehicle_for_update"):
        test_two_readings_that_contradict_each_other_are_not_both_written(cast, meet)


def test_without_either_lock_two_readings_contradict_each_other(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        without(monkeypatch, "vehicle_for_update"),
        without(monkeypatch, "guard_odometer"),
        pytest.raises(AssertionError, match="both written"),
    ):
        test_two_readings_that_contradict_each_other_are_not_both_written(cast, meet)


# --- a price for everybody --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"daily_rate": None}, {"currency": "CHF"}])
def test_a_class_keeps_the_price_that_a_vehicle_is_being_registered_at(
    cast: Cast, meet: Meeting, changes: dict[str, Any]
) -> None:
    lone_class(cast)
    registration, change = meet(registering(cast), changing_class(cast, **changes), before='INSERT INTO "vehicle"')
    assert unpriced() == 0, "a vehicle without a price"
    assert (registration.said, change.said) == ((201, None), (409, "in_use"))


def test_a_vehicle_is_not_registered_at_a_price_that_is_being_taken_back(cast: Cast, meet: Meeting) -> None:
    lone_class(cast)
    change, registration = meet(changing_class(cast, daily_rate=None), registering(cast), before='UPDATE "vehicle_class"')
    assert unpriced() == 0, "a vehicle without a price"
    assert (change.said, registration.said) == ((200, None), (422, "validation_error"))


@pytest.mark.parametrize("lock", ["class_for_update", "class_for_share"])
def test_without_the_lock_a_vehicle_is_left_without_a_price(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    with without(monkeypatch, lock), pytest.raises(AssertionError, match="a vehicle without a price"):
        test_a_class_keeps_the_price_that_a_vehicle_is_being_registered_at(cast, meet, {"daily_rate": None})
        test_a_vehicle_is_not_registered_at_a_price_that_is_being_taken_back(cast, meet)


# --- late vehicles ----------------------------------------------------------------------------------------------------


def late(cast: Cast) -> None:
    """The Corolla was due an hour ago, and its next booking is far away."""
    start, end = clock.now() - timedelta(days=2), clock.now() - timedelta(hours=1)
    rental_id = insert(
        "rental", number="RNT-1", status="active", vehicle_id=cast.corolla, customer_id=cast.ana.customer_id,
        start_at=start, end_at=end, actual_start_at=start, start_odometer_km=0, daily_rate=1, currency="EUR",
        base_amount=1, total_amount=1, terms={},
    )  # fmt: skip
    insert(
        "vehicle_block", vehicle_id=cast.corolla, kind="rental", rental_id=rental_id, start_at=start, end_at=end,
        occupied=f"[{iso(start)},{iso(end)})",
    )  # fmt: skip


def soon_blocking(cast: Cast) -> Callable[[], Any]:
    """A block that is on the books from before the vehicle was late: it begins within the margin."""
    start, end = clock.now() + timedelta(minutes=5), clock.now() + timedelta(days=1)
    values = {"start_at": start, "end_at": end, "occupied": f"[{iso(start)},{iso(end)})"}

    @atomic
    def block() -> None:
        db.execute_sql("SELECT 1 FROM vehicle WHERE id = %s FOR SHARE", (cast.corolla,))
        insert("vehicle_block", vehicle_id=cast.corolla, kind="manual", **values)

    return block


def test_two_sweeps_at_once_do_the_work_once_and_do_not_wait(cast: Cast, meet: Meeting) -> None:
    late(cast)
    one, other = meet(calendar.extend_overdue, calendar.extend_overdue)
    assert not other.waited, "waited for the other sweep"
    assert (one.result, other.result) == (1, 0)


def test_a_sweep_leaves_a_vehicle_that_is_being_booked_to_the_next_one(cast: Cast, meet: Meeting) -> None:
    late(cast)
    _, sweep = meet(soon_blocking(cast), calendar.extend_overdue)
    assert (sweep.error, sweep.waited) == (None, False), "ran into the booking"
    assert (sweep.result, calendar.extend_overdue()) == (0, 1)
    assert overlaps() == 0


@pytest.mark.parametrize(
    ("replace", "seen", "race"),
    [
        ((" SKIP LOCKED", ""), "waited for the other sweep", test_two_sweeps_at_once_do_the_work_once_and_do_not_wait),
        (None, "ran into the booking", test_a_sweep_leaves_a_vehicle_that_is_being_booked_to_the_next_one),
    ],
)
def test_without_the_lock_sweeps_get_in_the_way(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, replace: Any, seen: str, race: Callable[..., None]
) -> None:
    with without(monkeypatch, "OVERDUE_VEHICLES_FOR_UPDATE", replace=replace), pytest.raises(AssertionError, match=seen):
        race(cast, meet)


# --- a crowd ----------------------------------------------------------------------------------------------------------


def test_of_many_blocks_of_one_time_one_stands_and_none_fails(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}/blocks"
    body = {"start_at": iso(at(1)), "end_at": iso(at(2))}
    answers = together(12, lambda number: cast.agent.post(path, body))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 11
    assert count("vehicle_block WHERE live") == 1
