"""Operators, workers and sweeps reach for the same dead letter: it is replayed or discarded once, and has one effect."""

from uuid import UUID

from fleet.db import db
from fleet.models.audit import AuditEvent
from fleet.models.dead_letters import Chosen
from fleet.services import dead_letters, outbox, retention
from tests.cast import Cast
from tests.races.meeting import Call, Meeting, in_one_transaction, later
from tests.races.scenes import count
from tests.tasks.consuming import counted_effects, deliver
from tests.tasks.outboxes import dead_letter, row, state

EFFECT = "INSERT INTO effect_of_test"


def replaying(cast: Cast, letter: str) -> Call:
    return lambda: cast.admin.post(f"/admin/dead-letters/{letter}/replay")


def discarding(cast: Cast, letter: str) -> Call:
    return lambda: cast.admin.post(f"/admin/dead-letters/{letter}/discard", {"reason": "of no use"})


def acts() -> int:
    return int(AuditEvent.select().count())


def test_two_who_replay_a_letter_at_once_replay_it_once(cast: Cast, letter: str, meet: Meeting) -> None:
    one, other = meet(replaying(cast, letter), replaying(cast, letter))
    assert (one.said, other.said) == ((200, None), (409, "invalid_state")), "replayed twice"
    assert (row(letter).replays, acts()) == (1, 1)


def test_two_who_replay_a_letter_at_once_have_one_effect(cast: Cast, letter: str, meet: Meeting, effects: None) -> None:
    """And the two messages that may come of it meet in the inbox."""
    meet(replaying(cast, letter), replaying(cast, letter))
    one, other = meet(lambda: deliver([letter]), lambda: deliver([letter]), before=EFFECT)
    assert (one.error, other.error) == (None, None)
    assert (counted_effects(), state(letter)) == ({letter: 1}, "confirmed")


def test_who_discards_what_is_being_replayed_comes_too_late(
    cast: Cast, letter: str, meet: Meeting
) -> None:
    replayed, discarded = meet(replaying(cast, letter), discarding(cast, letter))
    assert (replayed.said, discarded.said) == ((200, None), (409, "invalid_state"))
    assert (state(letter), acts()) == ("waiting", 1)


def test_who_replays_what_is_being_discarded_takes_it_back(
    cast: Cast, letter: str, meet: Meeting
) -> None:
    discarded, replayed = meet(discarding(cast, letter), replaying(cast, letter))
    assert (discarded.said, replayed.said) == ((200, None), (200, None))
    assert (state(letter), acts()) == ("waiting", 2)


def test_a_replay_that_meets_the_late_confirmation_finds_it_done(
    cast: Cast, letter: str, meet: Meeting, effects: None
) -> None:
    """The worker was taken for lost, and ends its work in the moment of the replay."""
    worker, replayed = meet(late_worker(letter), replaying(cast, letter))
    assert worker.error is None
    assert replayed.said == (409, "invalid_state")
    assert (counted_effects(), state(letter), acts()) == ({letter: 1}, "confirmed", 0)


def test_a_late_worker_and_the_replay_that_it_overtakes_have_one_effect(
    cast: Cast, letter: str, meet: Meeting, effects: None
) -> None:
    """The late one is about to commit when the replayed message is delivered to another worker."""
    assert replaying(cast, letter)().status_code == 200
    late, second = meet(late_worker(letter), lambda: deliver([letter]))
    assert (late.error, second.error, second.waited) == (None, None, True)
    assert (counted_effects(), state(letter)) == ({letter: 1}, "confirmed")


def late_worker(letter: str) -> Call:
    """A worker that counted its delivery long ago, from the entry into the inbox on."""

    def work() -> None:
        received = outbox.receive("accounting.post_invoice", [letter])
        if received:
            db.execute_sql("INSERT INTO effect_of_test VALUES (%s)", (letter,))
        outbox.confirm([letter])

    return in_one_transaction(work)


def test_two_who_replay_the_same_choice_share_it(cast: Cast, meet: Meeting) -> None:
    dead_letter()
    replay = in_one_transaction(lambda: dead_letters.replay_chosen("cli:root", chosen=Chosen(queue="accounting")).letters)
    one, other = meet(replay, replay)
    assert not other.waited, "waited for the other"
    assert (one.result, other.result) == (1, 0)
    assert count("outbox WHERE replays = 1") == acts() == 1


def test_a_letter_that_is_being_replayed_is_not_forgotten(cast: Cast, letter: str, meet: Meeting) -> None:
    dead_letters.discard("cli:root", UUID(letter), reason="of no use")
    long_after = later(retention.forget_old, days=retention.DISCARDED_KEPT.days + 1)
    replayed, swept = meet(replaying(cast, letter), long_after)
    assert (replayed.said, swept.result["discarded"]) == ((200, None), 0), "forgotten all the same"
    assert state(letter) == "waiting"


def test_who_replays_what_is_being_forgotten_finds_nothing(cast: Cast, letter: str, meet: Meeting) -> None:
    dead_letters.discard("cli:root", UUID(letter), reason="of no use")
    long_after = later(retention.forget_old, days=retention.DISCARDED_KEPT.days + 1)
    swept, replayed = meet(in_one_transaction(long_after), replaying(cast, letter))
    assert (swept.result["discarded"], replayed.said) == (1, (404, "not_found"))


def test_the_sweep_of_the_exhausted_leaves_a_letter_that_is_being_replayed(
    cast: Cast, letter: str, meet: Meeting
) -> None:
    replayed, swept = meet(replaying(cast, letter), outbox.bury_exhausted)
    assert (replayed.said, swept.result, swept.waited) == ((200, None), [], False)
    assert (state(letter), outbox.bury_exhausted()) == ("waiting", [])
