"""Looking into the outbox, moving its clock, and running several workers' hands at once."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fleet import clock
from fleet.db import db
from fleet.models.promises import Inbox, Outbox
from fleet.services import outbox
from fleet.services.outbox import Id

TOPIC = "accounting.post_invoice"


def promised(count: int = 1, topic: str = TOPIC) -> list[str]:
    """The ids of so many new promises, each for an aggregate that does not exist."""
    return [str(outbox.promise(topic, "invoice", clock.new_id())) for _ in range(count)]


def dead_letter(cause: str = "Poison at tests", topic: str = TOPIC) -> str:
    """The id of a promise that was given up after all its deliveries."""
    [promise_id] = promised(topic=topic)
    db.execute_sql("UPDATE outbox SET deliveries = %s, publishes = 3 WHERE id = %s", (outbox.MAX_DELIVERIES, promise_id))
    outbox.bury([promise_id], cause)
    return promise_id


def row(promise_id: Id) -> Outbox:
    """The promise as it stands in the database."""
    found: Outbox = Outbox.get(Outbox.id == promise_id)
    return found


def last_error(promise_id: Id) -> str:
    """What the promise keeps of its last failure."""
    return row(promise_id).last_error or ""


def rows(ids: Iterable[Id]) -> list[Outbox]:
    return [row(promise_id) for promise_id in ids]


def state(promise_id: Id) -> str:
    """confirmed, discarded, dead or waiting."""
    found = row(promise_id)
    if found.confirmed_at:
        return "confirmed"
    return "discarded" if found.discarded_at else "dead" if found.dead_at else "waiting"


def texts(ids: Iterable[Id]) -> list[str]:
    """Ids as a task gets them."""
    return [str(promise_id) for promise_id in ids]


def let_leases_end() -> None:
    """Make everything that waits due now, as time would."""
    db.execute_sql("UPDATE outbox SET next_attempt_at = now() WHERE confirmed_at IS NULL AND dead_at IS NULL")


def received(promise_id: Id) -> int:
    """In how many inboxes the message is."""
    return int(Inbox.select().where(Inbox.message_id == promise_id).count())


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run the calls at the same moment, each in a thread and on a connection of its own; returns what they returned."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait()
        try:
            return call()
        finally:
            db.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
