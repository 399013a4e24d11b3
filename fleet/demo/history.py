"""A year in the life of one vehicle: rentals in every state, priced by the real rules. Pure: rows in, rows out."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

from psycopg2.extras import DateTimeTZRange

from fleet.demo.catalog import FINDINGS
from fleet.rules import pricing
from fleet.rules.periods import Period
from fleet.rules.pricing import ExtraCharge, Line, Return, Terms

PAST, FUTURE = timedelta(days=365), timedelta(days=60)
_DAYS = (1, 1, 2, 2, 3, 3, 4, 5, 7, 10, 14)
_TURNAROUND = timedelta(hours=1)
SOON = timedelta(days=7)
LATE = timedelta(days=1)


def id_at(instant: datetime) -> UUID:
    """An identifier as it would have been made then, so that lists show the demo in the order of its time (RFC 9562)."""
    milliseconds = int(instant.timestamp() * 1000)
    below = uuid4().int & ((1 << 76) - 1)
    return UUID(int=milliseconds << 80 | 7 << 76 | below)


@dataclass
class Subject:
    """The vehicle whose year is told."""

    vehicle_id: UUID
    class_id: UUID
    branch_id: UUID
    terms: Terms
    odometer_km: int


@dataclass
class History:
    """Rows by table, in the order in which they came about."""

    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    invoices: list[tuple[datetime, UUID, UUID, list[Line], Terms]] = field(default_factory=list)
    odometers: dict[UUID, int] = field(default_factory=dict)


def tell(history: History, subject: Subject, customers: list[UUID], now: datetime, chance: Random) -> None:
    """Add the subject's year, and its next weeks, to the history."""
    start = now - PAST + timedelta(hours=chance.randrange(96))
    while start < now + FUTURE:
        start = start.replace(minute=chance.choice((0, 15, 30, 45)), second=0, microsecond=0)
        booked = Period(start, start + timedelta(days=chance.choice(_DAYS), hours=chance.choice((0, 0, 2, 5))))
        _Booking(history, subject, booked, chance.choice(customers), now, chance).tell()
        # The past was busy; the next weeks are open enough for a newcomer to book something.
        gap_days = chance.choice((0, 0, 1, 1, 2, 4)) if booked.end < now - SOON else chance.choice((6, 9, 14, 20, 30))
        start = booked.end + _TURNAROUND + timedelta(days=gap_days, hours=chance.randrange(1, 12))
    history.odometers[subject.vehicle_id] = subject.odometer_km


