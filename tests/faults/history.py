"""What each client sent and what it saw, in the order in which it saw it."""

import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

IN_PROGRESS = "idempotency_in_progress"
# Refusals that a client has to expect: who shares vehicles with others, and the second of two who replay one letter.
EXPECTED_REFUSALS = {"reserve": {"rental_overlap", "no_vehicle_available"}, "replay": {"invalid_state"}}


@dataclass(frozen=True)
class Exchange:
    """One request and its answer; `status` is None where the connection was lost or the answer thrown away."""

    drill: str
    client: str
    operation: str
    path: str
    key: str
    sent: dict[str, Any] | None
    sent_at: float
    seconds: float
    status: int | None
    retry_after: str | None = None
    answer: str = ""
    thrown_away: bool = False

    @cached_property
    def document(self) -> Any:
        """The answer as JSON; empty where it is none."""
        try:
            return orjson.loads(self.answer)
        except orjson.JSONDecodeError:
            return {}

    @property
    def code(self) -> str | None:
        """The problem's code."""
        return self.document.get("code") if self.status and self.status >= 400 else None

    @property
    def acknowledged(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def unavailable(self) -> bool:
        """A 503 as it should be."""
        return self.status == 503 and (self.retry_after or "").isdigit()

    @property
    def failed_badly(self) -> bool:
        """Any 5xx that is no 503 with Retry-After."""
        return self.status is not None and self.status >= 500 and not self.unavailable

    @property
    def cut(self) -> bool:
        """Whether the service, and not the client, broke the connection off."""
        return self.status is None and not self.thrown_away

    @property
    def expected_refusal(self) -> bool:
        """A refusal that says nothing bad of the service."""
        return self.code == IN_PROGRESS or self.code in EXPECTED_REFUSALS.get(self.operation, ())

    @property
    def final(self) -> bool:
        """Whether a client need not ask again: an effect, or a refusal for good."""
        if self.status is None or self.status >= 500 or self.status == 429:
            return False
        return self.code != IN_PROGRESS


@dataclass
class History:
    """All exchanges of a run. Threads append."""

    exchanges: list[Exchange] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, exchange: Exchange) -> None:
        with self._lock:
            self.exchanges.append(exchange)

    def of_drill(self, name: str) -> list[Exchange]:
        return [exchange for exchange in self.exchanges if exchange.drill == name]

    def write(self, path: Path) -> None:
        """One JSON object a line."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(asdict(exchange)) + "\n" for exchange in self.exchanges))


def by_key(exchanges: Iterable[Exchange]) -> Iterator[tuple[tuple[str, str], list[Exchange]]]:
    """The exchanges of each key on its path."""
    named = sorted(exchanges, key=lambda exchange: (exchange.path, exchange.key))
    for name, same in itertools.groupby(named, key=lambda exchange: (exchange.path, exchange.key)):
        yield name, list(same)
