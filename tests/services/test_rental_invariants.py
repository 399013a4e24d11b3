"""Each test breaks a rental by hand, in SQL, as no service would; the database refuses by the name of its rule."""

from datetime import timedelta
from itertools import product
from typing import Any
from uuid import UUID

import pytest

from fleet import clock
from fleet.db import db
from fleet.rules import lifecycles
from tests.books import refused_by
from tests.cast import Cast, at, insert

HANDED_OVER: dict[str, Any] = {"actual_start_at": at(-2), "start_odometer_km": 1000}
RETURNED: dict[str, Any] = {**HANDED_OVER, "actual_end_at": at(-1), "end_odometer_km": 1100}
NEEDED: dict[str, dict[str, Any]] = {"held": {"hold_expires_at": at(1)}, "active": HANDED_OVER, "completed": RETURNED}


def rental(cast: Cast, status: str = "reserved", **values: Any) -> UUID:
    """Ana's rental of the Corolla, with what its status needs."""
    rental_id = clock.new_id()
    defaults: dict[str, Any] = {
        "id": rental_id,
        "number": f"RNT-{rental_id.hex[-12:]}",
        "status": status,
        "vehicle_id": cast.corolla,
        "customer_id": cast.ana.customer_id,
        "start_at": at(1),
        "end_at": at(3),
        "daily_rate": 4500,
        "currency": "EUR",
        "base_amount": 9000,
        "total_amount": 9000,
        "terms": {},
        **NEEDED.get(status, {}),
    }
    return insert("rental", **{**defaults, **values})


def update(rental_id: UUID, **values: Any) -> None:
    columns = ", ".join(f"{column} = %s" for column in values)
    db.execute_sql(f"UPDATE rental SET {columns} WHERE id = %s", (*values.values(), rental_id))


class TestStates:
    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (old, new)
            for old, new in product(sorted(lifecycles.rental.states), repeat=2)
            if old != new and not lifecycles.rental.allows(old, new)
        ],
    )
    def test_a_rental_does_not_leave_its_lifecycle(self, cast: Cast, old: str, new: str) -> None:
        rental_id = rental(cast, old)
        with refused_by("rental_transition"):
            update(rental_id, status=new, **NEEDED.get(new, {}))

    @pytest.mark.parametrize(
        ("old", "new"),
        [(old, new) for old, following in lifecycles.rental.transitions.items() for new in sorted(following)],
    )
    def test_a_rental_goes_where_its_lifecycle_leads(self, cast: Cast, old: str, new: str) -> None:
        update(rental(cast, old), status=new, **NEEDED.get(new, {}))

    def test_nobody_invents_a_status(self, cast: Cast) -> None:
        with refused_by("rental_status"):
            rental(cast, "overdue")

    def test_a_vehicle_is_out_once(self, cast: Cast) -> None:
        rental(cast, "active")
        with refused_by("rental_vehicle_out_once"):
            rental(cast, "active", start_at=at(10), end_at=at(11))

    def test_a_hold_ends_by_itself(self, cast: Cast) -> None:
        with refused_by("rental_hold_expires"):
            rental(cast, "held", hold_expires_at=None)

    @pytest.mark.parametrize("status", ["active", "completed"])
    @pytest.mark.parametrize("missing", ["actual_start_at", "start_odometer_km"])
    def test_a_rental_that_is_out_or_back_was_handed_over(self, cast: Cast, status: str, missing: str) -> None:
        with refused_by("rental_handed_over"):
            rental(cast, status, **{missing: None})

    @pytest.mark.parametrize("missing", ["actual_end_at", "end_odometer_km"])
    def test_a_rental_that_is_completed_came_back(self, cast: Cast, missing: str) -> None:
        with refused_by("rental_returned"):
            rental(cast, "completed", **{missing: None})


