"""A read replica for lists and reports, which is asked only for what it has.

Before each of these the primary is asked two things in one message: does the actor still stand (`Database.assuming`), and how
far has its log come. The replica then answers if it has replayed that much, within DATABASE_REPLICA_MAX_LAG_MS. So whoever
wrote, in whichever process, reads what they wrote, and a right that was withdrawn is gone, however far behind the replica
is. Everything else (it lags, is gone, stands still, fails) ends with the primary answering the same request.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import peewee
import psycopg2

from fleet import metrics
from fleet.config import Settings
from fleet.db.database import Database, db
from fleet.db.statements import Statement
from fleet.db.wire import Connection, each_within, within
from fleet.outages import database_is_away, sqlstate

R = TypeVar("R")

log = logging.getLogger("fleet.replica")

# What is flushed, because a commit is acknowledged when it is flushed, and a replica is sent nothing before.
POSITION = Statement("primary_position", (), "SELECT pg_current_wal_flush_lsn()::text")
# False also where the server has become a primary of its own, or always was one.
HAS_REPLAYED = Statement(
    "replica_has_replayed", ("pg_lsn",), "SELECT pg_is_in_recovery() AND coalesce(pg_last_wal_replay_lsn() >= $1, false)"
)
CLUSTER = "SELECT system_identifier FROM pg_control_system()"
# The most that asking costs a client whose list the primary could have given at once, apart from waiting for what lags.
_MOST_ASK_S = 0.25
_POLL_S = 0.001
# How long nobody asks a replica that did not do; one request then asks for all.
_REST_S = 1.0


class _Source(Database):
    """The threads' connections to the replica, which rests by rules of its own."""

    guarded = False

    def _connect(self) -> Connection:
        connection = super()._connect()
        # Positions in the log of another cluster would compare just as well, and its rows be shown to our clients.
        with connection.cursor() as cursor:
            cursor.execute(CLUSTER)
            if cursor.fetchone() != db.one(CLUSTER):
                connection.close()
                raise psycopg2.OperationalError("DATABASE_REPLICA_URL is no replica of DATABASE_URL")
        return connection


class Replica:
    """The read replica, for all threads of the process."""

    def __init__(self) -> None:
        self.configured = False
        self._source = _Source(None)
        self._lock = threading.Lock()
        self._resting_until: float | None = None
        self._max_lag_s = 0.0

    def configure(self, settings: Settings) -> None:
        """Use the replica of `settings`, if they name one."""
        self.configured = bool(settings.database_replica_url)
        self._resting_until = None
        if not self.configured:
            return
        self._max_lag_s = settings.database_replica_max_lag_ms / 1000
        # Half of a statement's time: what the replica does not manage in it, the primary still can.
        half_ms = max(1, settings.database_statement_timeout_ms // 2)
        self._source.configure(
            settings, url=settings.database_replica_url, statement_timeout_ms=half_ms, default_transaction_read_only="on"
        )

    def read(self, call: Callable[[], R]) -> R:
        """What `call` returns, read from the replica where that is as good, else from the primary.

        `call` only reads. It may run twice, the second time on the primary. Raises what it raises there.
        """
        if not self.configured:
            return call()
        if not self._may_be_asked():
            metrics.REPLICA_READS.labels("resting").inc()
            return call()
        position = db.run(POSITION, ())[0][0]
        with each_within(self._source.query_s):
            lent = self._caught_up(position)
            if lent is not None:
                metrics.REPLICA_READS.labels("replica").inc()
                try:
                    with within(db.query_s), db.over(lent):
                        return call()
                except (peewee.DatabaseError, peewee.InterfaceError) as error:
                    self._failed(error)
        return call()

    def _caught_up(self, position: str) -> Connection | None:
        """The thread's connection to the replica, once it has replayed up to `position`; None if it does not in time."""
        deadline = time.monotonic() + self._max_lag_s
        try:
            with within(_MOST_ASK_S + self._max_lag_s):
                while not self._source.run(HAS_REPLAYED, (position,))[0][0]:
                    if time.monotonic() > deadline:
                        self._rest("lagging")
                        return None
                    time.sleep(_POLL_S)
        except (peewee.DatabaseError, peewee.InterfaceError) as error:
            self._failed(error)
            return None
        self._resume()
        return self._source.connection()

    def _failed(self, error: Exception) -> None:
        if database_is_away(error):
            self._rest("away")
            return
        # Such as a conflict with what it has to replay, or a list that takes too long there: the next one may do.
        metrics.REPLICA_READS.labels("refused").inc()
        log.warning("the replica refused", extra={"sqlstate": sqlstate(error)})

    def _may_be_asked(self) -> bool:
        if self._resting_until is None:
            return True
        with self._lock:
            now = time.monotonic()
            if self._resting_until is not None and now < self._resting_until:
                return False
            # This thread finds out for all; until it has, the others leave the replica alone.
            self._resting_until = now + _REST_S
            return True

    def _rest(self, why: str) -> None:
        metrics.REPLICA_READS.labels(why).inc()
        with self._lock:
            began = self._resting_until is None
            self._resting_until = time.monotonic() + _REST_S
        if began:
            log.warning("the primary reads for the replica", extra={"why": why})

    def _resume(self) -> None:
        if self._resting_until is None:
            return
        with self._lock:
            self._resting_until = None
        log.info("the replica reads again")


replica = Replica()
