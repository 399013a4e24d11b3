"""The calendar as a dispatcher would keep it on paper: what is taken, and what each wish would be told.

It knows nothing of the service's code. Every method changes the paper as the service should change its tables, or raises
Refused and leaves the paper as it was, but for holds that a wish found expired in its way.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

MARGIN = timedelta(minutes=15)
EARLIEST_HANDOVER = timedelta(days=1)
HOUR = timedelta(hours=1)
OCCUPYING = {"held", "reserved", "active"}


class Refused(Exception):
    """`taken`, `state` or `invalid`: why the service should refuse."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Block(NamedTuple):
    """What occupies a vehicle: the agreed time, and the time with the turnaround around it."""

    vehicle: UUID
    start: datetime
    end: datetime
    occupied_from: datetime
    occupied_to: datetime

    def clashes(self, other: "Block") -> bool:
        same = self.vehicle == other.vehicle
        return same and self.occupied_from < other.occupied_to and other.occupied_from < self.occupied_to


@dataclass(frozen=True)
class Car:
    """A vehicle of a class, with its turnaround times."""

    id: UUID
    class_id: UUID
    before: timedelta
    after: timedelta

    def block(self, start: datetime, end: datetime) -> Block:
        return Block(self.id, start, end, start - self.before, end + self.after)


@dataclass
class Booking:
    """A rental as the paper has it."""

    status: str
    car: Car
    start: datetime
    end: datetime
    hold_until: datetime | None = None
    handed_over: datetime | None = None


