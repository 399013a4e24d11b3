"""What a drill leaves to be judged, and what a judge may say of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.faults.history import Exchange
from tests.stripe_server import Stripe

Kind = Literal["lost", "duplicated", "wrong"]
Sql = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Finding:
    """One thing that must not be."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Heard:
    """What one webhook endpoint's receiver was told: the events after one position of the stream, up to another if it was
    switched off there."""

    endpoint_id: str
    after: int
    until: int | None = None
    asked: Counter[str] = field(default_factory=Counter)  # every request, by its webhook-id
    taken: Counter[str] = field(default_factory=Counter)  # those that were answered with success
    mistaken: list[str] = field(default_factory=list)  # ids whose body said another


@dataclass
class Reading:
    """What one reader of the event stream got, in the order in which it got it."""

    name: str
    after: int
    read: list[tuple[int, str]] = field(default_factory=list)  # sequence number and id


@dataclass
class Evidence:
    """What is judged. `poison` are the promises that have to be dead, and the only ones that may be."""

    exchanges: Sequence[Exchange]
    sql: Sql
    poison: frozenset[str] = frozenset()
    letters: Mapping[str, int] = field(default_factory=dict)
    books: str = ""
    hooks: Sequence[Heard] = ()
    readings: Sequence[Reading] = ()
    cards: Stripe = field(default_factory=Stripe)


def pairs(rows: Iterable[tuple[Any, ...]]) -> dict[str, Any]:
    """Rows of two as a dictionary."""
    return {row[0]: row[1] for row in rows}
