"""Promising work in the transaction of the fact that asks for it, and keeping account of each promise until its end.

The promise lives here, in PostgreSQL; a message in the broker only rings for it. A relay claims what is due, for the length
of a lease, and publishes its id. "Published" means nothing: a promise ends when its consumer confirms it, in the transaction
of the effect, or when it is dead, which is a state of its row that people can see, replay or discard.
"""

import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from fleet import clock, config, logs
from fleet.db import db
from fleet.models import promises

Id = UUID | str

QUEUES = tuple(config.QUEUES)
DEFAULT_QUEUE = "default"

MAX_DELIVERIES = 8
LEASE_S, LONGEST_LEASE_S = 30, 900
FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 5, 3600
# A topic without a consumer may belong to the next release: for an hour somebody may yet come who knows it.
UNKNOWN_LOOKS, UNKNOWN_PAUSE_S = 60, 60
OUT_OF_TURN_PAUSE_S = 2
MAX_ERROR_LENGTH = 300
NO_WORD = f"{MAX_DELIVERIES} deliveries ended without a word: the worker was killed or hung each time"


class Claimed(NamedTuple):
    """A promise that this relay may publish until its lease ends."""

    id: str
    topic: str
    queue: str
    request_id: str | None


class Message(NamedTuple):
    """A promise as its consumer gets it; `deliveries` counts this delivery too."""

    id: str
    topic: str
    aggregate_type: str
    aggregate_id: UUID
    payload: dict[str, Any]
    request_id: str | None
    created_at: datetime
    deliveries: int


def queue_of(topic: str) -> str:
    """The queue of a topic: its first word, where there is a queue of that name."""
    prefix = topic.partition(".")[0]
    return prefix if prefix in QUEUES else DEFAULT_QUEUE


def promise(topic: str, aggregate_type: str, aggregate_id: UUID, payload: dict[str, Any] | None = None) -> UUID:
    """Promise that the consumer of `topic` will do its work for this aggregate; returns the promise's id.

    The promise stands when the caller's transaction commits, and only then. The id of the request travels along, so that
    the worker's log lines can be found by it.
    """
    promise_id = clock.new_id()
    asked_by = (logs.current("request_id"), logs.current("traceparent"))
    db.run(promises.PROMISE, (promise_id, topic, queue_of(topic), aggregate_type, aggregate_id, payload or {}, *asked_by))
    return promise_id


# --- the relay's side -------------------------------------------------------------------------------------------------


def claim_due(room: Mapping[str, int]) -> list[Claimed]:
    """Take what is due, of each queue as many as there is room for, oldest promise first. Two relays never get the same one.

    Whoever claims a promise and does not publish it (a crash, a kill) loses nothing: the lease ends, and it is due again.
    """
    found = db.rows(
        promises.CLAIM_DUE,
        {
            "queues": list(room),
            "limits": list(room.values()),
            "most_deliveries": MAX_DELIVERIES,
            "lease_s": LEASE_S,
            "longest_lease_s": LONGEST_LEASE_S,
        },
    )
    return [Claimed(*row) for row in sorted(found)]


def release(ids: Sequence[Id], *, delay_s: float) -> None:
    """Give back what was claimed and could not be published or tried: due again after `delay_s`, give or take a tenth."""
    db.execute_sql(promises.RELEASE, {"ids": _array(ids), "delay_s": delay_s})


def leave_to_others(ids: Sequence[Id]) -> list[str]:
    """Put aside claimed promises whose topic nobody here knows; returns the topics of those that waited long enough to die.

    While a release is being replaced, the relay of the old one meets the topics of the new one.
    """
    values = {
        "ids": _array(ids),
        "pause_s": UNKNOWN_PAUSE_S,
        "most_looks": UNKNOWN_LOOKS,
        "error": "no consumer has this topic",
    }
    return [topic for topic, dead in db.rows(promises.PUT_ASIDE, values) if dead]


def bury(ids: Sequence[Id], error: str) -> None:
    """End promises that no repetition will fulfil. They stay to be seen, replayed or discarded."""
    db.execute_sql(promises.BURY, {"ids": _array(ids), "error": error[:MAX_ERROR_LENGTH]})