class _Booking:
    """One rental of the history, from its booking to its end, as far as it has come."""

    def __init__(
        self, history: History, subject: Subject, booked: Period, customer_id: UUID, now: datetime, chance: Random
    ) -> None:
        self.history, self.subject, self.booked = history, subject, booked
        self.now, self.chance = now, chance
        self.made_at = min(booked.start - timedelta(days=chance.randrange(1, 40), minutes=chance.randrange(600)), now)
        base = pricing.base(subject.terms, booked).net_amount
        self.rental: dict[str, Any] = {
            "id": id_at(self.made_at),
            "number": None,
            "status": "reserved",
            "vehicle_id": subject.vehicle_id,
            "class_id": subject.class_id,
            "customer_id": customer_id,
            "start_at": booked.start,
            "end_at": booked.end,
            "hold_expires_at": None,
            "actual_start_at": None,
            "actual_end_at": None,
            "pickup_branch_id": subject.branch_id,
            "dropoff_branch_id": subject.branch_id,
            "daily_rate": subject.terms.daily_rate,
            "currency": subject.terms.currency,
            "base_amount": base,
            "total_amount": base,
            "deposit_amount": 30_000,
            "terms": subject.terms.as_json(),
            "start_odometer_km": None,
            "end_odometer_km": None,
            "start_fuel_percent": None,
            "end_fuel_percent": None,
            "created_at": self.made_at,
            "updated_at": self.made_at,
        }

    def tell(self) -> None:
        fate = self.chance.random()
        if self.now - LATE < self.booked.end <= self.now and fate > 0.5:
            self._hand_over()
            self._block("rental", live=True, end=self.now + timedelta(minutes=15))
        elif self.booked.end <= self.now:
            if fate < 0.05:
                self._cancel()
            elif fate < 0.07:
                self._not_collected()
            elif fate < 0.09:
                self._let_expire()
            else:
                self._complete()
        elif self.booked.start <= self.now:
            self._hand_over()
            self._block("rental", live=True)
        elif fate < 0.1:
            self._hold()
        else:
            self._block("reservation", live=True)
        self.history.rows["rental"].append(self.rental)

    def _cancel(self) -> None:
        at = self.booked.start - timedelta(hours=self.chance.choice((2, 12, 72)))
        fee = pricing.cancellation(self.subject.terms, self.booked, at=at)
        self._end("cancelled", fee, max(at, self.made_at))

    def _not_collected(self) -> None:
        self._end("no_show", pricing.no_show(self.subject.terms), self.booked.start + timedelta(hours=3))

    def _let_expire(self) -> None:
        self.rental["hold_expires_at"] = self.made_at + timedelta(minutes=30)
        self._end("expired", None, self.rental["hold_expires_at"])

    def _hold(self) -> None:
        self.rental |= {"status": "held", "hold_expires_at": self.now + timedelta(hours=12)}
        self._block("hold", live=True)

    def _end(self, status: str, fee: Line | None, at: datetime) -> None:
        self.rental |= {"status": status, "total_amount": fee.net_amount if fee else 0, "updated_at": at}
        self._block("reservation" if status != "expired" else "hold", live=False)
        if fee:
            self._bill([fee], at)

    def _hand_over(self) -> None:
        self.rental |= {
            "status": "active",
            "actual_start_at": self.booked.start,
            "start_odometer_km": self.subject.odometer_km,
            "start_fuel_percent": 100,
            "updated_at": self.booked.start,
        }
        self._read("handover", self.booked.start)

    def _complete(self) -> None:
        self._hand_over()
        late = timedelta(hours=3) if self.chance.random() < 0.05 else timedelta()
        at = min(self.booked.end + late, self.now)
        self.subject.odometer_km += self.chance.randrange(40, 180) * max(1, self.booked.length.days)
        returned = Return(at, self.subject.odometer_km, self.chance.choice((100, 100, 100, 90, 60)), self._findings())
        lines = pricing.settle(
            self.subject.terms, self.booked, actual_start=self.booked.start, start_fuel_percent=100, returned=returned
        )
        self.rental |= {
            "status": "completed",
            "actual_end_at": at,
            "end_odometer_km": returned.odometer_km,
            "end_fuel_percent": returned.fuel_percent,
            "base_amount": sum(line.net_amount for line in lines if line.type == "rental"),
            "total_amount": sum(line.net_amount for line in lines),
            "updated_at": at,
        }
        self._read("return", at)
        self._block("rental", live=False)
        for line in lines:
            if line.type != "rental":
                self._charge(line, at)
        self._bill(lines, at)

    def _findings(self) -> tuple[ExtraCharge, ...]:
        return (ExtraCharge(*self.chance.choice(FINDINGS)),) if self.chance.random() < 0.06 else ()

    def _charge(self, line: Line, at: datetime) -> None:
        self.history.rows["rental_charge"].append(
            {
                "id": id_at(at),
                "rental_id": self.rental["id"],
                "type": line.type,
                "description": line.description,
                "amount": line.net_amount,
                "created_at": at,
            }
        )

    def _bill(self, lines: list[Line], at: datetime) -> None:
        rental = self.rental
        self.history.invoices.append((at, rental["id"], rental["customer_id"], lines, self.subject.terms))

    def _read(self, source: str, at: datetime) -> None:
        self.history.rows["odometer_reading"].append(
            {
                "id": id_at(at),
                "vehicle_id": self.subject.vehicle_id,
                "epoch": 1,
                "reading_km": self.subject.odometer_km,
                "measured_at": at,
                "source": source,
                "created_at": at,
            }
        )

    def _block(self, kind: str, *, live: bool, end: datetime | None = None) -> None:
        end = end or self.rental["actual_end_at"] or self.booked.end
        self.history.rows["vehicle_block"].append(
            {
                "id": id_at(self.made_at),
                "vehicle_id": self.subject.vehicle_id,
                "kind": kind,
                "rental_id": self.rental["id"],
                "start_at": self.booked.start,
                "end_at": end,
                "occupied": DateTimeTZRange(self.booked.start, end + _TURNAROUND),
                "live": live,
                "created_at": self.made_at,
            }
        )
