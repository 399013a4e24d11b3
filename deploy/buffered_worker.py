"""A gunicorn worker that gives a thread only to a request that has arrived as a whole.

gunicorn's own gthread worker lets a thread wait for its client: as many slow clients as there are threads stop the service,
health checks included. Here the loop that watches all connections gathers each request, and threads wait for nobody. It
speaks plain HTTP/1.1, because TLS ends in front of it, and relies on the inside of the pinned gunicorn.
"""

import re
import socket
import struct
import time
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers import gthread

SLOWEST_S = 10
MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 1024 * 1024  # the app refuses what is longer, without reading it
READ_BYTES = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,10})[ \t]*(?:\r\n|$)", re.IGNORECASE)
ASKS_FOR_LEAVE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
LEAVE = b"HTTP/1.1 100 Continue\r\n\r\n"

# How long, in seconds, gunicorn waits for the rest of a body that the app refused to read, before it hangs up.
gthread.DEFAULT_WORKER_DATA_TIMEOUT = 0.1


class Arriving:
    """The bytes of a request that have come so far."""

    def __init__(self, received: bytes) -> None:
        self.received = bytearray(received)
        self.deadline = time.monotonic() + SLOWEST_S
        self._searched_bytes = 0
        self._whole_bytes: int | None = None
        self._has_leave = False

    def is_whole(self) -> bool:
        """Whether head and body are here. Raises LimitRequestHeaders when the head is too long."""
        if self._whole_bytes is None:
            self._whole_bytes = self._announced_bytes()
        return self._whole_bytes is not None and len(self.received) >= self._whole_bytes

    def _announced_bytes(self) -> int | None:
        end = self.received.find(END_OF_HEAD, self._searched_bytes)
        self._searched_bytes = max(0, len(self.received) - len(END_OF_HEAD) + 1)
        if end >= 0:
            return end + len(END_OF_HEAD) + _body_bytes(self.received[:end])
        if len(self.received) > MAX_HEAD_BYTES:
            raise LimitRequestHeaders("limit request headers total size")
        return None

    def asks_for_leave(self) -> bool:
        """True once, for a client that wants to hear that it may send its body (RFC 9110, 10.1.1)."""
        asks = self._whole_bytes is not None and not self._has_leave and bool(ASKS_FOR_LEAVE.search(self.received))
        self._has_leave = self._has_leave or asks
        return asks


def _body_bytes(head: bytearray) -> int:
    """How long a body the head announces; none where the app answers without reading it."""
    length = CONTENT_LENGTH.search(head)
    announced = int(length[1]) if length else 0
    return announced if announced <= MAX_BODY_BYTES else 0


class BufferedWorker(gthread.ThreadWorker):
    """gthread, but for when a connection is given to a thread."""

    def enqueue_req(self, conn: Any) -> None:
        """Called in the loop's thread whenever a connection may have (more of) a request for us."""
        try:
            if self._has_arrived(conn):
                super().enqueue_req(conn)
            else:
                self._watch(conn)
        except LimitRequestHeaders as refusal:
            self.handle_error(None, conn.sock, conn.client, refusal)
            self._drop(conn)
        except OSError:
            self._drop(conn)

    def _has_arrived(self, conn: Any) -> bool:
        """Read what there is, without waiting. Raises OSError when the client is gone or too slow."""
        arriving = self._arriving(conn)
        if conn.sock.gettimeout() != 0:
            conn.sock.setblocking(False)
        while not arriving.is_whole():
            try:
                received = conn.sock.recv(READ_BYTES)
            except BlockingIOError:
                return self._not_yet(conn, arriving)
            if not received:
                raise ConnectionResetError
            arriving.received += received
        conn.arriving = None
        conn.parser.unreader.unread(bytes(arriving.received))
        return True

    def _not_yet(self, conn: Any, arriving: Arriving) -> bool:
        if time.monotonic() > arriving.deadline:
            raise TimeoutError
        if arriving.asks_for_leave():
            # gunicorn says so once more when a thread takes the request; clients have to bear that.
            conn.sock.send(LEAVE)
        return False

    def _arriving(self, conn: Any) -> Arriving:
        if not conn.initialized:
            conn.arriving = None
            conn.data_ready = True
            conn.init()
            # Nor may a client make a thread wait by not reading its answer.
            patience = struct.pack("ll", SLOWEST_S, 0)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        if conn.arriving is None:
            conn.arriving = Arriving(conn.parser.unreader.take_buffered())
        return conn.arriving

    def _watch(self, conn: Any) -> None:
        conn.timeout = conn.arriving.deadline
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def _drop(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.close()