# --- the consumer's side ----------------------------------------------------------------------------------------------


def unfinished(ids: Sequence[Id]) -> list[str]:
    """Those of the promises that have not ended, the most suspicious last: one that keeps killing its worker comes after all
    that may still be done before it."""
    return [promise_id for (promise_id,) in db.rows(promises.UNFINISHED, {"ids": _array(ids)})]


def out_of_turn(ids: Sequence[Id]) -> list[str]:
    """Those of the promises whose aggregate has an older promise in accounting that has not ended and is not among these.

    They are given back here, to come again soon. A dead promise holds nobody: it waits for a person, and entries add up to
    the same in any order.
    """
    early = [promise_id for (promise_id,) in db.rows(promises.OUT_OF_TURN, {"ids": _array(ids)})]
    if early:
        release(early, delay_s=OUT_OF_TURN_PAUSE_S)
    return early


def count_first_deliveries(ids: Sequence[Id]) -> list[Message]:
    """Count the delivery of each that was never delivered before, and return those."""
    return [Message(*row) for row in sorted(db.rows(promises.COUNT_FIRST_DELIVERIES, {"ids": _array(ids)}))]


def count_delivery(message_id: Id) -> Message | None:
    """Count one delivery; None when the promise has ended meanwhile, also by this delivery being one too many.

    Counted, and committed, before anything is tried: a message that kills its process reaches no handler, but it cannot
    escape the count.
    """
    rows = db.rows(promises.COUNT_DELIVERIES, {"ids": _array([message_id])})
    if not rows:
        return None
    message = Message(*rows[0])
    if message.deliveries > MAX_DELIVERIES:
        bury([message_id], NO_WORD)
        return None
    return message


def receive(consumer: str, ids: Sequence[Id]) -> set[str]:
    """Enter messages into the consumer's inbox; returns those that it had not dealt with. Part of the effect's transaction.

    While another worker has the same message in hand this waits for its end, then finds it done.
    """
    rows = db.rows(promises.RECEIVE, {"consumer": consumer, "ids": _array(ids)})
    return {message_id for (message_id,) in rows}


def confirm(ids: Sequence[Id]) -> None:
    """End promises as fulfilled. Part of the effect's transaction."""
    db.execute_sql(promises.CONFIRM, {"ids": _array(ids)})


def fail(message: Message, error: str) -> bool:
    """Note why a delivery failed and try again later, or give up after MAX_DELIVERIES; returns whether it is dead now."""
    values = {
        "ids": _array([message.id]),
        "error": error[:MAX_ERROR_LENGTH],
        "delay_s": backoff_s(message.deliveries),
        "most_deliveries": MAX_DELIVERIES,
    }
    return any(dead for (dead,) in db.rows(promises.FAIL, values))


def postpone(message_id: Id, *, delay_s: float) -> None:
    """Take back a delivery that was counted and in which nothing could be tried: it is as if it had not been."""
    db.execute_sql(promises.POSTPONE, {"ids": _array([message_id]), "delay_s": delay_s})


def backoff_s(deliveries: int) -> float:
    """How long to wait after the n-th failure: 5 s, 20 s, 80 s, 5 min, 21 min, then an hour, each give or take a fifth."""
    planned = min(FIRST_BACKOFF_S * 4 ** (deliveries - 1), LONGEST_BACKOFF_S)
    return planned * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing


def bury_exhausted(*, limit: int = 1000) -> list[str]:
    """End what was delivered MAX_DELIVERIES times and neither succeeded nor failed; returns the topics, one for each.

    The relay leaves these alone, and their last lease has ended. Two sweeps at once share the work.
    """
    values = {"most_deliveries": MAX_DELIVERIES, "limit": limit, "error": NO_WORD}
    return [topic for _, topic in db.rows(promises.BURY_EXHAUSTED, values)]


def _array(ids: Sequence[Id]) -> str:
    """An array in PostgreSQL's own notation: one literal is read much faster than hundreds of them."""
    return "{" + ",".join(map(str, ids)) + "}"