class TestFigures:
    @pytest.mark.parametrize("hours", [-1, 0, 0.99, 365 * 24 + 0.01])
    def test_a_period_is_an_hour_to_a_year_forwards(self, cast: Cast, hours: float) -> None:
        with refused_by("rental_period"):
            rental(cast, end_at=at(1, hours=hours))

    def test_the_longest_and_the_shortest_period_are_periods(self, cast: Cast) -> None:
        rental(cast, end_at=at(1, hours=1))
        rental(cast, end_at=at(1) + timedelta(days=365))

    def test_a_vehicle_comes_back_after_it_was_handed_over(self, cast: Cast) -> None:
        with refused_by("rental_returned_after_start"):
            rental(cast, "completed", actual_end_at=at(-3))

    @pytest.mark.parametrize("km", [{"end_odometer_km": 999}, {"start_odometer_km": -1}, {"end_odometer_km": 10_000_001}])
    def test_an_odometer_does_not_run_backwards(self, cast: Cast, km: dict[str, Any]) -> None:
        with refused_by("rental_odometer"):
            rental(cast, "completed", **km)

    @pytest.mark.parametrize("fuel", [{"start_fuel_percent": -1}, {"end_fuel_percent": 101}])
    def test_a_tank_is_between_empty_and_full(self, cast: Cast, fuel: dict[str, Any]) -> None:
        with refused_by("rental_fuel"):
            rental(cast, "completed", **fuel)

    @pytest.mark.parametrize("column", ["daily_rate", "base_amount", "total_amount", "deposit_amount"])
    @pytest.mark.parametrize("amount", [-1, 1_000_000_000_001])
    def test_no_amount_is_negative_or_without_bound(self, cast: Cast, column: str, amount: Any) -> None:
        with refused_by("rental_amounts"):
            rental(cast, **{column: amount})

    def test_a_rental_is_never_for_nothing_a_day(self, cast: Cast) -> None:
        with refused_by("rental_amounts"):
            rental(cast, daily_rate=0)

    def test_a_currency_is_three_capitals(self, cast: Cast) -> None:
        with refused_by("rental_currency"):
            rental(cast, currency="eur")

    @pytest.mark.parametrize("amount", [0, -1, 1_000_000_000_001])
    def test_a_charge_is_more_than_nothing(self, cast: Cast, amount: int) -> None:
        with refused_by("rental_charge_amount"):
            charge(rental(cast, "active"), amount)


class TestRecords:
    def test_a_number_stands_for_one_rental(self, cast: Cast) -> None:
        rental(cast, number="RNT-2026-000001")
        with refused_by("rental_number_key"):
            rental(cast, number="RNT-2026-000001")

    def test_a_rental_has_one_block(self, cast: Cast) -> None:
        rental_id = rental(cast)
        values = {"vehicle_id": cast.corolla, "kind": "reservation", "rental_id": rental_id}
        insert("vehicle_block", start_at=at(1), end_at=at(3), occupied=f"[{at(1)},{at(3)})", **values)
        with refused_by("vehicle_block_rental_key"):
            insert("vehicle_block", start_at=at(5), end_at=at(6), occupied=f"[{at(5)},{at(6)})", **values)

    def test_whoever_updates_a_rental_counts_its_version(self, cast: Cast) -> None:
        rental_id = rental(cast)
        update(rental_id, notes="by hand")
        update(rental_id, version=99, updated_at=at(-9))
        version, fresh = db.rows("SELECT version, updated_at > now() - interval '1 minute' FROM rental")[0]
        assert (version, fresh) == (3, True)

    @pytest.mark.parametrize("sql", ["DELETE FROM rental", "TRUNCATE rental CASCADE"])
    def test_a_rental_is_never_deleted(self, cast: Cast, sql: str) -> None:
        rental(cast)
        with refused_by("rental_kept"):
            db.execute_sql(sql)

    @pytest.mark.parametrize(
        "sql",
        ["UPDATE rental_charge SET amount = 1", "DELETE FROM rental_charge", "TRUNCATE rental_charge"],
    )
    def test_a_charge_is_added_and_never_changed(self, cast: Cast, sql: str) -> None:
        charge(rental(cast, "active"), 185)
        with refused_by("rental_charge_kept"):
            db.execute_sql(sql)


def charge(rental_id: UUID, amount: int) -> None:
    insert("rental_charge", rental_id=rental_id, type="toll", description="Bridge", amount=amount)
