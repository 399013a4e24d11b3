"""Two use cases made to meet: the first stands still at its dangerous point until the second has ended or waits for it.

Nothing here depends on luck or on sleeping long enough, so a test that removes a lock sees the race every time.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from fleet import clock
from fleet.db import Statement, db, transaction

COMMIT = "COMMIT"
NOTHING = Statement("nothing", ("integer",), "SELECT $1")
PATIENCE_S = 20
POLL_S = 0.003

Call = Callable[[], Any]


@dataclass
class Outcome:
    """How one of the two ended: with a value or an error, and whether it had to wait for a lock of the other's."""

    value: Any = None
    error: Exception | None = None
    waited: bool = False

    @property
    def result(self) -> Any:
        """The value. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value

    @property
    def said(self) -> tuple[int, str | None]:
        """The status and the problem's code of an HTTP answer."""
        answer = self.result
        refused = answer.status_code >= 400
        return answer.status_code, answer.json["code"] if refused else None


class Runner(threading.Thread):
    """A use case in a thread, on a connection of its own."""

    def __init__(self, call: Call) -> None:
        super().__init__(daemon=True)
        self.call, self.outcome, self.pid = call, Outcome(), 0
        self.connected = threading.Event()

    def run(self) -> None:
        try:
            # On a busy machine one may stand idle at its point for longer than the service would ever do.
            db.execute_sql("SET idle_in_transaction_session_timeout = 0")
            self.pid = db.rows("SELECT pg_backend_pid()")[0][0]
            self.connected.set()
            self.outcome.value = self.call()
        except Exception as error:
            self.outcome.error = error
        finally:
            db.close()

    def waits_for(self, pid: int) -> bool:
        """Whether it waits for a lock that this backend holds."""
        return self.connected.is_set() and db.one("SELECT %s = ANY (pg_blocking_pids(%s))", (pid, self.pid)) == (True,)

    def await_waiting(self) -> None:
        """Return when it waits for anybody's lock."""
        deadline = time.monotonic() + PATIENCE_S
        waits = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
        while not (self.connected.is_set() and db.one(waits, (self.pid,)) == (True,)):
            assert_harness(self.is_alive() and time.monotonic() < deadline, f"never waited: {self.outcome}")
            time.sleep(POLL_S)

    def end(self) -> Outcome:
        self.join(PATIENCE_S)
        assert_harness(not self.is_alive(), "a use case never ended")
        return self.outcome


class _Stop:
    """The dangerous point: before the n-th statement of the first one that holds `before`, or before its COMMIT."""

    def __init__(self, runner: Runner, before: str, occurrence: int) -> None:
        self.runner, self.before, self.left = runner, before, occurrence
        self.reached, self.go_on = threading.Event(), threading.Event()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        execute, run, commit, run_and_commit = db._execute, db._run, db.commit, db.run_and_commit

        def stopping_execute(sql: str, params: Any) -> Any:
            self._stand(sql)
            return execute(sql, params)

        def stopping_run(statement: Any, params: Any, **how: Any) -> Any:
            self._stand(statement.name)
            return run(statement, params, **how)

        def stopping_commit() -> Any:
            self._stand(COMMIT)
            return commit()

        def stopping_run_and_commit(statement: Any, params: Any) -> None:
            """Two round trips, so that there is a point between the two."""
            stopping_run(statement, params)
            self._stand(COMMIT)
            run_and_commit(NOTHING, (0,))

        patch.setattr(db, "_execute", stopping_execute)
        patch.setattr(db, "_run", stopping_run)
        patch.setattr(db, "commit", stopping_commit)
        patch.setattr(db, "run_and_commit", stopping_run_and_commit)

    def await_first(self) -> None:
        """Return when the first one stands there."""
        deadline = time.monotonic() + PATIENCE_S
        while not self.reached.wait(POLL_S):
            ended = not self.runner.is_alive()
            assert_harness(not ended, f"ended before it came to {self.before!r}: {self.runner.outcome}")
            assert_harness(time.monotonic() < deadline, f"never came to {self.before!r}")

    def _stand(self, sql: str) -> None:
        if threading.current_thread() is not self.runner or self.before not in sql:
            return
        self.left -= 1
        if self.left == 0:
            self.reached.set()
            self.go_on.wait(PATIENCE_S)


class Meeting:
    """`meet(first, second, before=...)` runs both; see the module."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch

    def __call__(
        self, first: Call, second: Call, *, before: str = COMMIT, occurrence: int = 1
    ) -> tuple[Outcome, Outcome]:
        one, other = Runner(first), Runner(second)
        stop = _Stop(one, before, occurrence)
        with self._patch.context() as patch:
            stop.install(patch)
            one.start()
            stop.await_first()
            try:
                other.start()
                other.outcome.waited = _waits_for(other, one)
            finally:
                stop.go_on.set()
            return one.end(), other.end()


def _waits_for(other: Runner, one: Runner) -> bool:
    """Whether `other` comes to wait for a lock of `one`; False when it ends without."""
    deadline = time.monotonic() + PATIENCE_S
    while other.is_alive():
        assert_harness(time.monotonic() < deadline, "the second neither ended nor waited")
        if other.waits_for(one.pid):
            return True
        time.sleep(POLL_S)
    return False


def in_one_transaction(call: Call) -> Call:
    """A call that is one statement, in a transaction around it that keeps its locks until the other one has come."""

    def whole() -> Any:
        with transaction():
            return call()

    return whole


class _Shift(threading.local):
    by = timedelta()


_shift = _Shift()


def install_clock(patch: pytest.MonkeyPatch) -> None:
    """Let `later` move the service's clock, for one thread alone."""
    real = clock.now
    patch.setattr(clock, "now", lambda: real() + _shift.by)


def later(call: Call, **by: float) -> Call:
    """The call as it runs so much later (hours=, minutes=) by the service's clock."""

    def shifted() -> Any:
        _shift.by = timedelta(**by)
        try:
            return call()
        finally:
            _shift.by = timedelta()

    return shifted


class HarnessError(Exception):
    """The two did not meet: nothing is known about the race. No AssertionError, which would mean that a race was seen."""


def assert_harness(holds: bool, message: str) -> None:
    if not holds:
        raise HarnessError(message)
