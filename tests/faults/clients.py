"""Clients who reserve, hand over and take back, ask again with the same key until they have an answer, and write all down."""

import itertools
import random
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException
from typing import Any
from uuid import UUID

import orjson

from fleet.auth import Tokens
from fleet.embedded.server import HOST
from tests.faults.history import Exchange
from tests.faults.stage import Stage
from tests.stripe_server import GOOD_CARD

ANSWER_TIMEOUT_S = 30
CLERKS, CUSTOMERS = 100, 50
# Vehicles by what they are for: those that clients fight for, those that are reserved far ahead, those that are driven once.
FOUGHT_FOR, RESERVED, DRIVEN = range(3), range(100, 1100), range(1100, 10_000)
SLOT, RENTED = timedelta(hours=6), timedelta(hours=4)
RIVALS = 4


def id_of(kind: int, number: int) -> str:
    """The identifier that scene.sql gave: 1 branch, 2 class, 3 vehicle, 4 customer, 5 clerk, 6 session."""
    return f"00000000-0000-7000-80{kind:02d}-{number:012d}"


@dataclass
class Wishes:
    """What the clients of a run ask for: slots that nobody else asks for, slots for rivals, and vehicles to drive now."""

    first_day: datetime = field(default_factory=lambda: datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
    _own: "itertools.count[int]" = field(default_factory=itertools.count)
    _fought_for: "itertools.count[int]" = field(default_factory=itertools.count)
    _driven: "itertools.count[int]" = field(default_factory=itertools.count)
    keys: "itertools.count[int]" = field(default_factory=itertools.count)

    def own(self) -> tuple[int, datetime]:
        turn, position = divmod(next(self._own), len(RESERVED))
        return RESERVED[position], self.first_day + timedelta(days=30) + turn * SLOT

    def fought_for(self) -> tuple[int, datetime]:
        turn, position = divmod(next(self._fought_for) // RIVALS, len(FOUGHT_FOR))
        return FOUGHT_FOR[position], self.first_day + timedelta(days=30) + turn * SLOT

    def driven(self) -> int:
        return DRIVEN[next(self._driven)]


class Client:
    """One clerk with one connection at a time."""

    def __init__(
        self,
        stage: Stage,
        wishes: Wishes,
        drill: str,
        number: int,
        rng: random.Random,
        *,
        drops: float = 0,
        pays: bool = False,
    ) -> None:
        self.name = f"{drill}/{number}"
        self.pays = pays
        self._stage, self._wishes, self._drill, self._rng, self._drops = stage, wishes, drill, rng, drops
        clerk = number % CLERKS
        token = Tokens(stage.settings).issue(
            user_id=UUID(id_of(5, clerk)), session_id=UUID(id_of(6, clerk)), at=datetime.now(UTC)
        )
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connection: HTTPConnection | None = None
        self.give_up_at = float("inf")

    # --- what it does -------------------------------------------------------------------------------------------------

    def reserve(
        self,
        vehicle: int,
        start_at: datetime,
        *,
        length: timedelta = RENTED,
        key: str | None = None,
        customer: int | None = None,
    ) -> Exchange:
        """Reserve until there is an answer; the notes carry the key, so that the database shows what it led to."""
        key = key or self.new_key()
        body = {
            "vehicle_id": id_of(3, vehicle),
            "customer_id": id_of(4, self._rng.randrange(CUSTOMERS) if customer is None else customer),
            "start_at": start_at.isoformat(),
            "end_at": (start_at + length).isoformat(),
            "notes": key,
        }
        return self.insist("reserve", "/v1/rentals", body, key)

    def drive(self) -> None:
        """A whole rental: reserve, hand over, take back, so that there is an invoice and its posting."""
        soon = self._wishes.first_day + timedelta(hours=1)
        reserved = self.reserve(self._wishes.driven(), soon, length=timedelta(days=1))
        if not reserved.acknowledged:
            return
        path = f"/v1/rentals/{reserved.document['id']}"
        handed_over = self.insist("activate", f"{path}/activate", {"start_odometer_km": 100})
        if handed_over.acknowledged:
            self.insist("complete", f"{path}/complete", {"end_odometer_km": 180})
            if self.pays:
                self.pay(reserved.document["id"])

    def pay(self, rental_id: str) -> None:
        """Pay the rental's invoice by card; one payment in three is given back, half of it."""
        while True:
            status, page = self.look(f"/v1/invoices?rental_id={rental_id}")
            if status == 200:
                break
            if time.monotonic() > self.give_up_at:
                return
            time.sleep(0.1)
        [invoice] = page["data"]
        what = {"amount": invoice["total_amount"], "currency": invoice["currency"], "method": "card", "reference": GOOD_CARD}
        paid = self.insist("pay", "/v1/payments", {"invoice_id": invoice["id"], **what})
        if paid.acknowledged and self._rng.random() < 1 / 3:
            half = {"amount": paid.document["amount"] // 2}
            self.insist("refund", f"/v1/payments/{paid.document['id']}/refunds", half)

    def anything(self) -> None:
        """What a client does next; one answer in five it asks for again."""
        turn = self._rng.random()
        if turn < (0.7 if self.pays else 0.3):
            self.drive()
            return
        last = self.reserve(*(self._wishes.own() if turn < 0.7 else self._wishes.fought_for()))
        if last.final and self._rng.random() < 0.2:
            self.insist(last.operation, last.path, last.sent, last.key)

    def new_key(self) -> str:
        return f"{self.name}/{next(self._wishes.keys)}"

    def insist(self, operation: str, path: str, body: dict[str, Any] | None, key: str | None = None) -> Exchange:
        """Send, and send again with the same key, until there is a final answer or it is time to give up."""
        key = key or self.new_key()
        while True:
            seen = self.send(operation, path, body, key)
            if seen.final or time.monotonic() > self.give_up_at:
                return seen
            time.sleep(self._rng.uniform(0.05, 0.3))

    def send(self, operation: str, path: str, body: dict[str, Any] | None, key: str) -> Exchange:
        """One request; written down with its answer."""
        throw_away = self._rng.random() < self._drops
        sent_at = time.monotonic()
        status, retry_after, answer = self._exchange(path, body, key, throw_away)
        seen = Exchange(
            drill=self._drill,
            client=self.name,
            operation=operation,
            path=path,
            key=key,
            sent=body,
            sent_at=sent_at,
            seconds=time.monotonic() - sent_at,
            status=status,
            retry_after=retry_after,
            answer=answer,
            thrown_away=throw_away and status is None,
        )
        self._stage.history.add(seen)
        return seen

    def look(self, path: str) -> tuple[int | None, Any]:
        """Read something, once; the status and the answer as JSON. No part of the history: it changes nothing."""
        status, _, answer = self._exchange(path, None, None, False, method="GET")
        return status, orjson.loads(answer) if answer else {}

    def _exchange(
        self, path: str, body: dict[str, Any] | None, key: str | None, throw_away: bool, *, method: str = "POST"
    ) -> tuple[int | None, str | None, str]:
        if self._connection is None:
            self._connection = HTTPConnection(HOST, self._stage.web_port, timeout=ANSWER_TIMEOUT_S)
        named = {"Idempotency-Key": key} if key else {}
        try:
            self._connection.request(method, path, None if body is None else orjson.dumps(body), {**self._headers, **named})
            if throw_away:
                self.hang_up()
                return None, None, ""
            answer = self._connection.getresponse()
            return answer.status, answer.getheader("Retry-After"), answer.read().decode()
        except (OSError, HTTPException):
            self.hang_up()
            return None, None, ""

    def hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError):
                connection.close()


class Crowd:
    """Clients who go on until they are told to stop, and then finish what they have begun."""

    def __init__(self, clients: list[Client], rng: random.Random) -> None:
        self.clients = clients
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._go_on, args=(client, random.Random(rng.random())), daemon=True) for client in clients
        ]

    @contextmanager
    def at_work(self, patience_s: float) -> Any:
        """Let them work for as long as the block runs; after it they insist for `patience_s` at most."""
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for client in self.clients:
                client.give_up_at = time.monotonic() + patience_s
            for thread in self._threads:
                thread.join()
            for client in self.clients:
                client.hang_up()

    def _go_on(self, client: Client, rng: random.Random) -> None:
        while not self._stopping.is_set():
            client.anything()
            self._stopping.wait(rng.uniform(0.01, 0.08))


def all_at_once(calls: list[Any]) -> list[Any]:
    """Make these calls at the same moment; returns what they returned."""
    gate = threading.Barrier(len(calls))
    answers: list[Any] = [None] * len(calls)

    def call(position: int) -> None:
        gate.wait(ANSWER_TIMEOUT_S)
        answers[position] = calls[position]()

    threads = [threading.Thread(target=call, args=(position,), daemon=True) for position in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers
