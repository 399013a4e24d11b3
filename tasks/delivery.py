"""How a consumer works through the promises that a message rings for.

Count the delivery first, in a transaction of its own. Then, in one transaction: enter the message into the inbox, do the
effect if it was not there yet, confirm the promise. Then the task returns and Celery acknowledges. A kill at any point
leaves either nothing or everything; what is left of nothing rings again when Celery or the relay's lease brings it back.

Nothing here uses Celery's retries: a failure sets the promise's next time in PostgreSQL and the message is acknowledged.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import peewee

from fleet import breakers, clock, logs, metrics
from fleet.db import transaction
from fleet.gateways.cards import CardsResting
from fleet.outages import database_is_away
from fleet.services import outbox
from fleet.services.outbox import Message
from tasks.causes import cause_of

log = logging.getLogger("tasks.delivery")

# How much this process has handled: what its tasks answer is the difference that they made.
_handled = 0

# After this, what is left of a delivery is given back: far enough from Celery's time limit for one slow message more.
BUDGET_S = 30.0


def handled() -> int:
    """How many promises this process has fulfilled since its start."""
    return _handled


def together(topic: str, ids: Sequence[str], effect: Callable[[list[Message]], object]) -> None:
    """Handle all messages with one effect in one transaction; `effect` gets those that were not handled before.

    What fails together is tried one by one, so that only the poison is left. The promises of one aggregate take effect in the
    order in which they were made: one whose elder is still open is given back, whichever worker has the elder.

    A message that was delivered before and never ended may have killed its worker: it is counted and tried alone, after its
    neighbours, or it would take them along.
    """

    def alone(message: Message) -> bool:
        return bool(_settle(topic, [message], effect))

    with lease_takes_over(topic):
        deadline = time.monotonic() + BUDGET_S
        early = set(outbox.out_of_turn(ids))
        ids = [message_id for message_id in ids if message_id not in early]
        counted = outbox.count_first_deliveries(ids)
        try:
            if counted:
                _report(topic, "done", _settle(topic, counted, effect))
        except Exception as error:
            if database_is_away(error):
                raise
            log.warning("going one by one", extra={"topic": topic, "count": len(counted), "cause": cause_of(error)})
            _each(counted, alone, deadline=deadline)
        delivered_before = set(ids) - {message.id for message in counted}
        if delivered_before:
            _each_counted(outbox.unfinished(list(delivered_before)), alone, deadline=deadline)


def one_by_one(
    ids: Sequence[str],
    attempt: Callable[[Message], bool],
    *,
    topic: str,
    hopeless: tuple[type[Exception], ...] = (),
    wait_s: Callable[[], float] = lambda: 0.0,
) -> None:
    """Handle messages whose effect is outside PostgreSQL: `attempt` makes its own transactions and confirms.

    It returns False when there is nothing for it to do now. What it raises is tried again later, unless `hopeless` lists it.
    While `wait_s` says that what is outside is away, messages are given back for so long, and no delivery of them counts.
    """
    with lease_takes_over(topic):
        _each_counted(outbox.unfinished(ids), attempt, deadline=time.monotonic() + BUDGET_S, hopeless=hopeless, wait_s=wait_s)


def _settle(topic: str, messages: Sequence[Message], effect: Callable[[list[Message]], object]) -> list[Message]:
    """Returns those that took effect. Looks again whose turn it is: a second message may ring for an elder of theirs,
    which another worker then counted as its own after we looked first."""
    with transaction():
        early = outbox.out_of_turn([message.id for message in messages])
        mine = [message for message in messages if message.id not in early]
        ids = [message.id for message in mine]
        fresh = outbox.receive(topic, ids)
        if fresh:
            effect([message for message in mine if message.id in fresh])
        outbox.confirm(ids)
    return mine


def _each_counted(
    ids: Sequence[str],
    attempt: Callable[[Message], bool],
    *,
    deadline: float,
    hopeless: tuple[type[Exception], ...] = (),
    wait_s: Callable[[], float] = lambda: 0.0,
) -> None:
    for position, message_id in enumerate(ids):
        delay_s = wait_s()
        if delay_s > 0 or time.monotonic() > deadline:
            outbox.release(ids[position:], delay_s=delay_s)
            return
        message = outbox.count_delivery(message_id)
        if message is not None:
            _try(message, attempt, hopeless)


def _each(messages: Sequence[Message], attempt: Callable[[Message], bool], *, deadline: float) -> None:
    for position, message in enumerate(messages):
        if time.monotonic() > deadline:
            outbox.release([left.id for left in messages[position:]], delay_s=0)
            return
        _try(message, attempt, ())


def _try(message: Message, attempt: Callable[[Message], bool], hopeless: tuple[type[Exception], ...]) -> None:
    with logs.context(**({"request_id": message.request_id} if message.request_id else {})):
        try:
            outcome = "done" if attempt(message) else "elsewhere"
        except Exception as error:
            if database_is_away(error):
                raise
            if isinstance(error, breakers.Open | CardsResting):
                # Opened since we looked. Nothing was asked of what is outside, so nothing of it counts against the message.
                outbox.postpone(message.id, delay_s=error.retry_after_s)
                outcome = "postponed"
            else:
                _note_failure(message, error, hopeless)
                return
        _report(message.topic, outcome, [message])


def _note_failure(message: Message, error: Exception, hopeless: tuple[type[Exception], ...]) -> None:
    cause = cause_of(error)
    if isinstance(error, hopeless):
        outbox.bury([message.id], cause)
        dead = True
    else:
        dead = outbox.fail(message, cause)
    metrics.DELIVERIES.labels(message.topic, "dead" if dead else "failed").inc()
    log.log(
        logging.ERROR if dead else logging.WARNING,
        "dead letter" if dead else "delivery failed",
        extra={
            "topic": message.topic,
            "message_id": message.id,
            "deliveries": message.deliveries,
            "cause": cause,
        },
    )


def _report(topic: str, outcome: str, messages: Sequence[Message]) -> None:
    """One line and the metrics for what was handled; the request ids lead from here back to who asked for it."""
    global _handled  # noqa: PLW0603 - a process has one count
    _handled += len(messages) if outcome == "done" else 0
    if not messages:
        return
    metrics.DELIVERIES.labels(topic, outcome).inc(len(messages))
    now = clock.now()
    lags_s = [max(0.0, (now - message.created_at).total_seconds()) for message in messages]
    if outcome == "done":
        lag = metrics.LAG.labels(topic)
        for lag_s in lags_s:
            lag.observe(lag_s)
    asked_by = {message.request_id for message in messages if message.request_id}
    log.info(
        "handled",
        extra={
            "topic": topic,
            "outcome": outcome,
            "count": len(messages),
            "lag_ms": round(max(lags_s) * 1000, 1),
            "request_ids": sorted(asked_by),
        },
    )


@contextmanager
def lease_takes_over(topic: str) -> Iterator[None]:
    """Without PostgreSQL nothing can be noted: acknowledge, and let the relay ring again when the lease ends."""
    try:
        yield
    except peewee.PeeweeException as error:
        if not database_is_away(error):
            raise
        log.warning("left to its lease", extra={"topic": topic, "cause": cause_of(error)})
