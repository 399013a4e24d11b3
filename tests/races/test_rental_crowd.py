"""Many at once do something to the same rentals, through two instances of the service: each rental takes one course."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from fleet.db import db
from fleet.services import reservations
from tests.cast import Cast, at, iso
from tests.races.crowd import Crowd, Reply, Request, mixed, tally
from tests.races.scenes import begun, count, out, overlaps, reserved, sold_and_taken, state_of, window

FLEET = 10


@pytest.fixture
def vehicles(cast: Cast) -> list[UUID]:
    return [cast.vehicle() for _ in range(FLEET)]


def post(cast: Cast, path: str, body: Any = None) -> Request:
    return Request(cast.manager, "POST", path, body)


def wishes(cast: Cast, vehicles: list[UUID], start: float, end: float) -> list[Request]:
    """One reservation of each vehicle."""
    body = {"customer_id": cast.ana.customer_id, **window(start, end)}
    return [post(cast, "/v1/rentals", {**body, "vehicle_id": vehicle_id}) for vehicle_id in vehicles]


def sent(crowd: Crowd, *rivals: list[Request]) -> dict[int, Reply]:
    requests = mixed(*rivals)
    return dict(zip(map(id, requests), crowd(requests), strict=True))


def won(replies: dict[int, Reply], requests: list[Request]) -> list[bool]:
    """Which of these went through; the others were refused, and nothing broke."""
    answers = [replies[id(item)] for item in requests]
    assert {answer.status for answer in answers} <= {200, 201, 409, 412}, tally(answers)
    return [answer.status < 300 for answer in answers]


def test_of_40_edits_of_one_version_one_goes_through(cast: Cast, crowd: Crowd) -> None:
    rental = reserved(cast)
    edits = [Request(cast.agent, "PATCH", rental, {"notes": f"edit {n}"}, version=1) for n in range(40)]
    replies = crowd(edits)
    assert tally(replies) == {(200, None): 1, (412, "version_conflict"): 39}
    kept = next(reply.json for reply in replies if reply.status == 200)
    assert db.rows("SELECT notes, version FROM rental") == [(kept["notes"], 2)]


def test_an_extension_and_a_reservation_never_share_the_time(cast: Cast, crowd: Crowd, vehicles: list[UUID]) -> None:
    rentals = [reserved(cast, vehicle_id=vehicle_id) for vehicle_id in vehicles]
    extensions = [Request(cast.agent, "PATCH", rental, {"end_at": iso(at(5))}, version=1) for rental in rentals]
    rivals = wishes(cast, vehicles, 4, 6)
    replies = sent(crowd, extensions, rivals)
    extended, booked = won(replies, extensions), won(replies, rivals)
    assert [one != other for one, other in zip(extended, booked, strict=True)] == [True] * FLEET
    assert overlaps() == 0
    assert count("rental WHERE end_at = %s", at(5)) == sum(extended)


def test_a_manual_block_and_a_reservation_never_share_the_time(cast: Cast, crowd: Crowd, vehicles: list[UUID]) -> None:
    blocks = [post(cast, f"/v1/vehicles/{vehicle_id}/blocks", window(2, 4)) for vehicle_id in vehicles]
    rivals = wishes(cast, vehicles, 1, 3)
    replies = sent(crowd, blocks, rivals)
    blocked, booked = won(replies, blocks), won(replies, rivals)
    assert [one != other for one, other in zip(blocked, booked, strict=True)] == [True] * FLEET
    assert overlaps() == 0
    assert count("vehicle_block WHERE live") == FLEET


def test_a_vehicle_is_sold_or_reserved_and_never_both(cast: Cast, crowd: Crowd, vehicles: list[UUID]) -> None:
    sales = [post(cast, f"/v1/vehicles/{vehicle_id}/status", {"status": "sold"}) for vehicle_id in vehicles]
    rivals = wishes(cast, vehicles, 1, 3)
    replies = sent(crowd, sales, rivals)
    sold, booked = won(replies, sales), won(replies, rivals)
    assert [one != other for one, other in zip(sold, booked, strict=True)] == [True] * FLEET
    assert sold_and_taken() == 0


def test_of_20_returns_of_one_rental_one_is_billed(cast: Cast, crowd: Crowd) -> None:
    rental = out(cast)
    replies = crowd([post(cast, f"{rental}/complete", {"end_odometer_km": 1100})] * 20)
    assert tally(replies) == {(200, None): 1, (409, "invalid_state"): 19}
    assert count("invoice") == 1
    assert count("outbox WHERE topic = 'accounting.post_invoice'") == 1
    assert count("odometer_reading WHERE source = 'return'") == 1
    assert state_of(rental) == ("completed", 0)


def test_of_20_handovers_of_one_rental_one_happens(cast: Cast, crowd: Crowd) -> None:
    rental = begun(cast)
    replies = crowd([post(cast, f"{rental}/activate", {"start_odometer_km": 1000})] * 20)
    assert tally(replies) == {(200, None): 1, (409, "invalid_state"): 19}
    assert count("odometer_reading") == 1
    assert state_of(rental) == ("active", 1)


def test_a_rental_is_cancelled_or_handed_over_and_never_both(cast: Cast, crowd: Crowd, vehicles: list[UUID]) -> None:
    rentals = [begun(cast, vehicle_id=vehicle_id) for vehicle_id in vehicles]
    cancellations = [post(cast, f"{rental}/cancel", {}) for rental in rentals]
    handovers = [post(cast, f"{rental}/activate", {"start_odometer_km": 1000}) for rental in rentals]
    replies = sent(crowd, cancellations, handovers)
    cancelled, active = won(replies, cancellations), won(replies, handovers)
    for rental, gone, taken in zip(rentals, cancelled, active, strict=True):
        assert gone != taken
        assert state_of(rental) == (("cancelled", 0) if gone else ("active", 1))
    assert count("invoice") == sum(cancelled)


def test_a_hold_is_confirmed_or_expires_and_never_both(cast: Cast, crowd: Crowd, vehicles: list[UUID]) -> None:
    """Holds end one after the other while they are confirmed, swept, and taken by others whom they kept away."""
    renters = [cast.customer() for _ in vehicles]
    holds = [
        reserved(cast, vehicle_id=vehicle_id, customer_id=renter, hold_minutes=15)
        for vehicle_id, renter in zip(vehicles, renters, strict=True)
    ]
    db.execute_sql(
        """UPDATE rental SET hold_expires_at = now() + n * interval '20 ms'
        FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM rental) held WHERE rental.id = held.id"""
    )
    confirmations = [post(cast, f"{hold}/confirm") for hold in holds]
    rivals = wishes(cast, vehicles, 2, 4)
    replies = meanwhile(reservations.expire_holds, lambda: sent(crowd, confirmations, rivals))
    confirmed, booked = won(replies, confirmations), won(replies, rivals)
    reservations.expire_holds()
    for hold, kept, taken in zip(holds, confirmed, booked, strict=True):
        assert not (kept and taken)
        assert state_of(hold) == (("reserved", 1) if kept else ("expired", 0))
    assert overlaps() == 0


def meanwhile(sweep: Callable[[], Any], call: Callable[[], Any]) -> Any:
    """What the call returns, with the sweep running over and over beside it."""
    ended = threading.Event()

    def sweeping() -> None:
        while not ended.is_set():
            sweep()
        db.close()

    sweeper = threading.Thread(target=sweeping)
    sweeper.start()
    try:
        return call()
    finally:
        ended.set()
        sweeper.join()
