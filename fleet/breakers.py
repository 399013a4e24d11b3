"""Circuit breakers around what is outside: after too many failures nobody is kept waiting for what will not answer.

On top of the circuitbreaker package, whose own rules do not hold under load: it has no lock, lets every caller through when
half open, counts consecutive failures only (80 in 100 never open it), and is closed by a success that comes late. Here the
rate of failures over a window decides, one probe at a time tries again, and only the probe's answer counts then.
Decisions are local to the process; each change is a line in the log and a figure in /metrics.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker, CircuitBreakerError

from fleet import config, metrics

log = logging.getLogger("fleet.breakers")

R = TypeVar("R")
IsFailure = Callable[[type[BaseException], BaseException], bool]

AUTO, FORCED_OPEN, FORCED_CLOSED = "auto", "forced_open", "forced_closed"
_FORCED_STATES = {FORCED_OPEN: STATE_OPEN, FORCED_CLOSED: STATE_CLOSED}
_FIGURES = {STATE_CLOSED: 0, STATE_OPEN: 2}


class Open(CircuitBreakerError):
    """The breaker lets nobody through; nothing was asked of what is behind it."""

    def __init__(self, breaker: "Breaker", retry_after_s: float) -> None:
        super().__init__(breaker)
        self.breaker = breaker.name
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return f"the breaker {self.breaker} is open"


@dataclass(frozen=True, slots=True)
class Rules:
    """When to open: at `min_calls` or more within the window, when so many in a hundred failed. For how long, then."""

    failure_percent: int = 50
    min_calls: int = 5
    window_s: float = 30.0
    open_s: float = 10.0
    # A probe that has not come back by then is given up: its caller may have been killed.
    probe_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Leave to make one call. One of an earlier epoch tells nothing of the present one."""

    epoch: int
    probe: bool


class Breaker(CircuitBreaker):
    """One breaker, for all threads of the process. `now` is a monotonic clock, in seconds."""

    def __init__(
        self, name: str, rules: Rules, *, is_failure: IsFailure | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(name=name, recovery_timeout=rules.open_s, expected_exception=is_failure or _any_exception)
        self._rules, self._now = rules, now
        self._lock = threading.Lock()
        self._calls: deque[tuple[float, bool]] = deque()
        self._epoch = 0
        self._opened_at: float | None = None
        self._probe_since: float | None = None
        self._forced = AUTO
        metrics.BREAKERS.labels(name).set(0)

    @property
    def name(self) -> str:
        return str(self._name)

    @property
    def state(self) -> str:
        with self._lock:
            return self._state_now()

    @property
    def failure_count(self) -> int:
        """Failures within the window."""
        with self._lock:
            self._forget_old()
            return sum(failed for _, failed in self._calls)

    @property
    def open_remaining(self) -> float:
        """Seconds until a probe may try; 0 when it may now."""
        with self._lock:
            return self._remaining()

    def call(self, func: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call `func` unless the breaker is open. Raises Open, and whatever `func` raises."""
        ticket = self._admit()
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            self._note(ticket, failed=self.is_failure(type(error), error))
            raise
        except BaseException:
            self._give_back(ticket)
            raise
        self._note(ticket, failed=False)
        return result

    def check(self) -> None:
        """Raises Open when a call would not be let through now. Takes no leave: use it before costly preparations."""
        with self._lock:
            self._refuse_if_open()

    def force(self, how: str) -> None:
        """Hold it open or closed whatever happens, or let it decide again (AUTO): then it starts afresh."""
        with self._lock:
            if how == self._forced:
                return
            self._forced = how
            self._begin(STATE_CLOSED if how == AUTO else _FORCED_STATES[how], why=how)

    def _admit(self) -> _Ticket:
        with self._lock:
            self._refuse_if_open()
            probing = self._state_now() == STATE_HALF_OPEN
            if probing:
                self._probe_since = self._now()
            return _Ticket(self._epoch, probing)

    def _refuse_if_open(self) -> None:
        state = self._state_now()
        if state == STATE_OPEN or (state == STATE_HALF_OPEN and self._probe_is_out()):
            raise Open(self, max(1.0, self._remaining()))

    def _note(self, ticket: _Ticket, *, failed: bool) -> None:
        with self._lock:
            if ticket.epoch != self._epoch or self._forced != AUTO:
                return
            if ticket.probe:
                self._begin(STATE_OPEN if failed else STATE_CLOSED, why="probe")
                return
            self._calls.append((self._now(), failed))
            self._forget_old()
            failures = sum(bad for _, bad in self._calls)
            enough = len(self._calls) >= self._rules.min_calls
            if failed and enough and failures * 100 >= self._rules.failure_percent * len(self._calls):
                self._begin(STATE_OPEN, why="failures")

    def _give_back(self, ticket: _Ticket) -> None:
        """The call was broken off from outside: that says nothing about what is behind the breaker."""
        with self._lock:
            if ticket.probe and ticket.epoch == self._epoch:
                self._probe_since = None

    def _begin(self, state: str, *, why: str) -> None:
        self._epoch += 1
        self._calls.clear()
        self._probe_since = None
        self._opened_at = self._now() if state == STATE_OPEN else None
        metrics.BREAKERS.labels(self.name).set(_FIGURES[state])
        metrics.BREAKER_CHANGES.labels(self.name, state).inc()
        level = logging.WARNING if state == STATE_OPEN else logging.INFO
        log.log(level, "breaker changed", extra={"breaker": self.name, "state": state, "why": why})

    def _state_now(self) -> str:
        if self._forced != AUTO:
            return _FORCED_STATES[self._forced]
        if self._opened_at is None:
            return str(STATE_CLOSED)
        return str(STATE_OPEN if self._remaining() > 0 else STATE_HALF_OPEN)

    def _remaining(self) -> float:
        return 0.0 if self._opened_at is None else max(0.0, self._opened_at + self._rules.open_s - self._now())

    def _probe_is_out(self) -> bool:
        return self._probe_since is not None and self._now() - self._probe_since < self._rules.probe_s

    def _forget_old(self) -> None:
        oldest = self._now() - self._rules.window_s
        while self._calls and self._calls[0][0] < oldest:
            self._calls.popleft()


def _any_exception(kind: type[BaseException], error: BaseException) -> bool:
    return True


_registry: dict[str, Breaker] = {}
_registry_lock = threading.Lock()


def breaker(name: str, *, is_failure: IsFailure | None = None) -> Breaker:
    """The process's breaker of this name, made at its first use with the thresholds of the settings."""
    with _registry_lock:
        if name not in _registry:
            settings = config.current()
            rules = Rules(
                failure_percent=settings.breaker_failure_percent,
                min_calls=settings.breaker_min_calls,
                window_s=settings.breaker_window_s,
                open_s=settings.breaker_open_s,
            )
            _registry[name] = Breaker(name, rules, is_failure=is_failure)
        return _registry[name]


def known() -> list[Breaker]:
    """Every breaker of the process that was used, by name."""
    with _registry_lock:
        return [_registry[name] for name in sorted(_registry)]
