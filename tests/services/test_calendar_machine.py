"""Random days of a rental desk against the services, with the calendar on paper beside them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
import time_machine
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fleet.db import db
from fleet.embedded import Databases
from fleet.errors import Invalid, InvalidState, NoVehicleAvailable, RentalOverlap
from fleet.idempotency import Claim, StoredAnswer
from fleet.rules.lifecycles import IllegalTransition
from fleet.rules.periods import PeriodError
from fleet.rules.pricing import Return
from fleet.services import calendar, rental_changes, rentals, reservations
from fleet.services.reservations import Wish
from tests.cast import Cast, insert
from tests.races.mutation import empty
from tests.services.calendar_model import OCCUPYING, Block, Car, Paper, Refused

OPENING = datetime(2030, 3, 4, 8, tzinfo=UTC)
QUARTER = timedelta(minutes=15)
# Times are quarters of an hour around now: close together, so that wishes meet.
STARTS = st.integers(-6, 8) | st.integers(-6, 60)
LENGTHS = st.integers(2, 40)
MOST_BY_HAND = 4
PICKS = st.integers(0, 10_000)
USED = (
    "invoice_line", "invoice", "rental_charge", "odometer_reading", "vehicle_block", "rental", "outbox", "vehicle",
    "idempotency_record",
)  # fmt: skip

WHY: dict[type[Exception], str] = {
    RentalOverlap: "taken",
    NoVehicleAvailable: "taken",
    InvalidState: "state",
    IllegalTransition: "state",
    Invalid: "invalid",
    PeriodError: "invalid",
}


class CalendarMachine(RuleBasedStateMachine):
    """Each rule does one thing to the services and to the paper; both must do it, or refuse it for the same reason."""

    cast: Cast
    databases: Databases

    def __init__(self) -> None:
        super().__init__()
        self.traveller = time_machine.travel(OPENING, tick=False)
        self.clock = self.traveller.start()
        empty(self.databases, *USED)
        self.paper = Paper(self._cars(), OPENING)
        self.by_hand: list[UUID] = []
        self.versions: dict[UUID, tuple[int, tuple[Any, ...]]] = {}
        self.branches = self.cast.lisbon, self._porto()
        self.actor = self.cast.agent.actor

    def teardown(self) -> None:
        self.traveller.stop()

    def _porto(self) -> UUID:
        return insert("branch", code=f"B{uuid4()}", name="Porto", timezone="Europe/Lisbon", currency="EUR", tax_code="PT-23")

    def _cars(self) -> list[Car]:
        """Two of a class with turnaround times before and after, and one of a class without."""
        padded, bare = (
            insert("vehicle_class", code=f"C{uuid4()}", name="C", daily_rate=100, currency="EUR", **padding)
            for padding in ({"turnaround_before_minutes": 30, "turnaround_after_minutes": 60}, {})
        )
        times = {padded: (2 * QUARTER, 4 * QUARTER), bare: (0 * QUARTER, 0 * QUARTER)}
        return [Car(self.cast.vehicle(class_id=class_id), class_id, *times[class_id]) for class_id in (padded, padded, bare)]

    # --- wishes -------------------------------------------------------------------------------------------------------

    @rule(pick=PICKS, start=STARTS, length=LENGTHS, hold=st.none() | st.integers(1, 8))
    def reserve_a_vehicle(self, pick: int, start: int, length: int, hold: int | None) -> None:
        car = self.paper.cars[pick % len(self.paper.cars)]
        self._reserve([car], start, length, hold, vehicle_id=car.id, dropoff_branch_id=self.branches[pick % 2])

    @rule(pick=PICKS, start=STARTS, length=LENGTHS, hold=st.none() | st.integers(1, 8))
    def book_a_class(self, pick: int, start: int, length: int, hold: int | None) -> None:
        class_id = self.paper.cars[pick % len(self.paper.cars)].class_id
        cars = [car for car in self.paper.cars if car.class_id == class_id]
        self._reserve(cars, start, length, hold, class_id=class_id)

    def _reserve(self, cars: list[Car], start: int, length: int, hold: int | None, **wanted: Any) -> None:
        begin, end = self._window(start, length)
        wish = Wish(
            customer_id=self.cast.ana.customer_id or uuid4(),
            start_at=begin,
            end_at=end,
            hold_minutes=hold * 15 if hold else None,
            **wanted,
        )
        claim = Claim("user", "POST", "/v1/rentals", str(uuid4()), b"fingerprint")
        with self._expected(lambda: self.paper.reserve(cars, begin, end, hold * QUARTER if hold else None)) as expected:
            given = reservations.reserve(
                self.actor, wish, claim=claim, answer_of=lambda document: StoredAnswer(201, {}, orjson.dumps(document))
            )
            for booking in expected:
                self.paper.book(UUID(orjson.loads(given.answer.body)["id"]), booking)

    @rule(pick=PICKS)
    @precondition(lambda self: self._any("held"))
    def confirm(self, pick: int) -> None:
        key = self._some_booking(pick, "held")
        with self._expected(lambda: self.paper.confirm(key)):
            rentals.confirm(self.actor, key)

    @rule(pick=PICKS, start=st.none() | STARTS, length=LENGTHS)
    @precondition(lambda self: self._any(*OCCUPYING))
    def change_the_window(self, pick: int, start: int | None, length: int) -> None:
        key = self._some_booking(pick, *OCCUPYING)
        booking = self.paper.bookings[key]
        begin = None if start is None else self.paper.now + start * QUARTER
        end = (begin or booking.start) + length * QUARTER
        changes = {"end_at": end} if begin is None else {"start_at": begin, "end_at": end}
        with self._expected(lambda: self.paper.change(key, start=begin, end=end, car=None)):
            rental_changes.change(self.actor, key, expected_version=None, changes=changes)

    @rule(pick=PICKS, other=PICKS)
    @precondition(lambda self: self._any(*OCCUPYING))
    def change_the_vehicle(self, pick: int, other: int) -> None:
        key, car = self._some_booking(pick, *OCCUPYING), self.paper.cars[other % len(self.paper.cars)]
        with self._expected(lambda: self.paper.change(key, start=None, end=None, car=car)):
            rental_changes.change(self.actor, key, expected_version=None, changes={"vehicle_id": car.id})

    @rule(pick=PICKS)
    @precondition(lambda self: self._any("reserved"))
    def activate(self, pick: int) -> None:
        key = self._some_booking(pick, "reserved")
        with self._expected(lambda: self.paper.activate(key)):
            rentals.activate(self.actor, key, start_odometer_km=odometer_km_at(self.paper.now), fuel_percent=None)

    @rule(pick=PICKS, length=st.integers(4, 12))
    def somebody_at_the_desk_leaves_with_a_vehicle(self, pick: int, length: int) -> None:
        self.reserve_a_vehicle(pick=pick, start=0, length=length, hold=None)
        if self._any("reserved"):
            self.activate(pick=pick)

    @rule(pick=PICKS, quarters_ago=st.integers(0, 2))
    @precondition(lambda self: self._any("active"))
    def complete(self, pick: int, quarters_ago: int) -> None:
        key, returned = self._some_booking(pick, "active"), self.paper.now - quarters_ago * QUARTER
        with self._expected(lambda: self.paper.complete(key, returned)):
            rental = rentals.complete(self.actor, key, returned=Return(returned, odometer_km_at(returned)))
            assert branch_of(rental.vehicle_id) == rental.dropoff_branch_id

    @rule(pick=PICKS)
    @precondition(lambda self: self._any("held", "reserved"))
    def cancel(self, pick: int) -> None:
        key = self._some_booking(pick, "held", "reserved")
        with self._expected(lambda: self.paper.cancel(key)):
            rentals.cancel(self.actor, key, reason=None)

    @rule(pick=PICKS)
    @precondition(lambda self: self._any("reserved"))
    def give_up_on_the_customer(self, pick: int) -> None:
        key = self._some_booking(pick, "reserved")
        with self._expected(lambda: self.paper.no_show(key)):
            rentals.no_show(self.actor, key)

    @rule(pick=PICKS, start=STARTS, length=st.integers(1, 8))
    @precondition(lambda self: len(self.by_hand) < MOST_BY_HAND)
    def block(self, pick: int, start: int, length: int) -> None:
        car = self.paper.cars[pick % len(self.paper.cars)]
        begin, end = self._window(start, length)
        with self._expected(lambda: self.paper.block(car, begin, end)) as expected:
            made = calendar.block(self.cast.manager.actor, car.id, start_at=begin, end_at=end, reason=None)
            for wanted in expected:
                self.paper.live[made["id"]] = wanted
                self.by_hand.append(made["id"])

    @rule(pick=PICKS)
    @precondition(lambda self: self.by_hand)
    def unblock(self, pick: int) -> None:
        block_id = self.by_hand[pick % len(self.by_hand)]
        vehicle_id = db.rows("SELECT vehicle_id FROM vehicle_block WHERE id = %s", (block_id,))[0][0]
        calendar.unblock(self.cast.manager.actor, vehicle_id, block_id)
        self.paper.live.pop(block_id, None)

    # --- time and sweeps ----------------------------------------------------------------------------------------------

    @rule(quarters=st.integers(1, 6) | st.integers(1, 24))
    def time_passes(self, quarters: int) -> None:
        self.paper.now += quarters * QUARTER
        self.clock.move_to(self.paper.now)

    @rule()
    @precondition(lambda self: self._any("held") and self.paper.now > OPENING)
    def sweep_the_holds(self) -> None:
        assert reservations.expire_holds() == self.paper.expire_holds()

    @rule()
    @precondition(lambda self: self.paper.late())
    def sweep_the_late(self) -> None:
        assert calendar.extend_overdue() == self.paper.extend_overdue()

    # --- what is always true ------------------------------------------------------------------------------------------

    @invariant()
    def no_two_live_blocks_overlap_and_all_are_as_on_the_paper(self) -> None:
        live = live_blocks()
        pairs = combinations(live.values(), 2)
        assert not [(one, other) for one, other in pairs if one.clashes(other)]
        assert live == self.paper.live

    @invariant()
    def every_rental_that_stands_has_one_live_block_and_others_none(self) -> None:
        counted = db.rows(
            """SELECT rental.id, status, count(b.id) FILTER (WHERE b.live) FROM rental
            LEFT JOIN vehicle_block b ON b.rental_id = rental.id GROUP BY rental.id"""
        )
        assert [(status, live) for _, status, live in counted if live != (status in OCCUPYING)] == []

    @invariant()
    def rentals_are_as_on_the_paper_and_their_versions_only_rise(self) -> None:
        found = db.rows("SELECT id, version, status, vehicle_id, start_at, end_at FROM rental")
        for key, version, *facts in found:
            before, known = self.versions.get(key, (0, ()))
            assert version >= before and (version > before or tuple(facts) == known)
            self.versions[key] = version, tuple(facts)
        paper = {key: [item.status, item.car.id, item.start, item.end] for key, item in self.paper.bookings.items()}
        assert {key: facts for key, _, *facts in found} == paper

    # --- hands --------------------------------------------------------------------------------------------------------

    def _window(self, start: int, length: int) -> tuple[datetime, datetime]:
        begin = self.paper.now + start * QUARTER
        return begin, begin + length * QUARTER

    def _any(self, *states: str) -> bool:
        return any(booking.status in states for booking in self.paper.bookings.values())

    def _some_booking(self, pick: int, *fitting: str) -> UUID:
        """One in a fitting state, four times in five; else any, to be refused."""
        keys = list(self.paper.bookings)
        standing = [key for key in keys if self.paper.bookings[key].status in fitting]
        chosen = keys if pick % 5 == 4 else standing or keys
        return chosen[pick // 5 % len(chosen)]

    @contextmanager
    def _expected(self, on_paper: Callable[[], Any]) -> Iterator[list[Any]]:
        """The block must be refused as the paper refuses, or go through with what the paper says that it gives."""
        given: list[Any] = []
        why: str | None = None
        try:
            given.append(on_paper())
        except Refused as refused:
            why = refused.why
        try:
            yield given
        except tuple(WHY) as error:
            assert WHY[type(error)] == why, f"the service refuses ({error!r}), the paper says {why or 'yes'}"
        else:
            assert why is None, f"the service does it, the paper says {why}"


def odometer_km_at(instant: datetime) -> int:
    """What every odometer shows then: it never falls, however late it is told."""
    return 1000 + int((instant - OPENING) / QUARTER)


def branch_of(vehicle_id: UUID) -> UUID:
    branch_id: UUID = db.rows("SELECT branch_id FROM vehicle WHERE id = %s", (vehicle_id,))[0][0]
    return branch_id


def live_blocks() -> dict[UUID, Block]:
    rows = db.rows(
        """SELECT coalesce(rental_id, id), vehicle_id, start_at, end_at, lower(occupied), upper(occupied)
        FROM vehicle_block WHERE live"""
    )
    return {key: Block(*times) for key, *times in rows}


@pytest.mark.slow
def test_the_calendar_of_random_days_is_as_on_paper(
    cast: Cast, databases: Databases, hold_limit: Callable[[int], None]
) -> None:
    hold_limit(0)
    machine = type("Machine", (CalendarMachine,), {"cast": cast, "databases": databases})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
