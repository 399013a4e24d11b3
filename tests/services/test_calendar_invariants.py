"""Each test breaks the calendar or an odometer by hand, in SQL, as no service would; the database refuses by name."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from fleet import clock
from fleet.db import db
from tests.books import refused_by
from tests.cast import Cast, at, insert

HOUR = timedelta(hours=1)


def block(cast: Cast, start: datetime, end: datetime, occupied: str | None = None, **values: Any) -> UUID:
    """A manual block of the Corolla, occupying what it was made for unless told otherwise."""
    defaults = {"vehicle_id": cast.corolla, "kind": "manual", "start_at": start, "end_at": end}
    return insert("vehicle_block", **{**defaults, "occupied": occupied or f"[{start},{end})", **values})


def reading(cast: Cast, km: int, hours_ago: float, **values: Any) -> UUID:
    """What the Corolla's odometer showed so many hours ago."""
    defaults = {"vehicle_id": cast.corolla, "epoch": 1, "reading_km": km, "source": "manual"}
    return insert("odometer_reading", **{**defaults, "measured_at": clock.now() - hours_ago * HOUR, **values})


class TestBlocks:
    def test_two_live_blocks_of_one_vehicle_do_not_overlap(self, cast: Cast) -> None:
        block(cast, at(1), at(3))
        with refused_by("vehicle_block_no_overlap"):
            block(cast, at(2), at(4))

    def test_turnaround_counts_as_taken(self, cast: Cast) -> None:
        block(cast, at(1), at(3), f"[{at(1)},{at(3, hours=1)})")
        with refused_by("vehicle_block_no_overlap"):
            block(cast, at(3), at(4))
        block(cast, at(3, hours=1), at(4))

    def test_every_kind_excludes_every_other(self, cast: Cast) -> None:
        block(cast, at(1), at(3), kind="maintenance")
        with refused_by("vehicle_block_no_overlap"):
            block(cast, at(2), at(4), kind="transfer")

    def test_a_block_that_is_over_does_not_come_back_over_another(self, cast: Cast) -> None:
        old = block(cast, at(1), at(3), live=False)
        block(cast, at(2), at(4))
        with refused_by("vehicle_block_no_overlap"):
            db.execute_sql("UPDATE vehicle_block SET live = true WHERE id = %s", (old,))

    def test_a_block_does_not_grow_into_the_next_one(self, cast: Cast) -> None:
        first = block(cast, at(1), at(2))
        block(cast, at(3), at(4))
        with refused_by("vehicle_block_no_overlap"):
            db.execute_sql("UPDATE vehicle_block SET occupied = tstzrange(%s, %s) WHERE id = %s", (at(1), at(3.5), first))

    @pytest.mark.parametrize("occupied", ["empty", "(,)", "[{start},)", "(,{end})", "[{start},{end}]", "({start},{end})"])
    def test_what_is_occupied_has_a_beginning_and_an_end_and_is_half_open(self, cast: Cast, occupied: str) -> None:
        with refused_by("vehicle_block_occupied"):
            block(cast, at(1), at(3), occupied.format(start=at(1), end=at(3)))

    @pytest.mark.parametrize(("start", "end"), [(1.5, 3), (1, 2.5), (4, 5)])
    def test_what_is_occupied_is_never_narrower_than_what_was_agreed(self, cast: Cast, start: float, end: float) -> None:
        with refused_by("vehicle_block_occupied"):
            block(cast, at(1), at(3), f"[{at(start)},{at(end)})")

    @pytest.mark.parametrize("end", [1, 0])
    def test_a_block_ends_after_it_begins(self, cast: Cast, end: float) -> None:
        with refused_by("vehicle_block_period"):
            block(cast, at(1), at(end), f"[{at(0)},{at(3)})")

    @pytest.mark.parametrize("kind", ["hold", "reservation", "rental"])
    def test_a_rental_s_block_names_its_rental(self, cast: Cast, kind: str) -> None:
        with refused_by("vehicle_block_of_rental"):
            block(cast, at(1), at(3), kind=kind)

    def test_nobody_invents_a_kind(self, cast: Cast) -> None:
        with refused_by("vehicle_block_kind"):
            block(cast, at(1), at(3), kind="holiday")


