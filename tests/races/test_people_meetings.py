"""Two who change the same customer or user meet at the point where a lock keeps them in a line."""

from collections.abc import Callable

from tests.cast import Cast
from tests.races.meeting import Call, Meeting
from tests.races.scenes import cancelling, completing, count, out, reserved, reserving


def erasing(cast: Cast) -> Call:
    return lambda: cast.admin.post(f"/v1/customers/{cast.ana.customer_id}/erase")


def deactivating(cast: Cast) -> Call:
    return lambda: cast.manager.post(f"/v1/customers/{cast.ana.customer_id}/deactivate")


# --- customers --------------------------------------------------------------------------------------------------------


def test_a_customer_who_is_being_erased_books_nothing(cast: Cast, meet: Meeting) -> None:
    erasure, reservation = meet(erasing(cast), reserving(cast), before="DELETE FROM idempotency_record")
    assert count("rental JOIN customer ON customer.id = customer_id WHERE erased_at IS NOT NULL") == 0, "erased with a booking"
    assert (erasure.said, reservation.said[0]) == ((200, None), 422)
    assert reservation.value.json["errors"][0]["code"] == "not_active"


def test_a_customer_who_is_booking_is_not_erased(cast: Cast, meet: Meeting) -> None:
    reservation, erasure = meet(reserving(cast), erasing(cast))
    assert (reservation.said, erasure.said) == ((201, None), (409, "invalid_state")), "erased with a booking"


def test_a_customer_whose_booking_is_being_written_is_not_erased(cast: Cast, meet: Meeting) -> None:
    reservation, erasure = meet(reserving(cast), erasing(cast), before="write_reservation")
    assert (reservation.said, erasure.said) == ((201, None), (409, "invalid_state")), "erased with a booking"


def test_a_second_deactivation_finds_the_customer_deactivated(cast: Cast, meet: Meeting) -> None:
    one, other = meet(deactivating(cast), deactivating(cast))
    assert (one.said, other.said) == ((200, None), (409, "invalid_state")), "did not see the first one"


def test_an_erasure_waits_for_the_charge_on_a_rental_and_does_not_deadlock(cast: Cast, meet: Meeting) -> None:
    """The charge holds the rental and needs its customer for the invoice: whoever erases asks in the same order."""
    rental = out(cast, notes="Ana's own words")
    assert completing(cast, rental)().status_code == 200
    toll = {"type": "toll", "description": "Bridge", "amount": 185}
    charge, erasure = meet(
        lambda: cast.agent.post(f"{rental}/charges", toll), erasing(cast), before="document_counter"
    )
    assert (charge.said, erasure.said) == ((201, None), (200, None)), "a deadlock"
    assert (count("invoice"), count("rental WHERE notes IS NOT NULL")) == (2, 0)


def test_an_erasure_forgets_the_words_of_the_cancellation_that_it_waited_for(cast: Cast, meet: Meeting) -> None:
    rental = reserved(cast, 5, 6)
    cancellation, erasure = meet(cancelling(cast, rental, reason="Ana is ill"), erasing(cast))
    assert (cancellation.said, erasure.said) == ((200, None), (200, None))
    assert count("rental WHERE cancel_reason IS NOT NULL") == 0


def test_of_two_holds_at_once_for_the_last_place_one_is_refused(
    cast: Cast, meet: Meeting, hold_limit: Callable[[int], None]
) -> None:
    hold_limit(1)
    one, other = meet(
        reserving(cast, hold_minutes=15), reserving(cast, vehicle_id=cast.vehicle(), hold_minutes=15),
        before="write_reservation",
    )  # fmt: skip
    assert count("rental WHERE status = 'held'") == 1, "one hold too many"
    assert (one.said, other.said, other.waited) == ((201, None), (409, "too_many_holds"), True)


def test_of_two_reservations_at_once_for_the_last_place_one_is_refused(
    cast: Cast, meet: Meeting, reservation_limit: Callable[[int], None]
) -> None:
    reservation_limit(1)
    one, other = meet(
        reserving(cast, by=cast.ana), reserving(cast, by=cast.ana, vehicle_id=cast.vehicle()), before="write_reservation"
    )
    assert count("rental") == 1, "one reservation too many"
    assert (one.said, other.said, other.waited) == ((201, None), (409, "too_many_reservations"), True)


def test_a_reservation_by_staff_waits_for_no_hold_of_the_same_customer(cast: Cast, meet: Meeting) -> None:
    hold, reservation = meet(reserving(cast, hold_minutes=15), reserving(cast, vehicle_id=cast.vehicle()))
    assert (hold.said, reservation.said, reservation.waited) == ((201, None), (201, None), False)


# --- users ------------------------------------------------------------------------------------------------------------


def test_an_erasure_leaves_the_account_of_somebody_who_is_being_hired(cast: Cast, meet: Meeting) -> None:
    """A renter's account closes with them; one who works here keeps theirs. Which it is, is asked of the locked row."""
    roles = f"/v1/users/{cast.ana.user_id}/roles"
    hiring, erasure = meet(
        lambda: cast.admin.put(roles, {"roles": ["customer", "driver"]}, version="1"), erasing(cast)
    )
    assert (hiring.said, erasure.said) == ((200, None), (200, None)), "did not see the new roles"
    assert count("user_account WHERE id = %s AND deactivated_at IS NULL", cast.ana.user_id) == 1
