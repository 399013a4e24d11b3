"""The service's PostgreSQL: what is sent, what travels along with it, and what is sent again."""

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import peewee
from psycopg2 import extensions

from fleet.config import ConfigError, Settings
from fleet.db.statements import Statement, prepared_form
from fleet.db.wire import SHOWN_INSTANT, Connection, NoAnswer, budget, each_within, within
from fleet.errors import Unavailable
from fleet.outages import ConnectGuard, sqlstate

log = logging.getLogger("fleet.db")

R = TypeVar("R")
Row = tuple[Any, ...]
Params = Sequence[Any] | Mapping[str, Any]

# How long after its own time limit a server may still tell of it before we stop listening.
DEADLINE_SLACK_S = 0.2
_ASSUMPTION_FAILED = "FL001"
_MOST_RECURRING = 300
# Peewee's translation of driver errors; public in the package, absent from its type stubs.
translated = vars(peewee)["__exception_wrapper__"]


class AssumptionFailed(Exception):
    """What was assumed does not hold; the statement that it travelled with was not run."""


class Database(peewee.PostgresqlDatabase):
    """PostgreSQL as the service uses it."""

    _state: Any
    _recurring: dict[str, Statement] = {}
    # Connecting has a breaker, which is that of the primary.
    guarded = True
    _guard: ConnectGuard | None = None

    def configure(
        self, settings: Settings, *, url: str | None = None, statement_timeout_ms: int | None = None, **more: Any
    ) -> None:
        """Point the database at `settings`. Migrations and long jobs bring their own statement timeout (0: none).

        `more` are further settings of the server for these connections.
        """
        statement_ms = settings.database_statement_timeout_ms if statement_timeout_ms is None else statement_timeout_ms
        self.connect_s = settings.database_connect_timeout_ms / 1000
        self.query_s = statement_ms / 1000 + DEADLINE_SLACK_S if statement_ms else None
        server_settings = {
            "timezone": "UTC",
            "statement_timeout": statement_ms,
            "lock_timeout": settings.database_lock_timeout_ms if statement_ms else 0,
            "idle_in_transaction_session_timeout": 5000 if statement_ms else 0,
            **more,
        }
        self._guard = ConnectGuard() if self.guarded else None
        self.init(
            url or settings.database_url,
            connection_factory=Connection,
            options=" ".join(f"-c {name}={value}" for name, value in server_settings.items()),
            application_name="fleet",
            keepalives_idle=3,
            keepalives_interval=1,
            keepalives_count=2,
        )

    def connection(self) -> Connection:
        """The thread's connection, opened where there is none. Not by Peewee's `connect`: it opens under one lock for the
        whole process, so that at a server that does not answer each thread would wait for all before it.
        """
        if self._state.closed:
            with translated:
                self._state.set_connection(self._connect())
        connection: Connection = self._state.conn
        return connection

    def cursor(self, named_cursor: str | None = None) -> Any:
        return self.connection().cursor()

    def _connect(self) -> Connection:
        with each_within(self.connect_s):
            connecting: Callable[[], Connection] = super()._connect  # type: ignore[misc]  # not in the stubs
            connection = self._guard.connect(connecting) if self._guard else connecting()
        budget.seconds = self.query_s
        return connection

    def begin_in_child(self) -> None:
        """After a fork. Peewee closes under a lock of the process; another thread of the parent that held it in that moment is
        not here to let it go, and the child would wait for ever."""
        self._lock = threading.Lock()

    def begin(self, isolation_level: str | None = None) -> None:
        # BEGIN travels with the first statement of the transaction: one round trip less for each of them. The connection
        # has to be there before: opening it would forget that a transaction was begun.
        self.connection()
        self._state.begin_pending = True

    @contextmanager
    def assuming(self, statement: Statement, params: Sequence[Any]) -> Iterator[None]:
        """Let `statement`, which raises SQLSTATE FL001 where its assumption is false, travel ahead of the next statement.

        One round trip less for what is nearly always true. Where nothing was sent inside, it is sent at the end: nobody
        leaves without having been checked. Raises AssumptionFailed, and then nothing that was sent inside has had an effect.
        """
        self._state.assumed = (statement, params)
        try:
            yield
        except (peewee.OperationalError, peewee.InterfaceError, Unavailable):
            # Everybody is told the same, that it does not go now; asking a server that is away would be one more wait.
            self._state.assumed = None
            raise
        finally:
            try:
                self.check_assumed()
            finally:
                # However this ends: what the thread does next is not done by whom this was about.
                self._state.assumed = None

    def check_assumed(self) -> None:
        """Send what is assumed by itself, unless it has travelled already: before what is no statement and cannot be undone.

        Raises AssumptionFailed.
        """
        if self._assumed() is not None:
            self._send(lambda: self._execute("", ()), repeatable=True)

    @contextmanager
    def over(self, connection: Connection) -> Iterator[None]:
        """Send what the thread sends inside over another connection, which is nobody's to replace when it dies."""
        own, self._state.conn = self._state.conn, connection
        self._state.lent = True
        try:
            yield
        finally:
            self._state.conn, self._state.lent = own, False

    def commit(self) -> Any:
        if self._take_pending_begin():
            return None
        return super().commit()

    def rollback(self) -> Any:
        if self._take_pending_begin() or self._connection_lost():
            return None
        try:
            return super().rollback()
        except (peewee.OperationalError, peewee.InterfaceError):
            # The server undoes it with the connection. Raised, this would hide what went wrong, and Peewee would keep what was
            # to be done after the commit for the thread's next one.
            if not self._connection_lost():
                raise
            return None

    def forget_unfinished(self) -> bool:
        """End what work that was broken off left open in this thread; the server undoes it when the connection closes.

        Returns whether there was anything. For a worker, whose time limit may strike between any two steps, also between
        Peewee's note of a transaction and the block that would end it: the thread would stay in it for ever.
        """
        if not self.in_transaction():
            return False
        connection, state = self._state.conn, self._state
        state.reset()
        state.begin_pending, state.assumed, state.joined_blocks, state.lent = False, None, 0, False
        if connection is not None:
            connection.close()
        return True

    def execute_sql(self, sql: str, params: Params | None = None) -> Any:
        """Run any SQL (Peewee's own path). A literal percent is written %%."""
        return self._send(lambda: self._execute(sql, params or ()), repeatable=sql.startswith("SELECT"))

    def run(self, statement: Statement, params: Sequence[Any], *, shown: bool = False) -> list[Row]:
        """Run a prepared statement and fetch its rows; `shown` gives instants as the text that clients are shown."""
        call = functools.partial(self._run, statement, params, shown=shown)
        return self._send(call, repeatable=statement.sql.lstrip().startswith("SELECT"))

    def run_and_commit(self, statement: Statement, params: Sequence[Any]) -> None:
        """Run the last statement of the open transaction and commit it in the same round trip.

        What the statement answers is lost; where it refuses, it raises, and nothing is committed. Raises RuntimeError
        within somebody else's transaction, whose work is not ours to commit, and where an assumption was not checked yet.
        """
        if self.joined:
            raise RuntimeError("only who opened the transaction may commit it")
        if self._assumed() is not None:
            raise RuntimeError("nothing is committed before it is known who acts")
        with translated:
            connection = self._state.conn
            cursor = connection.cursor()
            self._prepare(cursor, statement)
            cursor.execute(self._preface() + statement.execute + ";COMMIT", params)
        # Nothing is open any more: like a transaction whose BEGIN has not been sent, this one has nothing left to commit.
        self._state.begin_pending = True

    def recurring(self, sql: str, params: Sequence[Any], *, shown: bool = False) -> list[Row]:
        """Run a statement that was put together from parts and will come again: planning it costs as much as running it.

        Each text is prepared once on a connection, up to a bound; what comes after that is planned every time.
        """
        statement = self._recurring.get(sql)
        if statement is None:
            if len(self._recurring) >= _MOST_RECURRING:
                return self.rows(sql, params)
            statement = self._recurring[sql] = prepared_form(sql, len(params))
        return self.run(statement, params, shown=shown)

    def rows(self, sql: str, params: Params = ()) -> list[Row]:
        """Run a statement and fetch its rows."""
        return self.execute_sql(sql, params).fetchall()

    def one(self, sql: str, params: Params = ()) -> Row | None:
        """Run a statement and fetch its first row, if any."""
        return self.execute_sql(sql, params).fetchone()

    def _send(self, call: Callable[[], R], *, repeatable: bool) -> R:
        pending, assumed = self._begin_pending(), self._assumed()
        first = pending or not self.in_transaction()
        if first and self._connection_lost():
            return self._send_on_fresh_connection(call)
        try:
            return self._heeding_assumption(call)
        except (peewee.DatabaseError, peewee.InterfaceError) as error:
            # Only a statement that starts the work may be sent again, and only when the connection died under it. A server
            # that has let us wait in vain would do so once more.
            died = self._connection_lost() and not isinstance(getattr(error, "orig", None), NoAnswer)
            if not (died and first and (pending or repeatable)):
                raise
        self._state.begin_pending, self._state.assumed = pending, assumed
        return self._send_on_fresh_connection(call)

    def _send_on_fresh_connection(self, call: Callable[[], R]) -> R:
        """Connecting and sending have the time of one statement together."""
        if getattr(self._state, "lent", False):
            raise peewee.OperationalError("the connection is lost, and it was only lent")
        with within(self.query_s):
            with translated:
                self._state.conn = self._connect()
            return self._heeding_assumption(call)

    def _heeding_assumption(self, call: Callable[[], R]) -> R:
        try:
            return call()
        except peewee.DatabaseError as error:
            if sqlstate(error) != _ASSUMPTION_FAILED:
                raise
        self._state.assumed = None
        raise AssumptionFailed

    def _execute(self, sql: str, params: Params) -> Any:
        self.connection()
        with translated:
            preface = self._preface()
        answer = super().execute_sql(preface + sql, params)
        self._state.assumed = None
        return answer

    def _run(self, statement: Statement, params: Sequence[Any], *, shown: bool = False) -> list[Row]:
        connection = self.connection()
        with translated:
            cursor = connection.cursor()
            if shown:
                extensions.register_type(SHOWN_INSTANT, cursor)
            self._prepare(cursor, statement)
            self._say(cursor, statement.execute, params)
            return cursor.fetchall()

    def _prepare(self, cursor: Any, statement: Statement) -> None:
        prepared = cursor.connection.prepared
        if statement.name not in prepared:
            self._say(cursor, statement.prepare, ())
            prepared.add(statement.name)

    def _say(self, cursor: Any, sql: str, params: Sequence[Any]) -> None:
        cursor.execute(self._preface() + sql, params)
        # Only now: a check that died with its connection, or beside a statement that failed, has proved nothing.
        self._state.assumed = None

    def _preface(self) -> str:
        """What travels ahead of the next statement: the BEGIN of its transaction, and what is assumed of who acts.

        Where it goes parameters are put in, so a percent sign of its own is written %%.
        Called where errors are translated already: translated twice they would lose their SQLSTATE.
        """
        begin = "BEGIN;" if self._take_pending_begin() else ""
        assumed = self._assumed()
        if assumed is None:
            return begin
        statement, params = assumed
        cursor = self._state.conn.cursor()
        if statement.name not in cursor.connection.prepared:
            cursor.execute(statement.prepare, ())
            cursor.connection.prepared.add(statement.name)
        sent: str = cursor.mogrify(statement.execute, params).decode()
        return f"{begin}{sent.replace('%', '%%')};"

    @property
    def joined(self) -> int:
        """How many `transaction` blocks are part of the one that this thread has open."""
        return getattr(self._state, "joined_blocks", 0)

    @joined.setter
    def joined(self, count: int) -> None:
        self._state.joined_blocks = count

    def _assumed(self) -> tuple[Statement, Sequence[Any]] | None:
        return getattr(self._state, "assumed", None)

    def _begin_pending(self) -> bool:
        return getattr(self._state, "begin_pending", False)

    def _take_pending_begin(self) -> bool:
        pending = self._begin_pending()
        self._state.begin_pending = False
        return pending

    def _connection_lost(self) -> bool:
        raw = self._state.conn
        return raw is not None and bool(raw.closed)


db = Database(None)
os.register_at_fork(after_in_child=db.begin_in_child)


def connect_as_owner(settings: Settings) -> None:
    """From now on be the owner of the tables, with no statement timeout: for migrations and what only the owner may."""
    db.close()
    db.configure(settings, url=settings.database_migration_url, statement_timeout_ms=0)


_STANDING = """
SELECT rolsuper, EXISTS (SELECT 1 FROM pg_class c WHERE c.oid = to_regclass('public.audit_event') AND c.relowner = r.oid)
FROM pg_roles r WHERE rolname = current_user
"""


def refuse_superuser() -> None:
    """Raises ConfigError when the service's role is a superuser, whom no grant and no trigger of the books would stop.

    One that owns the tables is only told of: some platforms give no other, and the triggers stop its slips. A database that
    does not answer yet refuses nothing: the readiness probe tells of it.
    """
    try:
        row = db.one(_STANDING)
    except (peewee.OperationalError, peewee.InterfaceError):
        return
    finally:
        db.close()
    if row is not None and row[0]:
        raise ConfigError("refusing to start: DATABASE_URL is a superuser's")
    if row is not None and row[1]:
        log.warning("the service owns its tables: give it a role of its own, see docs/deploy.md")
