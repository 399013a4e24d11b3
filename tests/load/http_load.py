"""A load generator that costs little, because it shares the cores with what it measures.

One thread, kept-alive connections on the loopback, requests that were rendered before; of an answer only the status and the
length are read. It costs about a fiftieth of what the service spends on a request.
"""

import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

HOST = "127.0.0.1"
PATIENCE_S = 30.0
_CHUNK = 1 << 18
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class Outcome:
    """What came back: statuses, the time that each answer took, and how long it took altogether, in seconds."""

    seconds: float = 0.0
    answered_in_time: int = 0
    lost: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered_in_time / self.seconds

    def percentile_ms(self, share: float) -> float:
        """The latency that this share of the answers did not exceed."""
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0

    def only(self, *statuses: int) -> bool:
        """Whether every request was answered, and with one of these statuses."""
        return not self.lost and set(self.statuses) <= set(statuses)


def request(method: str, path: str, *, body: bytes = b"", **headers: str) -> bytes:
    """A rendered HTTP/1.1 request; underscores in the names of headers stand for hyphens."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {HOST}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drive(
    port: int,
    requests: Iterable[bytes],
    *,
    clients: int,
    seconds: float = PATIENCE_S,
    pace: float | None = None,
) -> Outcome:
    """Let `clients` send the requests, each the next one when it has its answer, for `seconds` or until none is left.

    With `pace` they send that many a second together, as long as one of them is free. Answers that come after the time
    count among the statuses but not in the rate.
    """
    run = _Run(port, iter(requests), clients, pace)
    try:
        return run.until(time.perf_counter() + seconds)
    finally:
        run.close()


class _Connection:
    """One kept-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_at = 0.0
        self._received = b""
        self._length = 0

    def send(self, raw: bytes) -> None:
        self._received, self._length = b"", 0
        self.sent_at = time.perf_counter()
        self.socket.sendall(raw)

    def receive(self) -> int | None:
        """Read what is there; the status when the answer is complete. Raises ConnectionError when it never will be."""
        chunk = self.socket.recv(_CHUNK)
        if not chunk:
            raise ConnectionResetError("closed before the answer was complete")
        self._received += chunk
        if not self._length and (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, end)
            self._length = end + 4 + (int(length[1]) if length else 0)
        if not self._length or len(self._received) < self._length:
            return None
        return int(self._received[9:12])


class _Run:
    """The connections of one measurement."""

    def __init__(self, port: int, requests: Iterator[bytes], clients: int, pace: float | None) -> None:
        self._port, self._requests = port, requests
        self._interval = 1 / pace if pace else 0.0
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        for _ in range(clients):
            self._connect()
        self._all = len(self._idle)
        self.outcome = Outcome()

    def until(self, deadline: float) -> Outcome:
        """Send until the deadline or the last request, then wait for the answers that are still owed."""
        started = due = time.perf_counter()
        more = True
        while time.perf_counter() < deadline:
            due, more = self._send_due(due)
            if not more:
                break
            wait = min(due, deadline) if self._idle and self._interval else deadline
            self._collect(wait - time.perf_counter())
        if not more:
            self._await_owed()
        self.outcome.seconds = time.perf_counter() - started
        self.outcome.answered_in_time = sum(self.outcome.statuses.values())
        self._await_owed()
        return self.outcome

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.socket.close()
        self._selector.close()

    def _connect(self) -> None:
        connection = _Connection(self._port)
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        self._idle.append(connection)

    def _send_due(self, due: float) -> tuple[float, bool]:
        """Send what is due on the connections that are free; when the next one is due, and whether there is one."""
        while self._idle and due <= time.perf_counter():
            raw = next(self._requests, None)
            if raw is None:
                return due, False
            self._idle.pop().send(raw)
            due += self._interval
        return due, True

    def _await_owed(self) -> None:
        patience = time.perf_counter() + PATIENCE_S
        while len(self._idle) < self._all and time.perf_counter() < patience:
            self._collect(0.1)
        self.outcome.lost += self._all - len(self._idle)

    def _collect(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            connection: _Connection = key.data
            try:
                status = connection.receive()
            except ConnectionError:
                self.outcome.lost += 1
                self._selector.unregister(connection.socket)
                connection.socket.close()
                self._connect()
                continue
            if status is not None:
                self.outcome.latencies_s.append(time.perf_counter() - connection.sent_at)
                self.outcome.statuses[status] += 1
                self._idle.append(connection)
