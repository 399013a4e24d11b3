"""HTTP over one connection a call, all of which ends at one deadline however slowly the other side drips.

A timeout of a socket bounds each wait, and a server that sends a byte now and then keeps every wait short: here each of them is
given what is left of the whole, from the look-up of the name to the last byte of the answer. No redirect is followed and no
proxy of the environment used.
"""

import http.client
import io
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

MOST_ADDRESSES = 4
_MOST_LOOKUPS = 16
_PORTS = {"http": 80, "https": 443}

# (address family, where to connect) of each address that a name has, in the resolver's order.
Addresses = list[tuple[int, Any]]
Lookup = Callable[..., Any]


class NotConnected(Exception):
    """There is no connection, so nothing was sent. `cause` is the class of what went wrong last."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class TooLong(http.client.HTTPException, OSError):
    """The answer has more bytes than are read."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: for connecting to one address, for each wait for an answer's next bytes, and for all of it."""

    connect_s: float
    read_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `body` is empty where nobody wants it. `headers` are looked up without regard to case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Lookups:
    """The resolver has no deadline of its own: it is asked in threads that may be left behind, so many at once."""

    def __init__(self, most: int = _MOST_LOOKUPS) -> None:
        self._free = threading.BoundedSemaphore(most)

    def find(self, host: str, port: int, *, timeout_s: float, lookup: Lookup | None = None) -> Addresses:
        """The addresses of a name; none where it has none, or nobody says so in time."""
        ask = lookup or socket.getaddrinfo
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        ends_at = time.monotonic() + timeout_s
        if not self._free.acquire(timeout=timeout_s):
            return []

        def asked() -> None:
            try:
                answers.put(ask(host, port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError):
                answers.put([])
            finally:
                self._free.release()

        try:
            threading.Thread(target=asked, daemon=True, name="lookup").start()
        except RuntimeError:  # no more threads are to be had
            self._free.release()
            return []
        try:
            found = answers.get(timeout=max(0.0, ends_at - time.monotonic()))
        except queue.Empty:
            found = []
        return [(family, place) for family, _, _, _, place in found]


# Names that strangers chose must not keep ours from being found.
lookups, lookups_for_strangers = Lookups(), Lookups()


class Caller:
    """Calls one server of ours, which settings name."""

    def __init__(self, limits: Limits, *, most_bytes: int, context: ssl.SSLContext | None = None) -> None:
        self._limits, self._most_bytes = limits, most_bytes
        self._context = context or ssl.create_default_context()

    def call(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        total_s: float | None = None,
        wants_body: bool = True,
    ) -> Answer:
        """One exchange within the limits, or in `total_s`. Raises NotConnected, OSError, http.client.HTTPException."""
        ends_at = time.monotonic() + (self._limits.total_s if total_s is None else total_s)
        parts = urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = {"Host": parts.netloc.rpartition("@")[2], "Connection": "close", "Accept-Encoding": "identity", **headers}
        with self._connected(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme], ends_at) as connection:
            send(connection, request(method, path, head, body), ends_at)
            bounds: Any = {"read_s": self._limits.read_s, "most_bytes": self._most_bytes}
            return answer(connection, ends_at, method=method, wants_body=wants_body, **bounds)

    def _connected(self, scheme: str, host: str, port: int, ends_at: float) -> socket.socket:
        try:
            places = lookups.find(host, port, timeout_s=min(self._limits.connect_s, left(ends_at)))
            connection = connected(places, ends_at, connect_s=self._limits.connect_s)
            if scheme == "http":
                return connection
            return secured(connection, self._context, host, min(ends_at, time.monotonic() + self._limits.connect_s))
        except OSError as error:
            raise NotConnected(type(error).__name__) from error


def connected(places: Addresses, ends_at: float, *, connect_s: float) -> socket.socket:
    """A connection to the first address that takes one. Raises NotConnected, TimeoutError."""
    cause = "unresolved"
    for family, place in places[:MOST_ADDRESSES]:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(min(connect_s, left(ends_at)))
            connection.connect(place)
            return connection
        except OSError as error:
            cause = type(error).__name__
            connection.close()
    raise NotConnected(cause)


def secured(connection: socket.socket, context: ssl.SSLContext, host: str, ends_at: float) -> ssl.SSLSocket:
    """The connection under TLS. Python gives the whole handshake one timeout. Closes it when that fails; raises OSError."""
    try:
        connection.settimeout(left(ends_at))
        return context.wrap_socket(connection, server_hostname=host)
    except BaseException:
        connection.close()
        raise


def request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request's bytes. Raises http.client.HTTPException for what would be read as another line."""
    lines = {**headers, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    if head.count("\n") != len(lines) or head.count("\r") != len(lines) or any(char in path for char in " \r\n"):
        raise http.client.InvalidURL("a line break in a header or a path")
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def send(connection: socket.socket, message: bytes, ends_at: float) -> None:
    unsent = memoryview(message)
    while unsent:
        connection.settimeout(left(ends_at))
        unsent = unsent[connection.send(unsent) :]


def answer(
    connection: socket.socket, ends_at: float, *, method: str, read_s: float, most_bytes: int, wants_body: bool
) -> Answer:
    """The answer, of which at most `most_bytes` are read. Raises TooLong, TimeoutError."""
    source: Any = _Source(reader(connection, lambda: min(read_s, left(ends_at)), most_bytes=most_bytes))
    response = http.client.HTTPResponse(source, method=method)
    try:
        response.begin()
        return Answer(response.status, response.headers, response.read() if wants_body else b"")
    finally:
        response.close()


class _Source:
    """What http.client reads an answer from."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self._file


def reader(connection: socket.socket, wait_s: Callable[[], float], *, most_bytes: int) -> io.BufferedReader:
    """A file that reads at most `most_bytes`. `wait_s` says how long the next of them may take, or raises TimeoutError."""
    return io.BufferedReader(_Drip(connection, wait_s, most_bytes))


class _Drip(io.RawIOBase):
    """At most so many bytes, and none after the deadline."""

    def __init__(self, connection: socket.socket, wait_s: Callable[[], float], most_bytes: int) -> None:
        self._connection, self._wait_s, self._bytes_left = connection, wait_s, most_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._bytes_left:
            raise TooLong("too long an answer")
        # Each piece may come in time, and all of them together never: the time left is what is left of all.
        self._connection.settimeout(self._wait_s())
        got = self._connection.recv_into(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= got
        return got


def left(ends_at: float) -> float:
    """Seconds until then. Raises TimeoutError when there are none."""
    seconds = ends_at - time.monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds
