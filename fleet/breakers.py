"""Circuit breakers around what is outside: after too many failures nobody is kept waiting for what will not answer.

On top of the circuitbreaker package, whose own rules do not hold under load: it has no lock, lets every caller through when
half open, counts consecutive failures only (80 in 100 never open it), and is closed by a success that comes late. Here the
rate of failures over a window decides, one probe at a time tries again, and only the probe's answer counts then.
Decisions are local to the process; each change is a line in the log and a figure in /metrics. An operator's word is obeyed by
all processes (fleet.services.circuit_breakers carries it here).
"""

import logging
import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeVar

from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, STATE_OPEN, CircuitBreaker, CircuitBreakerError

from fleet import clock, config, metrics

log = logging.getLogger("fleet.breakers")

R = TypeVar("R")
# None: it says nothing of what is behind the breaker, as if nobody had called.
IsFailure = Callable[[type[BaseException], BaseException], bool | None]

AUTO, FORCED_OPEN, FORCED_CLOSED = "auto", "forced_open", "forced_closed"
_FORCED_STATES = {FORCED_OPEN: STATE_OPEN, FORCED_CLOSED: STATE_CLOSED}

# What each process asks for. Beside these there is one for each host that webhooks go to.
STRIPE, SMTP, SMS, POSTGRESQL, REDIS, BROKER = "stripe", "smtp", "sms", "postgresql", "redis", "broker"
NAMES = (BROKER, POSTGRESQL, REDIS, SMS, SMTP, STRIPE)
WEBHOOKS, HOST_PREFIX = "webhooks", "webhook:"
# Hosts are chosen by strangers: the one that was not asked for the longest time is forgotten.
MOST_HOSTS = 100


class Open(CircuitBreakerError):
    """The breaker lets nobody through for `retry_after_s`; nothing was asked of what is behind it."""

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


# Where a dependency is unlike the others. A connect to PostgreSQL that fails once has failed: everybody else would wait behind
# it; and it has to be found back soon, by one probe at a time.
_USUAL = {
    POSTGRESQL: {"min_calls": 1, "window_s": 5.0, "open_s": 0.25, "probe_s": 10.0},
    REDIS: {"min_calls": 2, "window_s": 5.0, "open_s": 1.0, "probe_s": 5.0},
    BROKER: {"min_calls": 2, "open_s": 2.0, "probe_s": 5.0},
}


def rules_of(name: str) -> Rules:
    """The thresholds of a dependency: the settings', unless it is unlike the others or BREAKER_OVERRIDES says otherwise."""
    settings = config.current()
    rules = Rules(
        failure_percent=settings.breaker_failure_percent,
        min_calls=settings.breaker_min_calls,
        window_s=settings.breaker_window_s,
        open_s=settings.breaker_open_s,
    )
    chosen: dict[str, Any] = {**_USUAL.get(name, {}), **settings.breaker_rules.get(name, {})}
    return replace(rules, **chosen)


@dataclass(frozen=True, slots=True)
class Control:
    """An operator's word on a breaker: AUTO, FORCED_OPEN or FORCED_CLOSED. Of two words the later has the higher epoch."""

    state: str
    epoch: int
    by: str
    at: datetime
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How a breaker stands in this process. `epoch` is that of the last word of an operator that it has heard; 0: of none."""

    name: str
    state: str
    failures: int
    opened_at: datetime | None
    control: str
    epoch: int


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Leave to make one call. One of an earlier epoch tells nothing of the present one."""

    epoch: int
    probe: bool


