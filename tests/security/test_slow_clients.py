"""Slow clients wait for themselves: a thread is given only to a request that is here as a whole, and waits for no reader."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from fleet.embedded.server import usable_port

ROOT = Path(__file__).parents[2]
SLOW_CLIENTS = 200


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An application that answers with the body that it was sent."""
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """gunicorn as it is deployed, in front of `echo`, with one process of two threads."""
    port = usable_port(None)
    settings = {"PORT": str(port), "FLEET_ENV": "test", "WEB_CONCURRENCY": "1", "WEB_THREADS": "2"}
    command = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", f"{__name__}:echo"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 30
        while usable_port(port) == port and time.monotonic() < deadline:
            time.sleep(0.05)
        yield port
        server.terminate()


def answer_to(connection: http.client.HTTPConnection, body: bytes = b"") -> bytes:
    connection.request("POST", "/", body)
    return connection.getresponse().read()


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"POST / HTTP/1.1\r\nHost: ",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nfirst",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "a body that waits for leave"],
)
def test_two_hundred_clients_that_stop_in_the_middle_keep_nobody_waiting(port: int, beginning: bytes) -> None:
    with ExitStack() as slow_clients:
        for number in range(SLOW_CLIENTS):
            client = slow_clients.enter_context(socket.create_connection(("127.0.0.1", port)))
            # A length may have zeros before it, as many as one likes (RFC 9110, 8.6).
            client.sendall(beginning.replace(b": 100", b": " + b"0" * (number * number // 10) + b"100"))
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=4)) as quick:
            assert answer_to(quick, b"hello") == b"hello"


def test_a_request_that_comes_in_pieces_is_answered(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        for piece in (b"POST / HT", b"TP/1.1\r\nHost: a\r\nContent-Le", b"ngth: 6\r\n\r", b"\nab", b"cd", b"ef"):
            client.sendall(piece)
            time.sleep(0.05)
        assert client.recv(4096).endswith(b"\r\n\r\nabcdef")


def test_requests_sent_without_waiting_are_answered_in_order(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n%s\r\n%s"
        client.sendall(request % (b"", b"one") + request % (b"", b"two") + request % (b"Connection: close\r\n", b"end"))
        received = b"".join(iter(lambda: client.recv(4096), b""))
    assert re.findall(b"one|two|end", received) == [b"one", b"two", b"end"]


def test_a_connection_is_used_again(port: int) -> None:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as client:
        assert answer_to(client, b"first") == b"first"
        opened = client.sock
        assert answer_to(client, b"x" * 1024 * 1024) == b"x" * 1024 * 1024
        assert client.sock is opened


def test_a_client_that_asks_for_leave_gets_it_before_its_body_is_here(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(b"body")
        received = b""
        while not received.endswith(b"body"):
            received += client.recv(4096)


@pytest.mark.parametrize("sent", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000])
def test_nonsense_and_endless_heads_are_refused_at_once(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(sent)
        assert client.recv(4096).startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


@pytest.mark.slow
def test_a_client_that_never_ends_its_request_is_let_go(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=15) as client:
        client.sendall(b"GET / HTTP/1.1\r\n")
        assert client.recv(4096) == b""


def test_clients_that_do_not_read_their_answers_keep_nobody_waiting(port: int) -> None:
    body = b"x" * 1_000_000
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with ExitStack() as deaf_clients:
        for _ in range(8):
            deaf = deaf_clients.enter_context(closing(socket.socket()))
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            deaf.settimeout(1)
            deaf.connect(("127.0.0.1", port))
            # The server may leave the second one unread: it answers nobody who has not read the answer before.
            with suppress(TimeoutError):
                deaf.sendall(request * 2)
        started = time.monotonic()
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as client:
            assert answer_to(client, b"hello") == b"hello"
        assert time.monotonic() - started < 2


def test_a_slow_reader_gets_all_of_its_answer(port: int) -> None:
    body = bytes(range(256)) * 4000
    with closing(socket.socket()) as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(20)
        slow.connect(("127.0.0.1", port))
        slow.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.5)
        received = b""
        while chunk := slow.recv(65536):
            received += chunk
    assert received.partition(b"\r\n\r\n")[2] == body
