"""Two who want a vehicle's time meet at the point where a missing lock would let both have it."""

from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import pytest

from fleet.db import transaction
from fleet.embedded import Databases
from fleet.services import rental_changes
from tests.cast import Cast, at, insert
from tests.races.meeting import Call, Meeting, Runner
from tests.races.mutation import weakened, without
from tests.races.scenes import (
    blocking,
    booking,
    changing,
    count,
    extending,
    overlaps,
    reserved,
    reserving,
    selling,
    sold_and_taken,
)

MOVE = "UPDATE vehicle_block"


def test_a_vehicle_is_not_sold_while_its_reservation_is_written(cast: Cast, meet: Meeting) -> None:
    reservation, sale = meet(reserving(cast), selling(cast), before="write_reservation")
    assert sold_and_taken() == 0, "sold and reserved"
    assert (reservation.said, sale.said) == ((201, None), (409, "invalid_state"))


def test_a_vehicle_is_not_reserved_while_it_is_sold(cast: Cast, meet: Meeting) -> None:
    sale, reservation = meet(selling(cast), reserving(cast), before='UPDATE "vehicle"')
    assert sold_and_taken() == 0, "sold and reserved"
    assert (sale.said, reservation.said) == ((200, None), (409, "invalid_state"))


def test_a_vehicle_is_not_sold_while_the_booking_of_its_class_is_written(cast: Cast, meet: Meeting) -> None:
    reservation, sale = meet(booking(cast), selling(cast), before="write_reservation")
    assert sold_and_taken() == 0, "sold and reserved"
    assert (reservation.said, sale.said) == ((201, None), (409, "invalid_state"))


def test_bookings_of_one_class_take_different_vehicles_without_waiting(cast: Cast, meet: Meeting) -> None:
    cast.vehicle()
    one, other = meet(booking(cast), booking(cast))
    assert not other.waited, "waited for a rival of the class"
    assert (one.said, other.said) == ((201, None), (201, None))
    assert overlaps() == 0


def test_an_extension_keeps_the_time_that_it_found_free(cast: Cast, meet: Meeting) -> None:
    rental = reserved(cast)
    extension, reservation = meet(extending(cast, rental, 5), reserving(cast, 4, 6), before=MOVE)
    assert (extension.said, reservation.said) == ((200, None), (409, "rental_overlap")), "taken after the look for a clash"


def test_an_extension_waits_for_the_reservation_that_is_being_written(cast: Cast, meet: Meeting) -> None:
    rental = reserved(cast)
    reservation, extension = meet(reserving(cast, 4, 6), extending(cast, rental, 5))
    assert (reservation.said, extension.said) == ((201, None), (409, "rental_overlap"))
    assert "alternatives" in extension.value.json


def test_a_rental_moves_to_a_vehicle_that_nobody_takes_meanwhile(cast: Cast, meet: Meeting) -> None:
    other = cast.vehicle()
    rental = reserved(cast)
    move, reservation = meet(
        changing(cast, rental, vehicle_id=other), reserving(cast, vehicle_id=other), before=MOVE
    )
    assert (move.said, reservation.said) == ((200, None), (409, "rental_overlap"))


def test_two_reservations_of_one_time_meet_before_either_is_written(cast: Cast, meet: Meeting) -> None:
    one, other = meet(reserving(cast), reserving(cast, 2, 4), before="write_reservation")
    assert overlaps() == 0, "reserved twice"
    assert (one.said, other.said) == ((409, "rental_overlap"), (201, None))


def test_a_manual_block_comes_before_a_reservation_is_written(cast: Cast, meet: Meeting) -> None:
    reservation, block = meet(reserving(cast), blocking(cast, 2, 4), before="write_reservation")
    assert overlaps() == 0, "reserved and blocked"
    assert (reservation.said, block.said) == ((409, "rental_overlap"), (201, None))


def test_a_reservation_comes_before_a_manual_block_is_written(cast: Cast, meet: Meeting) -> None:
    block, reservation = meet(blocking(cast, 2, 4), reserving(cast), before="INSERT INTO vehicle_block")
    assert overlaps() == 0, "reserved and blocked"
    assert (block.said, reservation.said) == ((409, "rental_overlap"), (201, None))


