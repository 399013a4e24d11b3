"""gunicorn as it is deployed: the processes share their clients, and none of them drops a request when it is told to stop."""

import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from fleet.embedded.server import usable_port

ROOT = Path(__file__).parents[1]
SLOW_S = 0.5


def whoami(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answers with the id of its process; /slow takes its time."""
    if environ["PATH_INFO"] == "/slow":
        time.sleep(SLOW_S)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = usable_port(None)
    settings = {"PORT": str(port), "FLEET_ENV": "test", "WEB_CONCURRENCY": "2", "WEB_THREADS": "4"}
    command = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", f"{__name__}:whoami"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        seen: set[bytes] = set()
        while len(seen) < 2 and time.monotonic() < deadline:
            try:
                seen.add(ask_once(port))
            except OSError:
                time.sleep(0.05)
        yield process, port
        process.terminate()


def ask(connection: http.client.HTTPConnection, path: str = "/") -> bytes:
    connection.request("GET", path)
    return connection.getresponse().read()


def ask_once(port: int, path: str = "/") -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        return ask(connection, path)


def test_kept_alive_clients_are_shared_between_the_processes(server: tuple[subprocess.Popen[bytes], int]) -> None:
    _, port = server
    with ExitStack() as kept:
        clients = [kept.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port))) for _ in range(24)]
        share = Counter(ask(client) for client in clients)
    assert len(share) == 2
    assert min(share.values()) >= 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_in_progress_is_answered_by_a_process_that_was_told_to_go(
    server: tuple[subprocess.Popen[bytes], int], number: signal.Signals
) -> None:
    process, port = server
    answers: list[bytes] = []
    asking = [threading.Thread(target=lambda: answers.append(ask_once(port, "/slow"))) for _ in range(6)]
    for thread in asking:
        thread.start()
    time.sleep(SLOW_S / 2)
    process.send_signal(number)
    for thread in asking:
        thread.join(10)
    assert len(answers) == 6
    if number == signal.SIGTERM:
        assert process.wait(10) == 0


def test_an_idle_client_does_not_keep_a_process_from_stopping(server: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = server
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as idle:
        ask(idle)
        process.terminate()
        assert process.wait(10) == 0


def test_what_a_client_sends_ahead_is_answered_in_order(server: tuple[subprocess.Popen[bytes], int]) -> None:
    _, port = server
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.connect()
        request, last = b"GET / HTTP/1.1\r\nHost: a\r\n", b"Connection: close\r\n"
        client.sock.sendall((request + b"\r\n") * 2 + request + last + b"\r\n")
        received = b""
        while chunk := client.sock.recv(65536):
            received += chunk
    assert received.count(b"HTTP/1.1 200 OK") == 3
