"""The database: one connection a thread, deadlines on the wire, prepared statements, one kind of transaction.

Each thread keeps its own connection, because a pool's check-out costs more than most reads. A dead connection is found by
the first statement sent on it, which is then sent once more on a fresh one; nothing that may have had an effect is repeated.
"""

import functools
import hashlib
import itertools
import re
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import orjson
import peewee
import psycopg2
from psycopg2 import extensions, extras
from psycopg2.extensions import AsIs, register_adapter

from fleet.config import ConfigError, Settings

P = ParamSpec("P")
R = TypeVar("R")
Row = tuple[Any, ...]
Params = Sequence[Any] | Mapping[str, Any]

_DEADLINE_SLACK_S = 0.3
_ASSUMPTION_FAILED = "FL001"
_MOST_RECURRING = 300
# Peewee's translation of driver errors; public in the package, absent from its type stubs.
_translated = vars(peewee)["__exception_wrapper__"]


@dataclass(frozen=True)
class Statement:
    """A hot statement, prepared once on each connection. Parameters are $1, $2, ... with their types named."""

    name: str
    types: tuple[str, ...]
    sql: str

    @functools.cached_property
    def prepare(self) -> str:
        types = f" ({', '.join(self.types)})" if self.types else ""
        return f"PREPARE {self.name}{types} AS {self.sql}"

    @functools.cached_property
    def execute(self) -> str:
        marks = f" ({', '.join(['%s'] * len(self.types))})" if self.types else ""
        return f"EXECUTE {self.name}{marks}"


