"""Telling that PostgreSQL is away from its refusing one statement: the first is waited for, the second concerns one thing."""

import peewee

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
