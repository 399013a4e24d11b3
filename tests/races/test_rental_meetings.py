"""Two who do something to one rental meet at the point where a missing lock would let both happen."""

import pytest

from fleet.db import db
from fleet.models.base import Versioned
from fleet.services import no_shows, reservations
from tests.cast import Cast
from tests.races.meeting import Meeting, in_one_transaction, later
from tests.races.mutation import without
from tests.races.scenes import (
    activating,
    begun,
    cancelling,
    changing,
    completing,
    confirming,
    count,
    out,
    reserved,
    state_of,
)

UPDATE = 'UPDATE "rental"'


def test_a_hold_that_is_confirmed_in_time_does_not_expire_meanwhile(cast: Cast, meet: Meeting) -> None:
    hold = reserved(cast, hold_minutes=15)
    confirmation, sweep = meet(confirming(cast, hold), later(reservations.expire_holds, minutes=16), before=UPDATE)
    assert state_of(hold) == ("reserved", 1), "expired under its confirmation"
    assert (confirmation.said, sweep.result, sweep.waited) == ((200, None), 0, False)


def test_a_hold_that_is_being_swept_is_not_confirmed(cast: Cast, meet: Meeting) -> None:
    hold = reserved(cast, hold_minutes=15)
    sweep, confirmation = meet(in_one_transaction(later(reservations.expire_holds, minutes=16)), confirming(cast, hold))
    assert (sweep.result, confirmation.said) == (1, (409, "invalid_state"))
    assert state_of(hold) == ("expired", 0)


def test_the_sweep_of_holds_passes_by_one_that_is_being_cancelled(cast: Cast, meet: Meeting) -> None:
    hold = reserved(cast, hold_minutes=15)
    cancellation, sweep = meet(cancelling(cast, hold), later(reservations.expire_holds, minutes=16))
    assert (sweep.error, sweep.waited) == (None, False), "the sweep ran into the cancellation"
    assert (cancellation.said, sweep.result) == ((200, None), 0)
    assert state_of(hold) == ("cancelled", 0)


def test_two_sweeps_at_once_share_the_holds(cast: Cast, meet: Meeting) -> None:
    reserved(cast, hold_minutes=15)
    sweep = in_one_transaction(later(reservations.expire_holds, minutes=16))
    one, other = meet(sweep, sweep)
    assert (one.result, other.result, other.waited) == (1, 0, False)


def test_the_sweep_of_no_shows_passes_by_a_rental_that_is_being_handed_over(cast: Cast, meet: Meeting) -> None:
    rental = begun(cast)
    handover, sweep = meet(activating(cast, rental), later(no_shows.give_up, hours=24))
    assert (sweep.error, sweep.waited) == (None, False), "the sweep ran into the handover"
    assert (handover.said, sweep.result) == ((200, None), 0)
    assert state_of(rental) == ("active", 1)


def test_a_rental_that_is_being_given_up_on_is_not_handed_over(cast: Cast, meet: Meeting) -> None:
    rental = begun(cast)
    sweep, handover = meet(later(no_shows.give_up, hours=24), activating(cast, rental), before=UPDATE)
    assert (sweep.result, handover.said) == (1, (409, "invalid_state")), "did not see the no-show"
    assert state_of(rental) == ("no_show", 0)


def test_a_second_return_finds_the_rental_completed(cast: Cast, meet: Meeting) -> None:
    rental = out(cast)
    one, other = meet(completing(cast, rental), completing(cast, rental))
    assert count("invoice") == 1, "billed twice"
    assert (one.said, other.said) == ((200, None), (409, "invalid_state")), "did not see the first return"


def test_a_second_handover_finds_the_rental_active(cast: Cast, meet: Meeting) -> None:
    rental = begun(cast)
    one, other = meet(activating(cast, rental), activating(cast, rental))
    assert count("odometer_reading") == 1, "handed over twice"
    assert (one.said, other.said) == ((200, None), (409, "invalid_state")), "did not see the first handover"


