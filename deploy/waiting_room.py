"""Where whole requests wait: for a thread, or for another request of the kind that may only be so many at once.

Three lines, by priority; the worker fills them when all of its threads are busy, and each thread that is free takes from them
first. What cannot be served in time is refused when it comes, not when its time is over: that is told from the pace at which
requests were begun a moment ago.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

VITAL, URGENT, NORMAL, DEFERRABLE = range(4)
# How much of the room a line may fill, together with those before it.
SHARES = {URGENT: 1.0, NORMAL: 0.75, DEFERRABLE: 0.25}
PACE_OVER_S = 0.5


class Admission(Protocol):
    """What the application says about its requests: `fleet.admission.Admission`."""

    longest_wait_s: float
    most_waiting: int
    most_deferrable: int

    def priority(self, received: bytes | bytearray) -> int: ...

    def refusal(self, received: bytes | bytearray, priority: int) -> bytes: ...

    def note_busy(self, threads: int) -> None: ...


class WaitingRoom:
    """Requests that wait. Each is a client with a `priority` and the time `whole_at` since which its request is here."""

    def __init__(self, admission: Admission, threads: int) -> None:
        self.admission = admission
        self._longest_wait_s = admission.longest_wait_s
        self._most = admission.most_waiting
        self._most_deferrable = admission.most_deferrable
        self._threads = threads
        self._lines: dict[int, deque[Any]] = {URGENT: deque(), NORMAL: deque(), DEFERRABLE: deque()}
        self._urgent, self._normal, self._deferrable = self._lines.values()
        self._deferrable_at_work = 0
        self._lock = threading.Lock()
        self._paces: list[float] = []
        self._measured_since: tuple[float, int] | None = None

    def __len__(self) -> int:
        return len(self._urgent) + len(self._normal) + len(self._deferrable)

    def begin_deferrable(self) -> bool:
        """Whether one more of them may be worked on; then it is."""
        with self._lock:
            return self._begin_deferrable()

    def end_deferrable(self) -> None:
        with self._lock:
            self._deferrable_at_work -= 1

    def put(self, client: Any) -> bool:
        """Let a client wait; False where there is no use in it."""
        with self._lock:
            if not self._has_place(client.priority):
                return False
            self._lines[client.priority].append(client)
            return True

    def put_unless_begun(self, client: Any) -> bool | None:
        """Begin a deferrable request if it may (True); else let it wait (None), or not even that (False).

        One step under the lock: the last of those at work may end in between, and nobody would come for this one.
        """
        with self._lock:
            if self._begin_deferrable():
                return True
            if not self._has_place(DEFERRABLE):
                return False
            self._deferrable.append(client)
            return None

    def take(self) -> Any | None:
        """The next client, the most urgent first; a deferrable one counts as begun."""
        if not (self._urgent or self._normal or self._deferrable):
            return None
        with self._lock:
            for line in (self._urgent, self._normal):
                if line:
                    return line.popleft()
            if self._deferrable and self._begin_deferrable():
                return self._deferrable.popleft()
            return None

    def hopeless(self, now: float) -> Iterator[Any]:
        """Take out those that have waited for too long, for their clients have likely gone, and those that would."""
        for priority, line in self._lines.items():
            while (client := self._taken_if_hopeless(priority, line, now)) is not None:
                yield client

    def measure(self, served: int, *, busy: bool) -> None:
        """Learn the pace from the number of requests served so far, while all threads are busy."""
        if not busy:
            self._paces, self._measured_since = [], None
            return
        now = time.monotonic()
        since, before = self._measured_since or (now, served)
        if now - since >= PACE_OVER_S:
            self._paces = [*self._paces[-1:], (served - before) / (now - since)]
            since, before = now, served
        self._measured_since = since, before

    def _has_place(self, priority: int) -> bool:
        ahead = self._up_to(priority)
        return ahead < self._most * SHARES[priority] and ahead < self._reach()

    def _up_to(self, priority: int) -> int:
        """How many wait that go before the next one of this priority."""
        return sum(len(line) for of, line in self._lines.items() if of <= priority)

    def _reach(self) -> float:
        """How many can be begun in the longest time that one may wait; without end while the pace is not known yet.

        The quicker of the last two paces counts: that nothing ended for half a second says little where work takes a second.
        """
        if len(self._paces) < 2:
            return float("inf")
        return max(self._threads, max(self._paces) * self._longest_wait_s)

    def _begin_deferrable(self) -> bool:
        begins = self._deferrable_at_work < self._most_deferrable
        self._deferrable_at_work += begins
        return begins

    def _taken_if_hopeless(self, priority: int, line: deque[Any], now: float) -> Any | None:
        with self._lock:
            if line and now - line[0].whole_at >= self._longest_wait_s:
                return line.popleft()
            return line.pop() if line and self._up_to(priority) > self._reach() else None
