"""Dead letters: promises whose work was given up. A state of the outbox's rows, read and changed here by those who operate it.

A letter is `dead` until it is replayed or discarded. Replayed, it is a promise like any other: `waiting`, then `confirmed`, or
`dead` again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from fleet.db import db
from fleet.errors import NotFound
from fleet.models.base import Condition, Listing

# The kind of a cause is the class of the exception that its words begin with; two ends come without one.
CAUSE = """CASE
    WHEN outbox.last_error IS NULL THEN NULL
    WHEN starts_with(outbox.last_error, 'no consumer') THEN 'NoConsumer'
    WHEN position('ended without a word' IN outbox.last_error) > 0 THEN 'NoWord'
    ELSE coalesce(substring(outbox.last_error FROM '^[A-Z][A-Za-z0-9_]{0,59}'), 'Unknown') END"""
_STATUS = """CASE
    WHEN outbox.confirmed_at IS NOT NULL THEN 'confirmed'
    WHEN outbox.discarded_at IS NOT NULL THEN 'discarded'
    WHEN outbox.dead_at IS NOT NULL THEN 'dead'
    ELSE 'waiting' END"""
_STORED = (
    "id", "topic", "queue", "aggregate_type", "aggregate_id", "payload", "request_id", "deliveries", "replays", "last_error",
    "created_at", "first_error_at", "last_error_at", "dead_at", "replayed_at", "discarded_at", "discarded_by", "discard_reason",
)  # fmt: skip

DEAD_LETTERS = Listing(
    columns={**{name: f"outbox.{name}" for name in _STORED}, "status": _STATUS, "cause": CAUSE},
    source="outbox",
    key="outbox.id",
)
# A promise that never died is nobody's dead letter, and one that was replayed still tells what became of it.
EVER_DEAD = Condition("outbox.dead_at IS NOT NULL OR outbox.replays > 0")

STATUSES = {"dead": "outbox.discarded_at IS NULL", "discarded": "outbox.discarded_at IS NOT NULL"}


@dataclass(frozen=True)
class Chosen:
    """Which dead letters are meant. `since` and `until` bound the time of death, `cause` is its class or words of its error.

    Nothing chosen means all.
    """

    topic: str | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    cause: str | None = None
    status: str | None = None

    @property
    def narrows(self) -> bool:
        """Whether anything but the status is asked for."""
        return any(value is not None for value in (self.topic, self.queue, self.since, self.until, self.cause))

    def conditions(self) -> list[Condition]:
        asked: dict[str, tuple[Any, ...]] = {
            "outbox.topic = %s": (self.topic,),
            "outbox.queue = %s": (self.queue,),
            "outbox.dead_at >= %s": (self.since,),
            "outbox.dead_at < %s": (self.until,),
            f"({CAUSE}) = %s OR position(lower(%s) IN lower(outbox.last_error)) > 0": (self.cause, self.cause),
        }
        chosen = [Condition(sql, params) for sql, params in asked.items() if params[0] is not None]
        status = [Condition(STATUSES[self.status])] if self.status else []
        return [Condition("outbox.dead_at IS NOT NULL"), *status, *chosen]


def letter_for_update(letter_id: UUID) -> dict[str, Any]:
    """The promise, whatever its state, locked until the transaction ends. Raises NotFound.

    Of two who replay or discard it at once the second finds what the first left; a worker that confirms it late waits, or was
    here first.
    """
    row = db.one(f"SELECT {_COLUMNS} FROM outbox WHERE id = %s FOR UPDATE", (letter_id,))
    if row is None:
        raise NotFound()
    return DEAD_LETTERS.named(row)


def letters_for_update(chosen: Chosen, *, limit: int) -> list[dict[str, Any]]:
    """Dead letters of that choice, oldest first, locked until the transaction ends. Those in other hands are passed by."""
    where, params = _where(chosen)
    found = f"SELECT {_COLUMNS} FROM outbox WHERE {where} ORDER BY id LIMIT {limit:d} FOR UPDATE SKIP LOCKED"
    return [DEAD_LETTERS.named(row) for row in db.rows(found, params)]


def count(chosen: Chosen) -> int:
    """How many dead letters that choice means."""
    where, params = _where(chosen)
    return int(db.rows(f"SELECT count(*) FROM outbox WHERE {where}", params)[0][0])


def _where(chosen: Chosen) -> tuple[str, list[Any]]:
    conditions = chosen.conditions()
    where = " AND ".join(f"({condition.sql})" for condition in conditions)
    return where, [value for condition in conditions for value in condition.params]


def replay(ids: Sequence[UUID]) -> None:
    """Make them due now, as if they had never been delivered. Their last error goes with their death: the audit log has it."""
    db.execute_sql(_REPLAY, (_array(ids),))


def discard(ids: Sequence[UUID], *, by: str, reason: str) -> None:
    """Close them for good. They stay dead to relays and workers, and count in no alert."""
    db.execute_sql(_DISCARD, (by, reason, _array(ids)))


def _array(ids: Sequence[UUID]) -> str:
    return "{" + ",".join(map(str, ids)) + "}"


_COLUMNS = ", ".join(DEAD_LETTERS.columns.values())
_REPLAY = """
UPDATE outbox
SET dead_at = NULL, discarded_at = NULL, discarded_by = NULL, discard_reason = NULL, last_error = NULL, last_error_at = NULL,
    deliveries = 0, publishes = 0, next_attempt_at = now(), replays = replays + 1, replayed_at = now()
WHERE id = ANY (%s::uuid[])
"""
_DISCARD = """
UPDATE outbox SET discarded_at = now(), discarded_by = %s, discard_reason = %s WHERE id = ANY (%s::uuid[])
"""
