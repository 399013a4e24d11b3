"""Posting a message to an address that a stranger chose, without becoming the stranger's hand in our own network (SSRF).

The name is resolved once; every address that it has must be public; the connection goes to one of those very addresses, with
the name only in TLS and in the Host header. So a name that answers differently the second time is never asked a second time.
No redirect is followed, no proxy of the environment used, no answer's body read, and all of it ends at one deadline however
slowly the other side drips.
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

from fleet.rules.targets import Target, TargetRefused, is_one_machine, is_public, target_of

TOTAL_S, CONNECT_S, RESOLVE_S = 10.0, 3.0, 2.0
MOST_ADDRESSES = 4
MOST_ANSWER_BYTES = 64 * 1024
_MOST_LOOKUPS = 16

# (address family, where to connect) of each address that a name has, in the resolver's order.
Addresses = list[tuple[int, Any]]
Lookup = Callable[..., Any]


class NotDelivered(Exception):
    """A message did not get through. `cause` is one of a few words, without address or answer, so that it may be kept."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Reply:
    """How the receiver answered."""

    status: int
    retry_after: str | None


def addresses_of(
    target: Target, *, allow_private: bool, timeout_s: float = RESOLVE_S, lookup: Lookup | None = None
) -> Addresses:
    """Where a target's name leads, all of it allowed.

    Raises NotDelivered (`unresolved`), TargetRefused when any of the addresses is not public: a name with both kinds is one
    whose next answer may be the other kind.
    """
    found = _resolved(lookup or socket.getaddrinfo, target, timeout_s)
    allowed = is_one_machine if allow_private else is_public
    if not all(allowed(place[0]) for _, place in found):
        raise TargetRefused("not_public", "must lead to addresses of the public internet only")
    return found


class Sender:
    """Sends messages; one connection each, so that nothing of one receiver is left for the next."""

    def __init__(
        self,
        *,
        allow_private: bool,
        total_s: float = TOTAL_S,
        lookup: Lookup | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._total_s = total_s
        self._lookup = lookup
        self._context = context or ssl.create_default_context()

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Post a JSON body. Whatever status comes back is a Reply. Raises NotDelivered."""
        deadline = time.monotonic() + self._total_s
        try:
            target = target_of(url, allow_private=self._allow_private)
            places = addresses_of(
                target, allow_private=self._allow_private, timeout_s=min(RESOLVE_S, self._total_s), lookup=self._lookup
            )
            with self._connected(target, places, deadline) as connection:
                _send(connection, _request(target, headers, body), deadline)
                return _reply(connection, deadline)
        except TargetRefused as error:
            raise NotDelivered(f"refused_{error.code}") from None
        except TimeoutError:
            raise NotDelivered("timed_out") from None
        except ssl.SSLError:
            raise NotDelivered("tls_failed") from None
        except http.client.HTTPException:
            raise NotDelivered("bad_answer") from None
        except OSError:
            raise NotDelivered("connection_lost") from None

    def _connected(self, target: Target, places: Addresses, deadline: float) -> socket.socket:
        connection = _connected_to_any(places, deadline)
        if target.scheme == "http":
            return connection
        try:
            connection.settimeout(_left(deadline))
            return self._context.wrap_socket(connection, server_hostname=target.host)
        except BaseException:
            connection.close()
            raise


def _connected_to_any(places: Addresses, deadline: float) -> socket.socket:
    """A connection to the first address that takes one. It is the address that was checked, not the name."""
    for family, place in places[:MOST_ADDRESSES]:
        connection = socket.socket(family, socket.SOCK_STREAM)
        try:
            connection.settimeout(min(CONNECT_S, _left(deadline)))
            connection.connect(place)
            return connection
        except OSError:
            connection.close()
    raise NotDelivered("not_connected")


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    """The request's bytes. Nothing in them comes from outside but the address, whose grammar has no space and no line break."""
    lines = {
        "Host": target.authority,
        "User-Agent": "fleet-webhooks/1",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


def _send(connection: socket.socket, request: bytes, deadline: float) -> None:
    unsent = memoryview(request)
    while unsent:
        connection.settimeout(_left(deadline))
        unsent = unsent[connection.send(unsent) :]


def _reply(connection: socket.socket, deadline: float) -> Reply:
    """The status and headers of the answer; its body is left unread."""
    source: Any = _Source(connection, deadline)
    response = http.client.HTTPResponse(source, method="POST")
    try:
        response.begin()
        return Reply(response.status, response.getheader("Retry-After"))
    finally:
        response.close()


class _Source:
    """What http.client reads an answer from: at most so many bytes, and none after the deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline = connection, deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Drip(self._connection, self._deadline))


class _Drip(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection, self._deadline, self._bytes_left = connection, deadline, MOST_ANSWER_BYTES

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._bytes_left:
            raise http.client.HTTPException("too long an answer")
        # Each piece may come in time, and all of them together never: the time left is what is left of all.
        self._connection.settimeout(_left(self._deadline))
        got = self._connection.recv_into(memoryview(buffer)[: self._bytes_left])
        self._bytes_left -= got
        return got


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


_lookups = threading.BoundedSemaphore(_MOST_LOOKUPS)


def _resolved(lookup: Lookup, target: Target, timeout_s: float) -> Addresses:
    """Ask the resolver, which has no deadline of its own, in a thread that may be left behind. Raises NotDelivered."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    if not _lookups.acquire(timeout=timeout_s):
        raise NotDelivered("unresolved")

    def ask() -> None:
        try:
            answers.put(lookup(target.host, target.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            answers.put([])
        finally:
            _lookups.release()

    threading.Thread(target=ask, daemon=True, name="webhook-lookup").start()
    try:
        found = answers.get(timeout=timeout_s)
    except queue.Empty:
        found = []
    if not found:
        raise NotDelivered("unresolved")
    return [(family, place) for family, _, _, _, place in found]
