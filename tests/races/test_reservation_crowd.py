"""Hundreds of clients, two instances of the service, one calendar: as many get a vehicle as there are vehicles."""

import time
from typing import Any

from fleet.db import db
from tests.cast import Cast, at, iso
from tests.races.crowd import Crowd, Request, tally
from tests.races.scenes import count, overlaps

PATIENCE_S = 60  # generous, as other work may share the machine: alone it takes one or two


def wish(cast: Cast, start: float = 1, end: float = 3, **body: Any) -> dict[str, Any]:
    return {"customer_id": cast.ana.customer_id, "start_at": iso(at(start)), "end_at": iso(at(end)), **body}


def test_of_500_who_want_one_vehicle_at_once_one_gets_it(cast: Cast, crowd: Crowd) -> None:
    """Their periods differ, and every two overlap. A plain INSERT ends here in a cascade of deadlocks."""
    shifts = [number / 500 for number in range(500)]
    requests = [
        Request(cast.agent, "POST", "/v1/rentals", wish(cast, 1 + by, 3 + by, vehicle_id=cast.corolla)) for by in shifts
    ]
    began = time.monotonic()
    replies = crowd(requests)
    assert time.monotonic() - began < PATIENCE_S
    assert tally(replies) == {(201, None): 1, (409, "rental_overlap"): 499}
    assert count("vehicle_block WHERE live") == count("rental") == 1
    assert count("outbox") == 1


def test_of_400_who_want_one_of_50_vehicles_at_once_50_get_one(cast: Cast, crowd: Crowd) -> None:
    for _ in range(49):
        cast.vehicle()
    requests = [Request(cast.agent, "POST", "/v1/rentals", wish(cast, class_id=cast.compact)) for _ in range(400)]
    replies = crowd(requests)
    assert tally(replies) == {(201, None): 50, (409, "no_vehicle_available"): 350}
    assert db.rows("SELECT count(*), count(DISTINCT vehicle_id) FROM vehicle_block WHERE live") == [(50, 50)]
    assert overlaps() == 0
    assert len({reply.json["number"] for reply in replies if reply.status == 201}) == 50


def test_50_requests_with_one_key_reserve_one_vehicle(cast: Cast, crowd: Crowd) -> None:
    check_one_effect(crowd, Request(cast.agent, "POST", "/v1/rentals", wish(cast, vehicle_id=cast.corolla), key="the-one"))


def test_50_requests_with_one_key_book_one_of_many_vehicles(cast: Cast, crowd: Crowd) -> None:
    """Here the calendar would let each of them through: the key alone keeps it at one."""
    for _ in range(49):
        cast.vehicle()
    check_one_effect(crowd, Request(cast.agent, "POST", "/v1/rentals", wish(cast, class_id=cast.compact), key="the-one"))


def check_one_effect(crowd: Crowd, request: Request) -> None:
    """One does it; every other one gets its answer again, to the letter, or is told that the first still runs."""
    replies = crowd([request] * 50) + crowd([request] * 2)
    answers = [reply for reply in replies if reply.status == 201]
    first = [reply for reply in answers if "Idempotency-Replayed" not in reply.headers]
    assert len(first) == 1
    assert [reply.status for reply in replies[50:]] == [201, 201]
    assert {reply.content for reply in answers} == {first[0].content}
    assert set(tally(replies)) <= {(201, None), (409, "idempotency_in_progress")}
    assert count("rental") == count("vehicle_block") == count("outbox") == count("idempotency_record") == 1
