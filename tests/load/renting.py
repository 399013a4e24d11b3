"""What the clients of the contest send: requests of clerks who are all known, rendered before the clock starts."""

import itertools
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson

from fleet.auth import Tokens
from fleet.config import Settings
from tests.load.http_load import request

BRANCHES, CLASSES, VEHICLES, CUSTOMERS, RENTALS, COMPLETED, CLERKS = 20, 8, 2_000, 20_000, 5_000, 3_000, 400
SLOT, RENTED = timedelta(hours=6), timedelta(hours=4)
SLOTS_A_VEHICLE = 3_000
_SPREAD = 2_654_435_761  # prime to the number of slots: a walk over all of them that looks random


def id_of(kind: int, number: int) -> str:
    """The identifier that fill.sql gave: 1 branch, 2 class, 3 vehicle, 4 customer, 5 clerk, 6 session, 7 rental."""
    return f"00000000-0000-7000-80{kind:02d}-{number:012d}"


def first_day() -> datetime:
    """The first day of the times that reservations over HTTP ask for; those of the limit come after all of them."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=400)


def first_day_of_limit() -> datetime:
    return first_day() + SLOTS_A_VEHICLE * SLOT


@dataclass
class Clerks:
    """Clerks at the counters, each signed in. They take turns, so that each stays within the usual limit of one caller."""

    settings: Settings
    _slots: Iterator[int] = field(default_factory=itertools.count)
    _turns: Iterator[int] = field(default_factory=lambda: itertools.cycle(range(CLERKS)))
    _run: str = field(default_factory=lambda: secrets.token_hex(4))

    def __post_init__(self) -> None:
        tokens, now = Tokens(self.settings), datetime.now(UTC)
        uuids = [(UUID(id_of(5, number)), UUID(id_of(6, number))) for number in range(CLERKS)]
        self._tokens = [tokens.issue(user_id=user, session_id=session, at=now) for user, session in uuids]
        self._first_day = first_day()

    def get(self, path: str) -> bytes:
        return request("GET", path, Authorization=self.credential())

    def credential(self) -> str:
        """The Authorization header of the clerk whose turn it is."""
        return f"Bearer {self._tokens[next(self._turns)]}"

    def reservation(self, *, path: str = "/v1/rentals", body: bytes | None = None) -> bytes:
        """A reservation of a random vehicle at a time that nobody else asks for, or of what `body` says."""
        number = next(self._slots)
        return request(
            "POST",
            path,
            body=body or self.free_slot(number),
            Authorization=self.credential(),
            Idempotency_Key=f"{self._run}-{number}",
        )

    def bare_reservation(self) -> bytes:
        """The same for a peer that knows no clerks: no credential, and the clerk in the body for who wants one."""
        number = next(self._slots)
        body = self.free_slot(number, clerk_id=id_of(5, number % CLERKS))
        return request("POST", "/reserve", body=body, Idempotency_Key=f"{self._run}-{number}")

    def charge(self) -> bytes:
        """A charge found after the return: it makes an invoice, which is accounted for and sent."""
        number = next(self._slots)
        body = orjson.dumps({"type": "cleaning", "description": "Sand in the boot", "amount": 2500})
        path = f"/v1/rentals/{id_of(7, number % COMPLETED)}/charges"
        return request("POST", path, body=body, Authorization=self.credential(), Idempotency_Key=f"{self._run}-{number}")

    def free_slot(self, number: int, **more: str) -> bytes:
        slot, vehicle = divmod(number * _SPREAD % (SLOTS_A_VEHICLE * VEHICLES), VEHICLES)
        return self.wish(vehicle, self._first_day + slot * SLOT, **more)

    def wish(self, vehicle: int, start_at: datetime, **more: str) -> bytes:
        """The body of a reservation."""
        wanted = {"vehicle_id": id_of(3, vehicle), "customer_id": id_of(4, random.randrange(CUSTOMERS))}
        return orjson.dumps({**wanted, "start_at": start_at, "end_at": start_at + RENTED, **more})


def random_vehicle() -> str:
    return f"/v1/vehicles/{id_of(3, random.randrange(VEHICLES))}"


def random_rental() -> str:
    return f"/v1/rentals/{id_of(7, random.randrange(RENTALS))}"


def random_window() -> str:
    """Who is free at one branch in one class, two days of the coming weeks: the one question of every counter."""
    start_at = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=random.randrange(48, 480))
    end_at = start_at + timedelta(days=2)
    place = f"branch_id={id_of(1, random.randrange(BRANCHES))}&class_id={id_of(2, random.randrange(CLASSES))}"
    return f"/v1/availability?start_at={start_at:%Y-%m-%dT%H:%M:%SZ}&end_at={end_at:%Y-%m-%dT%H:%M:%SZ}&{place}"