class TestOdometers:
    def test_a_reading_is_not_below_an_earlier_one(self, cast: Cast) -> None:
        reading(cast, 1000, hours_ago=2)
        with refused_by("odometer_sequence"):
            reading(cast, 999, hours_ago=1)

    def test_a_reading_that_is_told_late_is_not_above_a_later_one(self, cast: Cast) -> None:
        reading(cast, 1000, hours_ago=1)
        with refused_by("odometer_sequence"):
            reading(cast, 1001, hours_ago=2)

    def test_a_reading_that_is_told_late_is_not_below_a_still_earlier_one(self, cast: Cast) -> None:
        """Back-dating defeats a guard that only knows the last reading entered."""
        reading(cast, 1000, hours_ago=3)
        reading(cast, 2000, hours_ago=1)
        with refused_by("odometer_sequence"):
            reading(cast, 900, hours_ago=2)
        reading(cast, 1500, hours_ago=2)

    def test_two_readings_of_one_instant_agree(self, cast: Cast) -> None:
        instant = clock.now()
        reading(cast, 1000, 0, measured_at=instant)
        with refused_by("odometer_sequence"):
            reading(cast, 1001, 0, measured_at=instant)
        reading(cast, 1000, 0, measured_at=instant)

    def test_a_vehicle_does_not_come_younger_than_it_came(self, cast: Cast) -> None:
        used = cast.vehicle(odometer_km=50_000)
        with refused_by("odometer_sequence"):
            reading(cast, 49_999, 0, vehicle_id=used)

    def test_another_odometer_begins_again(self, cast: Cast) -> None:
        reading(cast, 90_000, hours_ago=2)
        reading(cast, 3, hours_ago=1, epoch=2)

    def test_a_voided_reading_stands_in_nobody_s_way(self, cast: Cast) -> None:
        mistyped = reading(cast, 100_000, hours_ago=2)
        db.execute_sql("UPDATE odometer_reading SET voided_at = now(), void_reason = 'mistyped' WHERE id = %s", (mistyped,))
        reading(cast, 10_000, hours_ago=1)

    @pytest.mark.parametrize(
        "change",
        [
            "reading_km = 2", "measured_at = now()", "epoch = 2", "source = 'return'",
            "created_at = now() - interval '1 day'",
        ],
    )  # fmt: skip
    def test_a_reading_is_voided_and_never_edited(self, cast: Cast, change: str) -> None:
        reading(cast, 1, hours_ago=1)
        with refused_by("odometer_reading_kept"):
            db.execute_sql(f"UPDATE odometer_reading SET {change}")

    def test_a_voided_reading_stays_voided(self, cast: Cast) -> None:
        reading(cast, 1, hours_ago=1, voided_at=clock.now(), void_reason="mistyped")
        with refused_by("odometer_reading_kept"):
            db.execute_sql("UPDATE odometer_reading SET voided_at = NULL, void_reason = NULL")

    def test_a_voided_reading_says_why(self, cast: Cast) -> None:
        reading(cast, 1, hours_ago=1)
        with refused_by("odometer_void_has_reason"):
            db.execute_sql("UPDATE odometer_reading SET voided_at = now()")

    @pytest.mark.parametrize("sql", ["DELETE FROM odometer_reading", "TRUNCATE odometer_reading"])
    def test_a_reading_is_never_deleted(self, cast: Cast, sql: str) -> None:
        reading(cast, 1, hours_ago=1)
        with refused_by("odometer_reading_kept"):
            db.execute_sql(sql)

    @pytest.mark.parametrize("km", [-1, 10_000_001])
    def test_a_reading_is_one_that_an_odometer_can_show(self, cast: Cast, km: int) -> None:
        with refused_by("odometer_reading_km"):
            reading(cast, km, hours_ago=1, epoch=2)
