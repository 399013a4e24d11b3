"""Who does not come is given up on by itself, a day after the start or at the end, for the fee that was agreed."""

from datetime import timedelta
from uuid import UUID

import peewee
import pytest

from fleet import clock
from fleet.db import db
from fleet.errors import Conflict
from fleet.services import no_shows, rentals
from tests.races.scenes import activating, reserved, state_of
from tests.tasks.outboxes import at_once


@pytest.fixture
def now(monkeypatch):
    """Lets the service's clock be so many hours ahead."""
    real = clock.now

    def ahead(hours: float) -> None:
        monkeypatch.setattr(clock, "now", lambda: real() + timedelta(hours=hours))

    return ahead


def invoiced(rental: str) -> list[int]:
    rows = db.rows("SELECT total_amount FROM invoice WHERE rental_id = %s", (rental.rpartition("/")[2],))
    return [amount for (amount,) in rows]


def with_fee(rental: str, fee: int) -> str:
    """The rental as if its class had this no-show fee when it was booked."""
    db.execute_sql(
        "UPDATE rental SET terms = jsonb_set(terms, '{no_show_fee}', to_jsonb(%s::bigint)) WHERE id = %s",
        (fee, rental.rpartition("/")[2]),
    )
    return rental


def test_a_day_after_the_start_the_vehicle_is_free_and_the_fee_is_due(cast, now):
    rental = with_fee(reserved(cast, 1, 5), 5000)
    now(hours=24 + 22)
    assert no_shows.give_up() == 0
    now(hours=24 + 26)
    assert no_shows.give_up() == 1
    assert state_of(rental) == ("no_show", 0)
    assert len(invoiced(rental)) == 1
    assert no_shows.give_up() == 0


def test_it_is_billed_as_by_hand(cast, now):
    by_itself = with_fee(reserved(cast, 1, 3), 5000)
    by_hand = with_fee(reserved(cast, 4, 6), 5000)
    now(hours=24 + 26)
    assert no_shows.give_up() == 1
    now(hours=4 * 24 + 2)
    rentals.no_show(no_shows._SWEEP, UUID(by_hand.rpartition("/")[2]))
    assert invoiced(by_itself) == invoiced(by_hand) != []


def test_a_short_rental_is_given_up_at_its_end(cast, now):
    rental = reserved(cast, 1, 1.25)
    now(hours=24 + 4)
    assert no_shows.give_up() == 0
    now(hours=24 + 8)
    assert no_shows.give_up() == 1
    assert state_of(rental)[0] == "no_show"


def test_what_is_out_held_or_to_come_is_left_alone(cast, now):
    out, held = reserved(cast, -1 / 24, 2), reserved(cast, 3, 4, hold_minutes=60)
    assert activating(cast, out)().status_code == 200
    now(hours=30 * 24)
    assert no_shows.give_up() == 0
    assert (state_of(out)[0], state_of(held)[0]) == ("active", "held")


@pytest.mark.parametrize("refusal", [Conflict(), KeyError("terms"), peewee.ProgrammingError("no")])
def test_those_that_are_refused_hold_up_no_other(cast, now, monkeypatch, caplog, refusal):
    monkeypatch.setattr(no_shows, "BATCH", 2)
    *refused, last = [reserved(cast, day, day + 0.5) for day in range(1, 6)]
    refuse(monkeypatch, refused, refusal)
    now(hours=8 * 24)
    assert no_shows.give_up() == 1
    assert [state_of(rental)[0] for rental in (*refused, last)] == ["reserved"] * 4 + ["no_show"]
    assert caplog.messages.count("no-show refused") == 4


def test_without_the_database_a_run_ends(cast, now, monkeypatch):
    refuse(monkeypatch, [reserved(cast, 1, 2)], peewee.OperationalError("server closed the connection"))
    now(hours=5 * 24)
    with pytest.raises(peewee.OperationalError):
        no_shows.give_up()


def refuse(monkeypatch, refused, refusal) -> None:
    by_hand = rentals.no_show
    ids = {rental.rpartition("/")[2] for rental in refused}

    def refusing(actor, rental_id):
        if str(rental_id) in ids:
            raise refusal
        return by_hand(actor, rental_id)

    monkeypatch.setattr(rentals, "no_show", refusing)


def test_two_sweeps_at_once_bill_each_rental_once(cast, now):
    made = [with_fee(reserved(cast, day, day + 0.5), 5000) for day in range(1, 9)]
    now(hours=20 * 24)
    counts = at_once([no_shows.give_up] * 3)
    while counts[-1]:
        counts.append(no_shows.give_up())
    assert sum(counts) == len(made)
    assert [len(invoiced(rental)) for rental in made] == [1] * len(made)


def test_the_due_are_found_by_the_index_of_what_is_reserved(cast):
    times = {"now": clock.now(), "given_up": clock.now(), "after": clock.now(), "after_id": UUID(int=0), "limit": 1000}
    db.execute_sql("SET enable_seqscan = off")
    try:
        plan = "\n".join(line for (line,) in db.rows(f"EXPLAIN {no_shows.DUE}", times))
    finally:
        db.execute_sql("RESET enable_seqscan")
    assert "rental_reserved" in plan
