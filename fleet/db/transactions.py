"""One kind of transaction, and what is run again when PostgreSQL gave it up for the sake of another."""

import functools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import peewee

from fleet import deadline, metrics
from fleet.db.database import DEADLINE_SLACK_S, db
from fleet.db.wire import budget, each_within
from fleet.outages import sqlstate

P = ParamSpec("P")
R = TypeVar("R")

# Deadlock and serialization failure: PostgreSQL undid the transaction for the sake of another, and asks for it again.
UNDONE_FOR_ANOTHER = {"40P01", "40001"}
_MOST_RUNS = 3
# A deadlock is found after a second (`deadlock_timeout`): so there is one more run after the first, and no queue of them.
_RUN_AGAIN_WITHIN_S = 1.3
_PAUSE_S = (0.005, 0.03)


@contextmanager
def transaction() -> Iterator[None]:
    """One transaction; inside another one, simply part of it: there are no savepoints to half-undo a use case."""
    if not db.in_transaction():
        with db.transaction():
            yield
        return
    db.joined += 1
    try:
        yield
    finally:
        db.joined -= 1


def committed(work: Callable[[], R]) -> R:
    """Do `work` as one transaction; inside another one, as part of it.

    When PostgreSQL undid it to end a deadlock it is done again from its start: `work` must have no effect but on the
    database, and must read again whatever it decides by. Part of another transaction is never done again by itself.
    """
    if db.in_transaction():
        with transaction():
            return work()
    begun, runs = time.monotonic(), 1
    while True:
        try:
            with transaction():
                return work()
        except peewee.OperationalError as error:
            late = time.monotonic() - begun > _RUN_AGAIN_WITHIN_S
            state = sqlstate(error)
            if runs == _MOST_RUNS or late or state not in UNDONE_FOR_ANOTHER:
                raise
        runs += 1
        metrics.RUN_AGAIN.labels(state).inc()
        time.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - spreads the rivals, keeps no secret


def atomic(use_case: Callable[P, R]) -> Callable[P, R]:
    """The whole function is one transaction: it commits when the function returns and leaves nothing when it raises.

    It may run more than once before it does (see `committed`).
    """

    @functools.wraps(use_case)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        return committed(lambda: use_case(*args, **kwargs))

    return whole


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """One transaction whose statements may each take so long: for what has to read whole tables."""
    with transaction(), deadline.lifted():
        db.execute_sql("SET LOCAL statement_timeout = %s", (int(seconds * 1000),))
        before, budget.until = budget.until, None
        try:
            with each_within(seconds + DEADLINE_SLACK_S):
                yield
        finally:
            budget.until = before
