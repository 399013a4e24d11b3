"""Receivers of webhooks on this machine: one that answers as told, and some that misbehave on the wire."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from fleet.embedded.server import HOST


@dataclass
class Received:
    """One request as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        told: dict[str, Any] = orjson.loads(self.body)
        return told


@dataclass
class Receiver:
    """What arrived. `answers` are given one after the other, the last one for ever: (status, headers)."""

    url: str = ""
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=lambda: [(204, {})])
    received: list[Received] = field(default_factory=list)
    before_answer: Callable[[], Any] = lambda: None

    def take(self, request: Received) -> tuple[int, dict[str, str]]:
        self.received.append(request)
        self.before_answer()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [request.event for request in self.received]


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port."""
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, headers = told.take(Received(self.path, dict(self.headers), body))
            with suppress(OSError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b"an answer that nobody reads" * 1000)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    told.url = f"http://{HOST}:{server.server_port}/hooks?token=s3cret"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def on_the_wire(talk: Callable[[socket.socket], Any]) -> Iterator[str]:
    """The URL of a server that does with each connection what `talk` does."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                talk(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://{HOST}:{listener.getsockname()[1]}/"
        listener.shutdown(socket.SHUT_RDWR)


def dripping(connection: socket.socket) -> None:
    """A byte now and then, each well in time."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    for _ in range(400):
        connection.sendall(b"a")
        time.sleep(0.02)


def silent(connection: socket.socket) -> None:
    connection.recv(65536)
    time.sleep(3)


def endless(connection: socket.socket) -> None:
    """Headers without end, as fast as they go."""
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        connection.sendall(f"X-{number % 90}: {'a' * 1000}\r\n".encode())


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(answer)

    return talk