class Breaker(CircuitBreaker):
    """One breaker, for all threads of the process. `now` is a monotonic clock, in seconds."""

    def __init__(
        self,
        name: str,
        rules: Rules,
        *,
        is_failure: IsFailure | None = None,
        now: Callable[[], float] = time.monotonic,
        figure: "Figure | None" = None,
    ) -> None:
        super().__init__(name=name, recovery_timeout=rules.open_s, expected_exception=is_failure or _any_exception)
        self._rules, self._now = rules, now
        self._figure = figure or Figure(name)
        self._retired = False
        self._lock = threading.Lock()
        self._calls: deque[tuple[float, bool]] = deque()
        self._failures = 0  # among `_calls`: a busy window has thousands, and nobody counts them at each call
        self._epoch = 0
        self._opened_at: float | None = None
        self._opened_when: datetime | None = None
        self._probe_since: float | None = None
        self._forced = AUTO
        self._heard = 0
        self._figure.tell(name, is_open=False)

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
            return self._failures

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
            failed = self.is_failure(type(error), error)
            if failed is None:
                self._give_back(ticket)
            else:
                self._note(ticket, failed=failed)
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

    def wait_s(self) -> float:
        """Seconds until a call may be let through; 0 when one would be now."""
        try:
            self.check()
        except Open as refusal:
            return refusal.retry_after_s
        return 0.0

    def reading(self) -> Reading:
        """How it stands, all of one moment."""
        with self._lock:
            self._forget_old()
            return Reading(self.name, self._state_now(), self._failures, self._opened_when, self._forced, self._heard)

    def force(self, how: str, *, epoch: int | None = None) -> None:
        """Hold it open or closed whatever happens, or let it decide again (AUTO): then it starts afresh.

        Told the same again it does nothing, but for AUTO by a later `epoch`: that closes what is open.
        """
        with self._lock:
            again = how == self._forced and (how != AUTO or epoch is None or self._opened_at is None)
            self._forced, self._heard = how, epoch or self._heard
            if not again:
                self._begin(STATE_CLOSED if how == AUTO else _FORCED_STATES[how], why=how)

    def retire(self) -> None:
        """Be no part of the figure any more: calls that are under way may still open what nobody will find and close again."""
        with self._lock:
            self._retired = True
            self._figure.tell(self.name, is_open=False)

    def forget(self) -> None:
        """What went on in the parent of this process says nothing here, and its locks may be held by threads that are not."""
        self._lock = threading.Lock()
        self._figure.lock = threading.Lock()
        self._forget_all()
        self._epoch += 1
        self._probe_since = None

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
            raise Open(self, max(1.0, self._rules.open_s if self._forced == FORCED_OPEN else self._remaining()))

    def _note(self, ticket: _Ticket, *, failed: bool) -> None:
        with self._lock:
            if ticket.epoch != self._epoch or self._forced != AUTO:
                return
            if ticket.probe:
                self._begin(STATE_OPEN if failed else STATE_CLOSED, why="probe")
                return
            self._calls.append((self._now(), failed))
            self._failures += failed
            self._forget_old()
            enough = len(self._calls) >= self._rules.min_calls
            if failed and enough and self._failures * 100 >= self._rules.failure_percent * len(self._calls):
                self._begin(STATE_OPEN, why="failures")

    def _give_back(self, ticket: _Ticket) -> None:
        """The call was broken off, or not made: that says nothing about what is behind the breaker."""
        with self._lock:
            if ticket.probe and ticket.epoch == self._epoch:
                self._probe_since = None

    def _begin(self, state: str, *, why: str) -> None:
        self._epoch += 1
        self._forget_all()
        self._probe_since = None
        self._opened_at = self._now() if state == STATE_OPEN else None
        if state != STATE_OPEN or self._opened_when is None:  # a probe that failed does not make it younger
            self._opened_when = clock.now() if state == STATE_OPEN else None
        if not self._retired:
            self._figure.tell(self.name, is_open=state == STATE_OPEN)
        metrics.BREAKER_CHANGES.labels(self._figure.label, state).inc()
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
            self._failures -= self._calls.popleft()[1]

    def _forget_all(self) -> None:
        self._calls.clear()
        self._failures = 0


def _any_exception(kind: type[BaseException], error: BaseException) -> bool:
    return True


class Figure:
    """What /metrics says of one breaker, or of all that share a label: 2 while any of them is open."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.lock = threading.Lock()
        self._open: set[str] = set()

    def tell(self, name: str, *, is_open: bool) -> None:
        with self.lock:  # or what one host found could be said after what another changed
            (self._open.add if is_open else self._open.discard)(name)
            metrics.BREAKERS.labels(self.label).set(2 if self._open else 0)


class _Registry:
    """The breakers of a process, and what operators have said of them, also of those that nobody has used yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.named: dict[str, Breaker] = {}
        self.hosts: OrderedDict[str, Breaker] = OrderedDict()
        self.hosts_figure = Figure(WEBHOOKS)
        self.controls: dict[str, Control] = {}

    def all(self) -> dict[str, Breaker]:
        return {**self.named, **self.hosts}

    def obeying(self, made: Breaker) -> Breaker:
        control = self.controls.get(made.name)
        if control is not None:
            made.force(control.state, epoch=control.epoch)
        return made


_registry = _Registry()


def breaker(name: str, *, is_failure: IsFailure | None = None) -> Breaker:
    """The process's breaker of this name, made at its first use with the thresholds of the settings."""
    with _registry.lock:
        if name not in _registry.named:
            _registry.named[name] = _registry.obeying(Breaker(name, rules_of(name), is_failure=is_failure))
        return _registry.named[name]


def of_host(authority: str, *, is_failure: IsFailure | None = None) -> Breaker:
    """The breaker of a host that webhooks go to (`host` or `host:port`): one of at most MOST_HOSTS, those used last."""
    name = f"{HOST_PREFIX}{authority}"
    with _registry.lock:
        hosts = _registry.hosts
        if name not in hosts:
            figure = _registry.hosts_figure
            hosts[name] = _registry.obeying(Breaker(name, rules_of(WEBHOOKS), is_failure=is_failure, figure=figure))
            if len(hosts) > MOST_HOSTS:
                hosts.popitem(last=False)[1].retire()
        hosts.move_to_end(name)
        return hosts[name]


def known() -> list[Breaker]:
    """Every breaker of the process that was used, by name."""
    with _registry.lock:
        found = _registry.all()
    return [found[name] for name in sorted(found)]


def obey(controls: Mapping[str, Control]) -> bool:
    """Do as operators say, but for what a later word has overtaken; returns whether anything was new."""
    with _registry.lock:
        new = {name: word for name, word in controls.items() if word.epoch > _heard_of(name)}
        _registry.controls.update(new)
        present = _registry.all()
        for name, word in new.items():
            if name in present:
                present[name].force(word.state, epoch=word.epoch)
    return bool(new)


def _heard_of(name: str) -> int:
    known_word = _registry.controls.get(name)
    return known_word.epoch if known_word else 0


def _after_fork() -> None:
    _registry.lock = threading.Lock()
    for one in _registry.all().values():
        one.forget()


os.register_at_fork(after_in_child=_after_fork)
