"""The real processes of the asynchronous side as children of a test."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import psycopg2

from fleet.embedded import Databases

ROOT = Path(__file__).parents[2]
CELERY = [sys.executable, "-m", "celery", "--app", "tasks"]
WORKER = [
    *CELERY, "--quiet", "worker", "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat",
]  # fmt: skip
RELAY = [sys.executable, "-m", "tasks.relay"]
FLOWER = [sys.executable, "-m", "tasks.flower"]
BEAT = [*CELERY, "--quiet", "beat", "--schedule"]
TIMEOUT_S = 30
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"


@contextmanager
def running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen]:
    """The process with its children, its output in `log`; killed at the end, should it still be there."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def await_(done: Callable[[], object], timeout_s: float = TIMEOUT_S) -> float:
    """Return how long it took, in seconds."""
    started = time.monotonic()
    while not done():
        assert time.monotonic() < started + timeout_s, f"it did not happen within {timeout_s} s"
        time.sleep(0.05)
    return time.monotonic() - started


def lines(log: Path) -> list[dict]:
    """The lines of a log. Each must be a JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


def said(log: Path, message: str) -> list[dict]:
    """The lines with this message; empty as well while the process is writing one."""
    return [json.loads(line) for line in log.read_text().splitlines() if f'"message":"{message}"' in line]


def kill_children_of(pid: int) -> list[int]:
    """Kill the pool's children, as the system does when memory runs out; returns them."""
    children = [child.pid for child in psutil.Process(pid).children()]
    for child in children:
        os.kill(child, signal.SIGKILL)
    return children


@contextmanager
def closed_books(databases: Databases) -> Iterator[None]:
    """Somebody has the fiscal periods locked: whoever posts waits."""
    connection = psycopg2.connect(databases.database_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM fiscal_period FOR UPDATE")
    yield
    connection.close()


def waiting_for_locks(databases: Databases, saying: str = "") -> int:
    """How many sessions wait for a lock, with `saying` in their statement.

    The superuser looks: the owner, as whom the tests are connected, is not shown what sessions of the service's role do.
    """
    with closing(psycopg2.connect(databases.superuser_url)) as connection, connection.cursor() as cursor:
        cursor.execute(WAITING, (f"%{saying}%",))
        [(count,)] = cursor.fetchall()
    return int(count)


@contextmanager
def deaf_mail_server() -> Iterator[str]:
    """The address of a mail server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"smtp://127.0.0.1:{server.getsockname()[1]}"
