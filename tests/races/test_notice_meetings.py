"""Two who tell a customer something, or are told by one what to tell, meet."""

from fleet.services import reminders
from tests.cast import Cast
from tests.races.meeting import Call, Meeting, in_one_transaction
from tests.races.scenes import count
from tests.races.test_people_meetings import erasing
from tests.tasks.test_reminders import reserved


def choosing(cast: Cast, **choice: bool) -> Call:
    path = f"/v1/customers/{cast.ana.customer_id}/notification-preferences"
    return lambda: cast.ana.put(path, {"kinds": {"rental_reminder": choice}}, version="0")


def test_two_sweeps_promise_a_reminder_once(cast: Cast, meet: Meeting) -> None:
    reserved(cast, starts_in_h=20)
    sweep = in_one_transaction(reminders.promise_due)
    one, other = meet(sweep, sweep)
    assert (one.result["rental_reminder"], other.result["rental_reminder"]) == (1, 0), "promised twice"
    assert count("outbox WHERE topic = 'notifications.rental_reminder'") == 1, "promised twice"


def test_of_two_first_choices_one_stands(cast: Cast, meet: Meeting) -> None:
    one, other = meet(choosing(cast, email=False), choosing(cast, sms=False))
    assert (one.said, other.said) == ((200, None), (412, "version_conflict")), "one choice buried the other"


def test_a_choice_that_is_being_made_is_forgotten_by_the_erasure_that_waited_for_it(cast: Cast, meet: Meeting) -> None:
    choice, erasure = meet(choosing(cast, email=False), erasing(cast))
    assert (choice.said, erasure.said) == ((200, None), (200, None))
    assert count("notification_preference") == 0, "an erased customer's choice is kept"


def test_who_is_being_erased_chooses_nothing(cast: Cast, meet: Meeting) -> None:
    erasure, choice = meet(erasing(cast), choosing(cast, email=False))
    assert erasure.said == (200, None)
    assert choice.said[0] in {401, 404, 409}
    assert count("notification_preference") == 0, "an erased customer's choice is kept"
