"""Two requests with one idempotency key meet: one effect, whatever fails."""

from uuid import uuid4

import pytest

from fleet.embedded import Databases
from tests.cast import Cast
from tests.races.meeting import Call, Meeting
from tests.races.mutation import weakened, without
from tests.races.scenes import booking, count, out, reserving

IN_PROGRESS = (409, "idempotency_in_progress")


def charging(cast: Cast, rental: str) -> Call:
    key = str(uuid4())
    return lambda: cast.agent.post(f"{rental}/charges", {"type": "toll", "description": "Bridge", "amount": 185}, key=key)


def test_a_second_booking_with_the_key_does_not_wait_for_the_first(cast: Cast, meet: Meeting) -> None:
    cast.vehicle()
    once = booking(cast, key="k")
    one, other = meet(once, once)
    assert not other.waited, "waited on the key"
    assert (one.said, other.said) == ((201, None), IN_PROGRESS)
    assert once().headers["Idempotency-Replayed"] == "true"
    assert count("rental") == 1, "booked twice"


def test_a_second_reservation_with_the_key_is_no_rival_of_the_first(cast: Cast, meet: Meeting) -> None:
    once = reserving(cast, key="k")
    one, other = meet(once, once)
    assert (one.said, other.said) == ((201, None), IN_PROGRESS)


def test_a_second_charge_with_the_key_does_not_wait_for_the_first(cast: Cast, meet: Meeting) -> None:
    once = charging(cast, out(cast))
    one, other = meet(once, once)
    assert not other.waited, "waited on the key"
    assert (one.said, other.said) == ((201, None), IN_PROGRESS)
    assert count("rental_charge") == 1, "charged twice"


def test_the_primary_key_alone_keeps_a_booking_at_one(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the second begins to look in the instant in which the first commits: the lock is free, the record unseen."""
    cast.vehicle()
    once = booking(cast, key="k")
    with without(monkeypatch, "PICK_TO_RESERVE", replace=("pg_try_advisory_xact_lock($1)", "true")):
        one, other = meet(once, once)
    assert count("rental") == 1, "booked twice"
    assert (one.said, other.said) == ((201, None), IN_PROGRESS)
    assert other.value.headers["Retry-After"] == "1"


def test_the_primary_key_alone_keeps_a_charge_at_one(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = charging(cast, out(cast))
    with without(monkeypatch, "_TAKE"):
        one, other = meet(once, once)
    assert count("rental_charge") == 1, "charged twice"
    assert (one.said, other.said) == ((201, None), IN_PROGRESS)


@pytest.mark.mutation
@pytest.mark.parametrize(
    "race", [test_the_primary_key_alone_keeps_a_booking_at_one, test_the_primary_key_alone_keeps_a_charge_at_one]
)
def test_without_the_primary_key_it_happens_twice(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, databases: Databases, race
) -> None:
    every_time = "PRIMARY KEY (actor, method, path, key, created_at)"
    with (
        weakened(databases, "idempotency_record", "idempotency_record_pkey", every_time),
        pytest.raises(AssertionError, match="twice"),
    ):
        race(cast, meet, monkeypatch)