@pytest.mark.parametrize("wanting", [reserving, blocking])
def test_two_who_wait_for_one_that_is_undone_do_not_wait_for_each_other(
    cast: Cast, wanting: Callable[..., Call]
) -> None:
    """Rivals that were written first and compared then would each find the other: a deadlock for all but one of them."""
    rivals = [Runner(wanting(cast, 1, 3)), Runner(wanting(cast, 2, 4))]
    with suppress(Undone), transaction():
        period = {"start_at": at(1), "end_at": at(4), "occupied": f"[{at(1)},{at(4)})"}
        insert("vehicle_block", vehicle_id=cast.corolla, kind="manual", **period)
        for rival in rivals:
            rival.start()
            rival.await_waiting()
        raise Undone
    said = sorted(rival.end().said for rival in rivals)
    assert said == [(201, None), (409, "rental_overlap")], "a deadlock"


class Undone(Exception):
    """The transaction is rolled back."""


@pytest.mark.mutation
@pytest.mark.parametrize(
    ("wanting", "statement"), [(reserving, "WRITE_RESERVATION"), (blocking, "INSERT_MANUAL_BLOCK")]
)
def test_with_a_plain_insert_they_would(
    cast: Cast, monkeypatch: pytest.MonkeyPatch, wanting: Callable[..., Call], statement: str
) -> None:
    politely = "ON CONFLICT ON CONSTRAINT vehicle_block_no_overlap DO NOTHING"
    with without(monkeypatch, statement, replace=(politely, "")), pytest.raises(AssertionError, match="a deadlock"):
        test_two_who_wait_for_one_that_is_undone_do_not_wait_for_each_other(cast, wanting)


@pytest.mark.mutation
@pytest.mark.parametrize(
    "race",
    [
        test_two_reservations_of_one_time_meet_before_either_is_written,
        test_a_manual_block_comes_before_a_reservation_is_written,
        test_a_reservation_comes_before_a_manual_block_is_written,
    ],
)
def test_without_the_exclusion_constraint_both_have_the_time(
    cast: Cast, meet: Meeting, databases: Databases, race
) -> None:
    nothing = "EXCLUDE USING gist (vehicle_id WITH =, occupied WITH &&) WHERE (false)"
    with (
        weakened(databases, "vehicle_block", "vehicle_block_no_overlap", nothing),
        pytest.raises(AssertionError, match=r"reserved twice|reserved and blocked"),
    ):
        race(cast, meet)


@pytest.mark.mutation
def test_bookings_of_one_class_would_wait_for_each_other_without_skip_locked(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        without(monkeypatch, "PICK_TO_RESERVE", replace=("SKIP LOCKED", "")),
        pytest.raises(AssertionError, match="waited for a rival of the class"),
    ):
        test_bookings_of_one_class_take_different_vehicles_without_waiting(cast, meet)


def test_two_rentals_swap_their_vehicles_without_a_deadlock(cast: Cast, meet: Meeting) -> None:
    """Both lock the two vehicles in the order of their ids, whichever they come from."""
    other = cast.vehicle()
    here, there = reserved(cast), reserved(cast, 5, 7, vehicle_id=other)
    one, two = meet(
        changing(cast, here, vehicle_id=other),
        changing(cast, there, vehicle_id=cast.corolla),
        before='FROM "vehicle"',
        occurrence=2,
    )
    assert (one.said, two.said) == ((200, None), (200, None)), "a deadlock"
    assert count("vehicle_block WHERE live") == 2


@pytest.mark.mutation
def test_rentals_that_swap_vehicles_would_deadlock_without_the_order(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[list[UUID]] = []

    def own_vehicle_first(vehicle_ids: set[UUID]) -> list[UUID]:
        """As if each locked the vehicle that it leaves before the one that it moves to."""
        orders.append(sorted(vehicle_ids, reverse=bool(orders)))
        return orders[-1]

    monkeypatch.setattr(rental_changes, "sorted", own_vehicle_first, raising=False)
    with pytest.raises(AssertionError, match="a deadlock"):
        test_two_rentals_swap_their_vehicles_without_a_deadlock(cast, meet)
