"""A gunicorn worker whose threads wait for whole requests, all of them at one epoll.

gunicorn's own gthread worker lets a thread wait for its client, so that as many slow clients as there are threads stop the
service, health checks included; and it passes each request from its loop to a thread and back, which costs as much as a small
request itself. Here whichever thread epoll wakes reads what has come, without waiting, and answers a request that is complete.
Parsing and answering are gunicorn's. While all threads are busy the main loop takes requests in, so that it is known how many
wait and for how long, and refuses what cannot be served in time (`deploy/waiting_room.py`); health has a thread of its own.
The worker speaks plain HTTP/1.1, because TLS ends in front of it, and relies on the inside of the pinned gunicorn. Needs Linux:
see `deploy/gunicorn.conf.py`.
"""

import errno
import os
import queue
import re
import select
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gunicorn.http.errors import LimitRequestHeaders
from gunicorn.workers import gthread
from gunicorn.workers.base import Worker

from deploy.answers import ADMISSION
from deploy.waiting_room import DEFERRABLE, NORMAL, VITAL, Admission, WaitingRoom

LOOK_EVERY_S = 0.1
MOST_AT_A_LOOK, MOST_VITAL = 256, 32
SLOWEST_S, SLOWEST_READER_S = 10, 30
LINGER_S = 2.0
COURTESY_S, MOST_COURTESIES = 0.00005, 40
MAX_HEAD_BYTES = 32 * 1024
MAX_BODY_BYTES = 1024 * 1024  # the app refuses what is longer, without reading it
READ_BYTES = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*0*([0-9]{1,10})[ \t]*(?:\r\n|$)", re.IGNORECASE)
ASKS_FOR_LEAVE = re.compile(rb"\r\nexpect:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
TO_READ = select.EPOLLIN | select.EPOLLONESHOT
TO_WRITE = select.EPOLLOUT | select.EPOLLONESHOT
LEAVE = b"HTTP/1.1 100 Continue\r\n\r\n"

# How long, in seconds, gunicorn waits for the rest of a body that the app refused to read, before it hangs up.
gthread.DEFAULT_WORKER_DATA_TIMEOUT = 0.1


class Outgoing(socket.socket):
    """A socket that keeps what its client does not take at once: nor may a client make a thread wait by not reading.

    gunicorn sets its time limit four times a request, for reads that are seldom needed: each is a system call, in which another
    thread takes over. Here a limit is set when something waits for it.
    """

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        super().setblocking(True)
        self._limit_s: float | None = None
        self.unsent = bytearray()

    def setblocking(self, flag: bool) -> None:
        self._limit_s = None if flag else 0.0

    def settimeout(self, value: float | None) -> None:
        self._limit_s = value

    def gettimeout(self) -> float | None:
        return self._limit_s

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        self._limit()
        return super().recv(bufsize, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        self._limit()
        return super().send(data, flags)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send what goes at once, and keep the rest for `flush`."""
        self.unsent += data
        self.flush()

    def flush(self) -> None:
        """Send as much of what was kept as goes at once. Raises OSError when the client is gone."""
        try:
            while self.unsent:
                del self.unsent[: self.send(self.unsent, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            return

    def _limit(self) -> None:
        if self._limit_s != super().gettimeout():
            super().settimeout(self._limit_s)


class Client(gthread.TConn):
    """A connection, and the bytes of its next request that have come so far."""

    def __init__(self, cfg: Any, accepted: socket.socket, *addresses: Any) -> None:
        super().__init__(cfg, Outgoing(accepted), *addresses)
        self.init()
        self.fd = self.sock.fileno()
        self.watched = self.is_last = self.hanging_up = self._has_leave = self.admitted = False
        self._whole_bytes: int | None = None
        self.deadline = time.monotonic() + SLOWEST_S
        self._begin(b"")

    def read(self) -> None:
        """Take what there is, without waiting. Raises ConnectionResetError when the client is gone."""
        while not self.is_whole():
            try:
                received = self.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            if not received:
                raise ConnectionResetError
            if not self.received:
                self.deadline = time.monotonic() + SLOWEST_S
            self.received += received

    def is_whole(self) -> bool:
        """Whether head and body are here. Raises LimitRequestHeaders when the head is too long."""
        if self._whole_bytes is None:
            self._whole_bytes = self._announced_bytes()
        return self._whole_bytes is not None and len(self.received) >= self._whole_bytes

    def hand_over(self) -> None:
        """Give gunicorn's parser what came."""
        self.parser.unreader.unread(bytes(self.received))

    def expect_another(self, keepalive_s: float) -> None:
        """Begin anew with what the client sent ahead, when it has read its answer."""
        self._begin(self.parser.unreader.take_buffered())
        patience_s = SLOWEST_READER_S if self.sock.unsent else SLOWEST_S if self.received else keepalive_s
        self.deadline = time.monotonic() + patience_s

    def asks_for_leave(self) -> bool:
        """True once, for a client that wants to hear that it may send its body (RFC 9110, 10.1.1)."""
        asks = self._whole_bytes is not None and not self._has_leave and bool(ASKS_FOR_LEAVE.search(self.received))
        self._has_leave = self._has_leave or asks
        return asks

    def is_gone(self) -> bool:
        """Whether it hung up while it waited."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError as problem:
            return problem.errno != errno.EAGAIN

    def refuse(self, answer: bytes) -> None:
        """Send a last answer instead of having the request worked on."""
        self.deadline = time.monotonic() + SLOWEST_READER_S
        self.is_last = True
        self.sock.sendall(answer)

    def hang_up(self) -> None:
        """Say that nothing more comes, and wait a moment for the client to say so too: bytes unread would reset its answer."""
        self.sock.shutdown(socket.SHUT_WR)
        self.hanging_up = True
        self.deadline = time.monotonic() + LINGER_S

    def _begin(self, received: bytes) -> None:
        self.received = bytearray(received)
        self._searched_bytes = 0
        self._whole_bytes = None
        self._has_leave = False
        self.admitted = False
        self.priority = NORMAL
        self.whole_at = 0.0

    def _announced_bytes(self) -> int | None:
        end = self.received.find(END_OF_HEAD, self._searched_bytes)
        self._searched_bytes = max(0, len(self.received) - len(END_OF_HEAD) + 1)
        if end >= 0:
            return end + len(END_OF_HEAD) + _body_bytes(self.received[:end])
        if len(self.received) > MAX_HEAD_BYTES:
            raise LimitRequestHeaders("limit request headers total size")
        return None


def _body_bytes(head: bytearray) -> int:
    """How long a body the head announces; none where the app answers without reading it."""
    length = CONTENT_LENGTH.search(head)
    announced = int(length[1]) if length else 0
    return announced if announced <= MAX_BODY_BYTES else 0


class BufferedWorker(gthread.ThreadWorker):
    """The threads, and a main loop that keeps the time.

    A connection belongs to one thread, or it is in `waiting` and armed in epoll for one event. It is taken out of `waiting`
    under a lock, so that of a thread that was woken and the main loop that finds it too late exactly one gets it.
    """

    def init_process(self) -> None:
        self.epoll = select.epoll()
        self.listeners = {listener.fileno(): listener for listener in self.sockets}
        self.names = {listener.fileno(): listener.getsockname() for listener in self.sockets}
        self.deaf: set[int] = set()
        self.clients: set[Client] = set()
        self.waiting: dict[int, Client] = {}
        self.taking = threading.Lock()
        self.admission: Admission | None = None
        self.vital: queue.SimpleQueue[Client] = queue.SimpleQueue()
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.working = [False] * self.cfg.threads
        Worker.init_process(self)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End gracefully: the signal itself wakes the main loop. One that has not booted yet has nothing to end."""
        self.alive = False
        if not self.booted:
            sys.exit(0)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """End at once; gthread's own has a pool of threads to see to."""
        Worker.handle_quit(self, sig, frame)

    def run(self) -> None:
        """The main loop."""
        for fd, listener in self.listeners.items():
            listener.setblocking(False)
            self.epoll.register(fd, TO_READ)
        self.epoll.register(self.bell, select.EPOLLIN)
        self.admission = getattr(self.wsgi, "extensions", {}).get(ADMISSION)
        if self.admission is not None:
            self.room = WaitingRoom(self.admission, self.cfg.threads)
            threading.Thread(target=self._serve_vital, daemon=True).start()
        for number in range(self.cfg.threads):
            threading.Thread(target=self._serve, args=(number,), daemon=True).start()
        while self.alive and self.is_parent_alive():
            self._tick(1.0 if self.admission is None else LOOK_EVERY_S)
            self._listen_again()
        self._finish()

    def _finish(self) -> None:
        """Let requests in progress end, and give kept-alive clients a moment for the one that may be on its way."""
        self.alive = False
        for fd, listener in self.listeners.items():
            self.epoll.unregister(fd)
            listener.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        self._tick(0.1)  # a connection accepted in this instant is not among the clients yet
        while self.clients and time.monotonic() < end:
            for client in list(self.waiting.values()):
                client.deadline = min(client.deadline, time.monotonic() + LINGER_S)
            self._tick(0.1)

    def _tick(self, pause_s: float) -> None:
        """Tell the arbiter that we live, wait for a while or for a signal, and drop clients whose time is over."""
        self.notify()
        if select.select([self.PIPE[0]], [], [], pause_s)[0]:
            os.read(self.PIPE[0], READ_BYTES)
        now = time.monotonic()
        for client in [client for client in list(self.waiting.values()) if client.deadline < now]:
            if self._take(client.fd, client) is not None:
                self._drop(client)
        if self.admission is not None:
            self._relieve(now)

    def _relieve(self, now: float) -> None:
        """While all threads are busy, take in what epoll would give them, so that it is known what waits since when."""
        for client in self.room.hopeless(now):
            self._refuse(client)
        self.room.admission.note_busy(sum(self.working))
        busy = all(self.working)
        self.room.measure(self.nr, busy=busy)
        for fd, _ in self.epoll.poll(0, MOST_AT_A_LOOK) if busy else ():
            if fd in self.listeners:
                while time.monotonic() < now + LOOK_EVERY_S and (accepted := self._accepted(fd)) is not None:
                    self._attend(accepted, self._place)
                self._listen(fd)
            elif (client := self._take(fd)) is not None:
                self._attend(client, self._place)
        if self.room and not all(self.working):
            os.eventfd_write(self.bell, 1)

    def _take(self, fd: int, expected: Client | None = None) -> Client | None:
        """Take a waiting client for oneself. A number may be another client's by now, where one was `expected`."""
        with self.taking:
            if expected is not None and self.waiting.get(fd) is not expected:
                return None
            return self.waiting.pop(fd, None)

    def _listen_again(self) -> None:
        while self.deaf and len(self.clients) < self.worker_connections:
            self.epoll.modify(self.deaf.pop(), TO_READ)

    def _serve(self, number: int) -> None:
        """One of the threads: whatever the room or epoll gives it is its own until it is armed again."""
        while True:
            # In this order: what is put into the room after our look finds us free, and the bell is rung.
            self.working[number] = False
            try:
                client = None if self.admission is None else self.room.take()
                events = self.epoll.poll(maxevents=1) if client is None else ()
                self.working[number] = True
                if client is not None:
                    self._attend_waiting(client)
                for fd, _ in events:
                    self._react(fd)
            except Exception:
                self.log.exception("Error in the thread of a web process")

    def _react(self, fd: int) -> None:
        if fd in self.listeners:
            # A kept-alive connection stays with the process that accepts it: who has fewer shall be quicker.
            time.sleep(COURTESY_S * min(len(self.clients), MOST_COURTESIES))
            accepted = self._accepted(fd)
            self._listen(fd)
            if accepted is not None:
                self._attend(accepted, self._answer)
        elif fd == self.bell:
            with suppress(BlockingIOError):  # another thread was quicker
                os.eventfd_read(self.bell)
        elif (client := self._take(fd)) is not None:
            self._attend(client, self._answer)

    def _serve_vital(self) -> None:
        """The thread that is left to health when all others are busy. What else its clients ask for waits like anybody's."""
        while True:
            client = self.vital.get()
            self._attend(client, lambda client: self._answer(client) if client.admitted else self._place(client))

    def _attend_waiting(self, client: Client) -> None:
        if not client.is_gone():
            return self._attend(client, self._answer)
        if client.priority == DEFERRABLE:
            self.room.end_deferrable()
        return self._drop(client)

    def _accepted(self, fd: int) -> Client | None:
        """A new client, if there is one; `_listen` has to follow."""
        try:
            sock, address = self.listeners[fd].accept()
            client = Client(self.cfg, sock, address, self.names[fd])
        except (BlockingIOError, ConnectionError):
            return None  # another process was quicker, or the client is gone already
        except OSError as problem:
            if self.alive:
                self.log.warning("Cannot accept: %s", problem.strerror)
            self.deaf.add(fd)  # no descriptors left: the main loop tries again
            return None
        self.clients.add(client)
        return client

    def _listen(self, fd: int) -> None:
        if len(self.clients) >= self.worker_connections:
            self.deaf.add(fd)
        elif fd not in self.deaf:
            with suppress(OSError):  # told to stop, the main loop has unregistered it
                self.epoll.modify(fd, TO_READ)

    def _attend(self, client: Client, answer: Callable[[Client], bool]) -> None:
        """Read, answer what is complete, and wait for more. Never raises: the thread is needed.

        `answer` tells whether the client has its answer; else somebody else sees to it.
        """
        try:
            if client.hanging_up:
                return self._hear_out(client)
            client.sock.flush()
            if not (client.sock.unsent or client.is_last):
                client.read()
            while not (client.sock.unsent or client.is_last) and client.is_whole():
                if not answer(client):
                    return None
            if client.is_last and not client.sock.unsent:
                client.hang_up()
            elif client.asks_for_leave():
                # gunicorn says so once more when the request is parsed; clients have to bear that.
                client.sock.sendall(LEAVE)
            return self._watch(client)
        except LimitRequestHeaders as refusal:
            self.handle_error(None, client.sock, client.client, refusal)
        except OSError:
            pass  # the client is gone
        except Exception:
            self.log.exception("Error on a connection")
        return self._drop(client)

    def _answer(self, client: Client) -> bool:
        """Have the application answer, unless the request is one of those that may only be so many at once."""
        if self.admission is not None and not client.admitted:
            client.priority = self.admission.priority(client.received)
            if client.priority == DEFERRABLE:
                client.whole_at = time.monotonic()
                client.admitted = True  # who takes it out of the room has begun it
                begun = self.room.put_unless_begun(client)
                if not begun:
                    return False if begun is None else self._is_refused(client)
        deferrable = client.priority == DEFERRABLE
        try:
            client.hand_over()
            client.is_last = not self.handle(client)
        finally:
            if deferrable:
                self.room.end_deferrable()
        client.expect_another(self.cfg.keepalive if self.alive else LINGER_S)
        return True

    def _place(self, client: Client) -> bool:
        """Let a whole request wait in the room, or for the thread of health; refuse it where there is no place."""
        client.priority = self.room.admission.priority(client.received)
        client.whole_at = time.monotonic()
        client.admitted = True
        if client.priority == VITAL and self.vital.qsize() < MOST_VITAL:
            self.vital.put(client)
        elif client.priority == VITAL or not self.room.put(client):
            return self._is_refused(client)
        return False

    def _is_refused(self, client: Client) -> bool:
        client.refuse(self.room.admission.refusal(client.received, client.priority))
        return True

    def _refuse(self, client: Client) -> None:
        """Refuse a client that was taken out of the room."""
        self._attend(client, self._is_refused)

    def _hear_out(self, client: Client) -> None:
        """Throw away what still comes from a client that got its last answer, until it hangs up too or its time is over."""
        if client.sock.recv(READ_BYTES, socket.MSG_DONTWAIT):
            return self._watch(client)
        return self._drop(client)

    def _watch(self, client: Client) -> None:
        awaited = TO_WRITE if client.sock.unsent else TO_READ
        self.waiting[client.fd] = client
        if client.watched:
            self.epoll.modify(client.fd, awaited)
        else:
            client.watched = True
            self.epoll.register(client.fd, awaited)

    def _drop(self, client: Client) -> None:
        self._take(client.fd, client)
        self.clients.discard(client)
        client.close()
