"""Taking a vehicle's time: reserve it, hold it, and let holds expire. The hottest path of the service.

One attempt is one short transaction of two statements: read all that deciding needs, decide here, write all or nothing. The
exclusion constraint on the calendar has the last word; whoever loses gets an empty answer and no exception.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import peewee

from fleet import clock, config, logs
from fleet.auth import Actor
from fleet.db import Statement, atomic, committed, db
from fleet.errors import (
    NO_OVERLAP,
    Invalid,
    NoVehicleAvailable,
    RentalOverlap,
    TooManyHolds,
    TooManyReservations,
    Unavailable,
    constraint_of,
)
from fleet.idempotency import Claim, Given, StoredAnswer
from fleet.models.rentals import (
    ANY_FREE_OF_CLASS,
    COUNT_OPEN,
    CUSTOMER_TO_BOOK_FOR_UPDATE,
    EXPIRE_HOLDS,
    PICK_TO_RESERVE,
    READ_TO_RESERVE,
    WRITE_RESERVATION,
)
from fleet.rules import pricing
from fleet.rules.periods import Period, rental_period
from fleet.services import calendar, events, outbox
from fleet.services.terms import Offer, offer_of

OVERDUE_MARGIN = timedelta(minutes=15)
"""How long a vehicle that is overdue counts as taken from now on; the sweep of `calendar` keeps the block as long."""

_PATIENCE_S = 2.0
Document = dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What a customer wants: a vehicle, or any vehicle of a class, for a period. `hold_minutes` only holds it."""

    customer_id: UUID
    start_at: datetime
    end_at: datetime
    vehicle_id: UUID | None = None
    class_id: UUID | None = None
    pickup_branch_id: UUID | None = None
    dropoff_branch_id: UUID | None = None
    deposit_amount: int = 0
    notes: str | None = None
    hold_minutes: int | None = None


def reserve(
    actor: Actor, wish: Wish, *, claim: Claim, answer_of: Callable[[Document], StoredAnswer]
) -> Given:
    """Reserve (or hold) a vehicle for a customer, exactly once for one key.

    `answer_of` gives the answer as JSON; without names and notes it is also what the event tells.
    Raises Invalid, RentalOverlap with alternatives, NoVehicleAvailable, TooManyHolds, TooManyReservations, Unavailable,
    InProgress.
    """
    now = clock.now()
    period = rental_period(wish.start_at, wish.end_at, now=now, may_backdate=actor.can("rentals.backdate"))
    deadline = time.monotonic() + _PATIENCE_S
    holds_expired = False
    while True:
        attempt = _Attempt(actor, wish, period, now, claim, answer_of)
        try:
            return committed(attempt.by_vehicle if wish.vehicle_id else attempt.by_class)
        except _Taken:
            if not holds_expired and attempt.held_in_vain and expire_holds(vehicle_id=wish.vehicle_id, class_id=wish.class_id):
                # What stood in the way was a hold whose time is over and whom the sweep had not met yet.
                holds_expired = True
            elif wish.vehicle_id:
                raise _overlap(wish.vehicle_id, attempt.offer, period) from None
            elif not attempt.worth_another_try or time.monotonic() > deadline:
                raise _none_free(attempt) from None
            else:
                time.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - spreads the rivals, keeps no secret


@atomic
def expire_holds(*, vehicle_id: UUID | None = None, class_id: UUID | None = None, limit: int = 200) -> int:
    """Let holds whose time is over expire, and free their vehicles; returns how many. Harmless when two run."""
    due = {"now": clock.now(), "vehicle_id": vehicle_id, "class_id": class_id, "limit": limit}
    expired = [rental_id for (rental_id,) in db.rows(EXPIRE_HOLDS, due)]
    if expired:
        events.of_rentals("rental.expired", expired)
    return len(expired)


class _Taken(Exception):
    """This attempt finds nothing free; its transaction is to be rolled back."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What READ_TO_RESERVE and PICK_TO_RESERVE read, in the order of their columns."""

    ours: bool
    fingerprint: bytes | None
    status: int | None
    headers: dict[str, str]
    body: bytes | None
    customer_id: UUID | None
    customer_status: str
    first_name: str
    last_name: str
    out_overdue: bool
    taken: bool
    held_in_vain: bool
    number: int
    offer: Offer | None


