"""Telling that PostgreSQL is away from its refusing one statement: the first is waited for, the second concerns one thing.

And the breakers around PostgreSQL and Redis, which say so beforehand.
"""

from collections.abc import Callable
from typing import TypeVar

import peewee
import psycopg2
import redis

from fleet import breakers, deadline
from fleet.breakers import POSTGRESQL, REDIS, Breaker

R = TypeVar("R")

# SQLSTATE class 57P: shut down or crashed; 53300: too many connections. Without a state there was nobody to send one.
_AWAY_STATES = ("57P", "53300")


def database_is_away(error: BaseException) -> bool:
    """Whether the error says that PostgreSQL cannot be reached, rather than that it refuses one statement."""
    if not isinstance(error, peewee.OperationalError | peewee.InterfaceError):
        return False
    state = sqlstate(error)
    return state is None or state.startswith(_AWAY_STATES)


def sqlstate(error: BaseException) -> str | None:
    """The code that PostgreSQL gave the error, if it was PostgreSQL's."""
    return getattr(getattr(error, "orig", None), "pgcode", None)


def redis_breaker() -> Breaker:
    """The breaker of whoever asks Redis while somebody waits. What Redis answers, also that it is full, opens nothing."""
    return breakers.breaker(REDIS, is_failure=_redis_is_away)


def _redis_is_away(kind: type[BaseException], error: BaseException) -> bool:
    return isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError)


class ConnectGuard:
    """The breaker around connecting to PostgreSQL: while it does not answer, one thread at a time tries, and nobody waits.

    Only connecting counts: a lock or a statement that takes too long, a deadlock or a serialization failure is about one
    transaction, and none of those can happen here.
    """

    def __init__(self, breaker: Breaker | None = None) -> None:
        self._breaker = breaker or breakers.breaker(POSTGRESQL, is_failure=_is_outage)

    def connect(self, connecting: Callable[[], R]) -> R:
        """Raises peewee.OperationalError when nobody may connect now, and whatever connecting raises."""
        try:
            return self._breaker.call(connecting)
        except breakers.Open:
            raise peewee.OperationalError("PostgreSQL does not take connections at the moment") from None


def _is_outage(kind: type[BaseException], error: BaseException) -> bool | None:
    """None for whoever had no time left, and gave up too early to tell."""
    if not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return False
    return None if deadline.left_s() == 0 else True