@dataclass
class Paper:
    """Every booking and every live block; a block's key is its rental, or itself where it was made by hand."""

    cars: list[Car]
    now: datetime
    bookings: dict[UUID, Booking] = field(default_factory=dict)
    live: dict[UUID, Block] = field(default_factory=dict)

    # --- wishes -------------------------------------------------------------------------------------------------------

    def reserve(self, cars: Iterable[Car], start: datetime, end: datetime, hold: timedelta | None) -> Booking:
        """The booking that the wish should get: of the best fit among these cars."""
        self._check_period(start, end)
        cars = list(cars)
        chosen = self._best_fit(cars, start, end)
        if chosen is None and self._expire(booking for booking in self.bookings.values() if booking.car in cars):
            chosen = self._best_fit(cars, start, end)
        if chosen is None:
            raise Refused("taken")
        held = hold is not None
        return Booking("held" if held else "reserved", chosen, start, end, self.now + hold if hold else None)

    def book(self, key: UUID, booking: Booking) -> None:
        self.bookings[key] = booking
        self.live[key] = booking.car.block(booking.start, booking.end)

    def confirm(self, key: UUID) -> None:
        booking = self._in_state(key, "held")
        if booking.hold_until is None or booking.hold_until <= self.now:
            raise Refused("state")
        booking.status, booking.hold_until = "reserved", None

    def change(self, key: UUID, *, start: datetime | None, end: datetime | None, car: Car | None) -> None:
        booking = self._in_state(key, *OCCUPYING)
        if booking.hold_until is not None and booking.hold_until <= self.now:
            raise Refused("state")
        start, end, car = start or booking.start, end or booking.end, car or booking.car
        if booking.status == "active":
            self._check_extension(booking, start, end)
        self._check_period(start, end, untouched=start == booking.start)
        if booking.status == "active" and car != booking.car:
            raise Refused("state")
        occupied_from = min(start, booking.handed_over) if booking.handed_over else start
        if self._late_in_the_way(car, occupied_from, but=booking):
            raise Refused("taken")
        self._move(key, car.block(occupied_from, end))
        booking.start, booking.end, booking.car = start, end, car

    def activate(self, key: UUID) -> None:
        booking = self._in_state(key, "reserved")
        if self.now >= booking.end or self.now < booking.start - EARLIEST_HANDOVER or any(self._out(booking.car)):
            raise Refused("state")
        if self.now < booking.start:
            self._move(key, booking.car.block(self.now, booking.end))
        booking.status, booking.handed_over = "active", self.now

    def complete(self, key: UUID, returned: datetime) -> None:
        booking = self._in_state(key, "active")
        if booking.handed_over and returned < booking.handed_over:
            raise Refused("invalid")
        self._end(key, "completed")

    def cancel(self, key: UUID) -> None:
        self._in_state(key, "held", "reserved")
        self._end(key, "cancelled")

    def no_show(self, key: UUID) -> None:
        if self.now < self._in_state(key, "reserved").start:
            raise Refused("state")
        self._end(key, "no_show")

    def block(self, car: Car, start: datetime, end: datetime) -> Block:
        """The block by hand that should be made: without turnaround, and never where something else is."""
        if end <= self.now:
            raise Refused("invalid")
        wanted = Block(car.id, start, end, start, end)
        if self._late_in_the_way(car, start) or self._clashes(wanted):
            raise Refused("taken")
        return wanted

    # --- sweeps -------------------------------------------------------------------------------------------------------

    def expire_holds(self) -> int:
        return self._expire(self.bookings.values())

    def late(self) -> list[UUID]:
        return [key for key, item in self.bookings.items() if item.status == "active" and item.end <= self.now]

    def extend_overdue(self) -> int:
        """Let late cars block until the margin is over, or up to what comes next; how many blocks grew."""
        grown = {key: self._grown(self.live[key]) for key in self.late() if self.live[key].end < self.now + MARGIN}
        changed = {key: block for key, block in grown.items() if block != self.live[key]}
        self.live.update(changed)
        return len(changed)

    def _grown(self, block: Block) -> Block:
        following = [b.occupied_from for b in self.live.values() if b.vehicle == block.vehicle]
        until = self.now + MARGIN
        forever = until + timedelta(days=1000)
        room = min((start for start in following if start >= block.occupied_to), default=forever)
        padding = block.occupied_to - block.end
        return block._replace(end=min(until, room), occupied_to=min(until + padding, room))

    # --- rules --------------------------------------------------------------------------------------------------------

    def _check_period(self, start: datetime, end: datetime, *, untouched: bool = False) -> None:
        if end - start < HOUR or (start < self.now - HOUR and not untouched):
            raise Refused("invalid")

    def _check_extension(self, booking: Booking, start: datetime, end: datetime) -> None:
        if start != booking.start:
            raise Refused("state")
        if end <= self.now:
            raise Refused("invalid")

    def _in_state(self, key: UUID, *states: str) -> Booking:
        booking = self.bookings[key]
        if booking.status not in states:
            raise Refused("state")
        return booking

    def _best_fit(self, cars: list[Car], start: datetime, end: datetime) -> Car | None:
        """The free car that was busy until shortly before, and of several such the first by id."""
        free = [
            car for car in cars if not self._late_in_the_way(car, start) and not self._clashes(car.block(start, end))
        ]
        never = datetime.min.replace(tzinfo=start.tzinfo)

        def idle_since(car: Car) -> datetime:
            ends = [block.end for block in self.live.values() if block.vehicle == car.id and block.end <= start]
            return max(ends, default=never)

        return min(free, key=lambda car: (start - idle_since(car), car.id), default=None)

    def _late_in_the_way(self, car: Car, start: datetime, *, but: Booking | None = None) -> bool:
        late = (booking for booking in self._out(car) if booking is not but)
        return start <= self.now + MARGIN and any(booking.end <= self.now for booking in late)

    def _out(self, car: Car) -> list[Booking]:
        return [booking for booking in self.bookings.values() if booking.car == car and booking.status == "active"]

    def _clashes(self, wanted: Block, *, but: UUID | None = None) -> bool:
        return any(block.clashes(wanted) for key, block in self.live.items() if key != but)

    def _move(self, key: UUID, wanted: Block) -> None:
        if self._clashes(wanted, but=key):
            raise Refused("taken")
        self.live[key] = wanted

    def _end(self, key: UUID, status: str) -> None:
        self.bookings[key].status = status
        del self.live[key]

    def _expire(self, bookings: Iterable[Booking]) -> int:
        over = [item for item in bookings if item.status == "held" and item.hold_until and item.hold_until <= self.now]
        for key in [key for key, item in self.bookings.items() if any(item is one for one in over)]:
            self._end(key, "expired")
        return len(over)