_COLUMNS_BEFORE_OFFER = 13


class _Attempt:
    """One transaction's try at a wish."""

    def __init__(
        self,
        actor: Actor,
        wish: Wish,
        period: Period,
        now: datetime,
        claim: Claim,
        answer_of: Callable[[Document], StoredAnswer],
    ) -> None:
        self.actor, self.wish, self.period, self.now = actor, wish, period, now
        self.claim, self.answer_of = claim, answer_of
        self.offer: Offer | None = None
        self.worth_another_try = True
        self.held_in_vain = False

    def by_vehicle(self) -> Given:
        """Reserve the vehicle that was asked for. Raises _Taken."""
        seen = self._see(READ_TO_RESERVE, self.wish.vehicle_id)
        first = self._first_answer(seen)
        if first is not None:
            return first
        self._check_customer(seen)
        if seen.offer is None:
            raise Invalid.field("vehicle_id", "not_found", "is no vehicle of this fleet")
        seen.offer.check_rentable()
        self.held_in_vain = seen.held_in_vain
        if seen.taken or (seen.out_overdue and self.period.start <= self.now + OVERDUE_MARGIN):
            raise _Taken
        return self._write(seen, seen.offer)

    def by_class(self) -> Given:
        """Reserve the best-fitting free vehicle of the class. Raises _Taken, also when a rival was quicker."""
        seen = self._see(PICK_TO_RESERVE, self.wish.class_id)
        first = self._first_answer(seen)
        if first is not None:
            return first
        self._check_customer(seen)
        if seen.offer is None:
            self.held_in_vain = True
            self.worth_another_try = bool(db.run(ANY_FREE_OF_CLASS, self._asked(self.wish.class_id))[0][0])
            raise _Taken
        return self._write(seen, seen.offer)

    def _see(self, statement: Statement, wanted_id: UUID | None) -> _Seen:
        row = db.run(statement, self._asked(wanted_id))[0]
        values: Any = (*row[:_COLUMNS_BEFORE_OFFER], offer_of(row[_COLUMNS_BEFORE_OFFER:]))
        seen = _Seen(*values)
        self.offer = seen.offer
        return seen

    def _asked(self, wanted_id: UUID | None) -> tuple[Any, ...]:
        wish, period = self.wish, self.period
        wanted = (wish.customer_id, wanted_id, wish.pickup_branch_id)
        return (self.claim.lock, *self.claim.names, *wanted, self.now, period.start, period.end)

    def _first_answer(self, seen: _Seen) -> Given | None:
        first = self.claim.judge(
            ours=seen.ours, fingerprint=seen.fingerprint, status=seen.status, headers=seen.headers, body=seen.body
        )
        return None if first is None else Given(first, replayed=True)

    def _check_customer(self, seen: _Seen) -> None:
        foreign = not self.actor.can("rentals.read_all") and seen.customer_id != self.actor.customer_id
        if seen.customer_id is None or foreign:
            raise Invalid.field("customer_id", "not_found", "is no customer of this fleet")
        if seen.customer_status != "active":
            raise Invalid.field("customer_id", "not_active", "is a customer who was deactivated")

    def _check_open(self) -> None:
        """Raises TooManyHolds, TooManyReservations where the customer has as many open ones as may be.

        Holds are counted whoever asks, reservations where customers ask for themselves: a counter may book a whole fleet for a
        company. It takes two more statements, which a reservation by staff is spared.
        """
        settings, myself = config.current(), not self.actor.can("rentals.read_all")
        most_holds = settings.max_open_holds if self.wish.hold_minutes is not None else 0
        most_open = settings.max_open_reservations if myself else 0
        if not (most_holds or most_open):
            return
        db.run(CUSTOMER_TO_BOOK_FOR_UPDATE, (self.wish.customer_id,))
        holds, open_ = db.run(COUNT_OPEN, (self.wish.customer_id, self.now))[0]
        if most_holds and holds >= most_holds:
            raise TooManyHolds(f"A customer has {most_holds} open holds at most")
        if most_open and open_ >= most_open:
            raise TooManyReservations(f"A customer has {most_open} open reservations and holds at most")

    def _write(self, seen: _Seen, offer: Offer) -> Given:
        self._check_open()
        document = self._document(seen, offer)
        answer = self.answer_of(document)
        try:
            db.run_and_commit(WRITE_RESERVATION, self._written_values(document, offer, answer))
        except peewee.IntegrityError as error:
            if constraint_of(error) == NO_OVERLAP:
                raise _Taken from None
            raise
        return Given(answer, replayed=False)

    def _document(self, seen: _Seen, offer: Offer) -> Document:
        """The rental as it will stand, before it is written: the answer is stored by the very statement that writes it."""
        wish = self.wish
        base = pricing.base(offer.terms, self.period)
        held = wish.hold_minutes is not None
        branch_id = wish.pickup_branch_id or offer.branch_id
        blank = dict.fromkeys(_BLANK_AT_FIRST)
        return blank | {
            "id": clock.new_id(),
            "number": f"RNT-{self.now.year}-{seen.number:06d}",
            "status": "held" if held else "reserved",
            "vehicle_id": offer.vehicle_id,
            "class_id": offer.class_id,
            "customer_id": wish.customer_id,
            "start_at": self.period.start,
            "end_at": self.period.end,
            "hold_expires_at": self.now + timedelta(minutes=wish.hold_minutes) if wish.hold_minutes else None,
            "pickup_branch_id": branch_id,
            "dropoff_branch_id": wish.dropoff_branch_id or branch_id,
            "daily_rate": offer.terms.daily_rate,
            "currency": offer.terms.currency,
            "base_amount": base.net_amount,
            "total_amount": base.net_amount,
            "deposit_amount": wish.deposit_amount,
            "notes": wish.notes,
            "overdue": False,
            "version": 1,
            "created_at": self.now,
            "updated_at": self.now,
            "plate_number": offer.plate_number,
            "make": offer.make,
            "model": offer.model,
            "first_name": seen.first_name,
            "last_name": seen.last_name,
        }

    def _written_values(self, document: Document, offer: Offer, answer: StoredAnswer) -> tuple[Any, ...]:
        padded = offer.padded(self.period)
        status = document["status"]
        topic = f"notifications.rental_{status}"
        block = (
            clock.new_id(), offer.vehicle_id, "hold" if status == "held" else "reservation",
            self.period.start, self.period.end, padded.start, padded.end, self.actor.user_id,
        )  # fmt: skip
        rental = (
            document["id"], document["number"], status, document["class_id"], document["customer_id"],
            document["hold_expires_at"], document["pickup_branch_id"], document["dropoff_branch_id"],
            document["daily_rate"], document["currency"], document["base_amount"], document["deposit_amount"],
            offer.terms.as_json(), document["notes"], self.now,
        )  # fmt: skip
        asked_by = (logs.current("request_id"), logs.current("traceparent"))
        message: tuple[Any, ...] = (clock.new_id(), topic, outbox.queue_of(topic), {}, *asked_by)
        record = (*self.claim.names, self.claim.fingerprint, answer.status, answer.headers, answer.body)
        return (*block, *rental, *message, *record, clock.new_id())


def _overlap(vehicle_id: UUID, offer: Offer | None, period: Period) -> RentalOverlap:
    class_id = offer.class_id if offer else None
    branch_id = offer.branch_id if offer else None
    others = calendar.alternatives(vehicle_id=vehicle_id, class_id=class_id, branch_id=branch_id, period=period)
    return RentalOverlap(extra={"alternatives": others})


def _none_free(attempt: _Attempt) -> Exception:
    if attempt.worth_another_try:
        return Unavailable("Many book this class at this moment; try again")
    return NoVehicleAvailable()


_BLANK_AT_FIRST = (
    "actual_start_at", "actual_end_at", "start_odometer_km", "end_odometer_km", "start_fuel_percent",
    "end_fuel_percent", "cancel_reason", "charges",
)  # fmt: skip