def _prepared_form(sql: str, count: int) -> Statement:
    """The statement with $1, $2, ... for its %s; PostgreSQL finds out their types."""
    numbers = itertools.count(1)
    numbered = re.sub(r"%[s%]", lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", sql)
    return Statement(f"recurring_{hashlib.sha256(sql.encode()).hexdigest()[:16]}", ("unknown",) * count, numbered)


class AssumptionFailed(Exception):
    """What was assumed does not hold; the statement that it travelled with was not run."""


class Connection(extensions.connection):
    """A connection that knows what was prepared on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prepared: set[str] = set()


class Database(peewee.PostgresqlDatabase):
    """PostgreSQL as the service uses it."""

    _state: Any
    _recurring: dict[str, Statement] = {}

    def configure(self, settings: Settings, *, url: str | None = None, statement_timeout_ms: int | None = None) -> None:
        """Point the database at `settings`. Migrations and long jobs bring their own statement timeout (0: none)."""
        statement_ms = settings.database_statement_timeout_ms if statement_timeout_ms is None else statement_timeout_ms
        self.connect_s = settings.database_connect_timeout_ms / 1000
        self.query_s = statement_ms / 1000 + _DEADLINE_SLACK_S if statement_ms else None
        server_settings = {
            "timezone": "UTC",
            "statement_timeout": statement_ms,
            "lock_timeout": settings.database_lock_timeout_ms if statement_ms else 0,
            "idle_in_transaction_session_timeout": 5000 if statement_ms else 0,
        }
        self.init(
            url or settings.database_url,
            connection_factory=Connection,
            options=" ".join(f"-c {name}={value}" for name, value in server_settings.items()),
            application_name="fleet",
            keepalives_idle=3,
            keepalives_interval=1,
            keepalives_count=2,
        )

    def _connect(self) -> Connection:
        _budget.seconds = self.connect_s
        try:
            return super()._connect()  # type: ignore[misc]  # the stubs leave out what subclasses extend
        finally:
            _budget.seconds = self.query_s

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
        finally:
            if self._assumed() is not None:
                self._send(lambda: self._execute("", ()), repeatable=True)

    def commit(self) -> Any:
        if self._take_pending_begin():
            return None
        return super().commit()

    def rollback(self) -> Any:
        if self._take_pending_begin() or self._connection_lost():
            return None
        return super().rollback()

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
        with _translated:
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
            statement = self._recurring[sql] = _prepared_form(sql, len(params))
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
            self._replace_connection()
        try:
            return call()
        except (peewee.DatabaseError, peewee.InterfaceError) as error:
            if _sqlstate(error) == _ASSUMPTION_FAILED:
                self._state.assumed = None
                raise AssumptionFailed from None
            # Only a statement that starts the work may be sent again, and only when the connection died under it.
            if not (first and (pending or repeatable) and self._connection_lost()):
                raise
        self._replace_connection()
        self._state.begin_pending, self._state.assumed = pending, assumed
        return call()

    def _replace_connection(self) -> None:
        with _translated:
            self._state.conn = self._connect()

    def _execute(self, sql: str, params: Params) -> Any:
        self.connection()
        answer = super().execute_sql(self._preface() + sql, params)
        self._state.assumed = None
        return answer

    def _run(self, statement: Statement, params: Sequence[Any], *, shown: bool = False) -> list[Row]:
        connection = self.connection()
        with _translated:
            cursor = connection.cursor()
            if shown:
                extensions.register_type(_SHOWN_INSTANT, cursor)
            self._prepare(cursor, statement)
            self._say(cursor, statement.execute, params)
            return cursor.fetchall()

    def _prepare(self, cursor: Any, statement: Statement) -> None:
        prepared = cursor.connection.prepared
        if statement.name not in prepared:
            self._say(cursor, statement.prepare)
            prepared.add(statement.name)

    def _say(self, cursor: Any, sql: str, params: Sequence[Any] | None = None) -> None:
        cursor.execute(self._preface() + sql, params)
        # Only now: a check that died with its connection, or beside a statement that failed, has proved nothing.
        self._state.assumed = None

    def _preface(self) -> str:
        """What travels ahead of the next statement: the BEGIN of its transaction, and what is assumed of who acts."""
        begin = "BEGIN;" if self._take_pending_begin() else ""
        assumed = self._assumed()
        if assumed is None:
            return begin
        statement, params = assumed
        with _translated:
            cursor = self._state.conn.cursor()
            if statement.name not in cursor.connection.prepared:
                cursor.execute(statement.prepare)
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


def _sqlstate(error: Exception) -> str | None:
    return getattr(getattr(error, "orig", None), "pgcode", None)


class _Budget(threading.local):
    """How long the thread's current call may wait on the wire, in seconds; None: for ever."""

    seconds: float | None = None


_budget = _Budget()


def _wait_within_budget(connection: extensions.connection) -> None:
    """Wait for the server, but not for ever: a frozen one keeps its sockets open, and no server-side timeout fires."""
    deadline = None if _budget.seconds is None else time.monotonic() + _budget.seconds
    while True:
        state = connection.poll()
        if state == extensions.POLL_OK:
            return
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise psycopg2.OperationalError("the server did not answer in time")
        readers = [connection] if state == extensions.POLL_READ else []
        writers = [connection] if state == extensions.POLL_WRITE else []
        select.select(readers, writers, [], left)


def _shown_instant(value: str | None, _: Any) -> str | None:
    """PostgreSQL's `2026-11-26 12:00:00.12+00` as RFC 3339, as orjson would write it: a page has hundreds of them."""
    if value is None:
        return None
    fraction = value[19:-3].ljust(7, "0") if len(value) > 22 else ""
    return f"{value[:10]}T{value[11:19]}{fraction}Z"


_TIMESTAMPTZ_OID = 1184
_SHOWN_INSTANT = extensions.new_type((_TIMESTAMPTZ_OID,), "SHOWN_INSTANT", _shown_instant)
extensions.set_wait_callback(_wait_within_budget)
extras.register_default_jsonb(globally=True, loads=orjson.loads)
register_adapter(UUID, lambda value: AsIs(f"'{value}'"))
register_adapter(dict, lambda value: extras.Json(value, dumps=lambda obj: orjson.dumps(obj).decode()))

db = Database(None)


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


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """One transaction whose statements may each take so long: for what has to read whole tables."""
    with transaction():
        db.execute_sql("SET LOCAL statement_timeout = %s", (int(seconds * 1000),))
        usual, _budget.seconds = _budget.seconds, seconds + _DEADLINE_SLACK_S
        try:
            yield
        finally:
            _budget.seconds = usual


def atomic(use_case: Callable[P, R]) -> Callable[P, R]:
    """The whole function is one transaction: it commits when the function returns and leaves nothing when it raises."""

    @functools.wraps(use_case)
    def whole(*args: P.args, **kwargs: P.kwargs) -> R:
        with transaction():
            return use_case(*args, **kwargs)

    return whole


def refuse_superuser() -> None:
    """Raises ConfigError when the service's role is a superuser, whom no grant and no trigger of the books would stop.

    A database that does not answer yet refuses nothing: the readiness probe tells of it.
    """
    try:
        row = db.one("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    except (peewee.OperationalError, peewee.InterfaceError):
        return
    finally:
        db.close()
    if row is not None and row[0]:
        raise ConfigError("refusing to start: DATABASE_URL is a superuser's")
