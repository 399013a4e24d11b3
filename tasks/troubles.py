"""What disturbs a loop that has to go on whatever goes away and comes back."""

import logging

import peewee

from fleet.db import db
from fleet.outages import database_is_away
from tasks.broker import BrokerAway
from tasks.causes import cause_of

RECOVERY_S = 0.5


class Troubles:
    """Says once of each kind of trouble that it is there; a turn without any says that it is over."""

    def __init__(self, who: str, log: logging.Logger) -> None:
        self._who, self._log = who, log
        self._kinds: set[str] = set()
        self._undisturbed = True

    def begin(self) -> None:
        """A turn begins."""
        self._undisturbed = True

    def note(self, error: BrokerAway | peewee.PeeweeException) -> None:
        """Something went wrong in this turn. A connection that may be spoilt is let go."""
        self._undisturbed = False
        kind = "database away" if database_is_away(error) else type(error).__name__
        if kind not in self._kinds:
            self._log.warning(f"{self._who} interrupted", extra={"cause": cause_of(error)})
            self._kinds.add(kind)
        if isinstance(error, peewee.OperationalError | peewee.InterfaceError | peewee.InternalError):
            db.close()

    def end(self, pause_s: float) -> float:
        """The turn ends; returns how long to wait for the next, in seconds: `pause_s` where nothing went wrong."""
        if not self._undisturbed:
            return RECOVERY_S
        if self._kinds:
            self._log.info(f"{self._who} goes on")
            self._kinds.clear()
        return pause_s