def test_a_rental_that_is_being_cancelled_is_not_handed_over(cast: Cast, meet: Meeting) -> None:
    rental = begun(cast)
    cancellation, handover = meet(cancelling(cast, rental), activating(cast, rental))
    assert (cancellation.said, handover.said) == ((200, None), (409, "invalid_state")), "did not see the cancellation"
    assert state_of(rental) == ("cancelled", 0)


def test_a_rental_that_is_being_handed_over_is_not_cancelled(cast: Cast, meet: Meeting) -> None:
    rental = begun(cast)
    handover, cancellation = meet(activating(cast, rental), cancelling(cast, rental))
    assert (handover.said, cancellation.said) == ((200, None), (409, "invalid_state")), "did not see the handover"
    assert (state_of(rental), count("invoice")) == (("active", 1), 0)


def test_a_rental_that_moves_meanwhile_is_not_handed_over_with_the_wrong_vehicle_locked(
    cast: Cast, meet: Meeting
) -> None:
    other = cast.vehicle()
    rental = begun(cast)
    move, handover = meet(changing(cast, rental, vehicle_id=other), activating(cast, rental))
    assert (move.said, handover.said) == ((200, None), (412, "version_conflict"))
    assert count("odometer_reading") == 0


def test_of_two_edits_of_one_version_the_second_is_refused(cast: Cast, meet: Meeting) -> None:
    rental = reserved(cast)
    one, other = meet(changing(cast, rental, notes="one"), changing(cast, rental, notes="other"))
    assert (one.said, other.said) == ((200, None), (412, "version_conflict")), "an edit was buried"
    assert db.rows("SELECT notes FROM rental") == [("one",)]


def test_of_two_edits_without_a_lock_the_second_matches_no_version(cast: Cast, meet: Meeting) -> None:
    """A vehicle is edited without being locked: compare and set alone keeps the first edit."""
    path = f"/v1/vehicles/{cast.corolla}"
    edits = [lambda color=color: cast.manager.patch(path, {"color": color}, version="1") for color in ("red", "blue")]
    one, other = meet(*edits, before='UPDATE "vehicle"')
    assert (one.said, other.said) == ((412, "version_conflict"), (200, None)), "an edit was buried"
    assert db.rows("SELECT color, version FROM vehicle") == [("blue", 2)]


SECOND_OF_TWO = [
    test_a_second_return_finds_the_rental_completed,
    test_a_second_handover_finds_the_rental_active,
    test_a_rental_that_is_being_cancelled_is_not_handed_over,
    test_a_rental_that_is_being_handed_over_is_not_cancelled,
]


@pytest.mark.mutation
@pytest.mark.parametrize("race", SECOND_OF_TWO)
def test_without_both_row_locks_the_second_does_not_see_the_first(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, race
) -> None:
    """Either lock suffices between two transitions; with neither only the version keeps them apart, and says 412."""
    with (
        without(monkeypatch, "vehicle_for_update"),
        without(monkeypatch, "rental_for_update"),
        pytest.raises(AssertionError, match="did not see the"),
    ):
        race(cast, meet)


def change_blindly(self: Versioned, *, expected_version: int | None = None, **values) -> None:
    """`Versioned.change` without its comparison."""
    model = type(self)
    model.update(**values).where(model.id == self.id).execute()
    for name, value in values.items():
        setattr(self, name, value)
    self.version += 1


@pytest.mark.mutation
def test_without_locks_and_versions_a_rental_is_billed_twice(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Versioned, "change", change_blindly)
    with (
        without(monkeypatch, "vehicle_for_update"),
        without(monkeypatch, "rental_for_update"),
        pytest.raises(AssertionError, match="billed twice"),
    ):
        test_a_second_return_finds_the_rental_completed(cast, meet)


@pytest.mark.mutation
def test_without_its_comparison_an_edit_is_buried(cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Versioned, "change", change_blindly)
    with pytest.raises(AssertionError, match="an edit was buried"):
        test_of_two_edits_without_a_lock_the_second_matches_no_version(cast, meet)
