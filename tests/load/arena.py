"""The place of the contest: databases of their own, filled with a city's fleet, and the servers that are measured."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import redis

from fleet import config
from fleet.embedded import MARK, Databases, databases
from fleet.embedded.server import usable_port
from tests.load.http_load import HOST

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DIRECTORY = ROOT / "var" / "bench"
WORKERS, THREADS = 2, 8
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
LOG_TAIL = 2000
SECRET_KEY = "the-secret-key-of-the-benchmark-0123456789"


class ArenaBroken(Exception):
    """Something that is to be measured does not run; the message shows the end of its log."""


@dataclass
class Arena:
    """Running databases with the data of the contest in them, and what was started beside them."""

    directory: Path
    running: Databases
    _stack: ExitStack
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a process of the service gets: every layer on, the limits for everybody together out of the way."""
        ours = {name: value for name, value in os.environ.items() if name not in config.names()}
        return ours | {
            MARK: str(self.directory),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "FLEET_ENV": "test",
            "SECRET_KEY": SECRET_KEY,
            "DATABASE_URL": self.running.runtime_url,
            "DATABASE_MIGRATION_URL": self.running.database_url,
            "REDIS_URL": self.running.redis_url,
            "RATELIMIT_GLOBAL": "10000000 per minute",
            "FLEET_MAIL_DIR": str(self.directory / "mail"),
            "HOST": HOST,
            "WEB_CONCURRENCY": str(WORKERS),
            "WEB_THREADS": str(THREADS),
        }

    def gunicorn(self, name: str, application: str, *options: str) -> int:
        """Start an application as a deploy does, but for the options; returns its port when it answers."""
        port = usable_port(None)
        self.start(name, python("gunicorn", "--config", "deploy/gunicorn.conf.py", *options, application), PORT=str(port))
        self._await(name, port)
        return port

    def uvicorn(self, name: str, application: str) -> int:
        """Start an ASGI application at its quickest; returns its port when it answers."""
        port = usable_port(None)
        quick = ["--workers", str(WORKERS), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        self.start(name, python("uvicorn", application, *quick, "--log-level", "warning", "--port", str(port)))
        self._await(name, port)
        return port

    def start(self, name: str, command: list[str], **environment: str) -> None:
        """Start a process; what it prints goes to a file. It ends with the arena, if not before."""
        metrics = self.directory / f"metrics-{name}"
        metrics.mkdir(exist_ok=True)
        with self.log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                env=self.environment | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)} | environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end what we started
            )
        self._processes[name] = process
        self._stack.callback(end, process)

    def run(self, name: str, command: list[str]) -> str:
        """Run a command to its end; returns what it printed. Raises ArenaBroken."""
        self.start(name, command)
        if self._processes[name].wait():
            raise ArenaBroken(f"{name} failed: {self.tail(name)}")
        return self.log(name).read_text(errors="replace")

    def stop(self, name: str) -> None:
        """End a process before its time."""
        end(self._processes.pop(name))

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def worked(self, name: str) -> float:
        """Seconds of processor time that a process and its children have used."""
        process = psutil.Process(self.pid(name))
        used = [member.cpu_times() for member in (process, *process.children())]
        return sum(times.user + times.system for times in used)

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def tail(self, name: str) -> str:
        """The end of what a process printed."""
        return self.log(name).read_text(errors="replace")[-LOG_TAIL:]

    def sql(self, statement: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run SQL as the owner of the database, apart from what is measured."""
        connection = psycopg2.connect(self.running.database_url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _await(self, name: str, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._processes[name].poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
            time.sleep(0.05)
        raise ArenaBroken(f"{name} does not answer: {self.tail(name)}")


@contextmanager
def arena() -> Iterator[Arena]:
    """Start durable databases, make them new, fill them; stop everything at the end, whatever happened.

    What a killed run left is ended first. Raises InUse while another run goes on: two at once would measure each other.
    """
    with databases(DIRECTORY, durable=True) as running, filled(running) as made:
        yield made


@contextmanager
def filled(running: Databases) -> Iterator[Arena]:
    """The arena on databases that run already; all that they hold is replaced."""
    with ExitStack() as stack:
        made = Arena(running.postgres.directory.parent, running, stack)
        _make_new(made)
        yield made


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module with this very Python."""
    return [sys.executable, "-m", module, *arguments]


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads its own group, with the group; returns when it is gone."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError, PermissionError):  # macOS says the second for a group of the dead
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _make_new(made: Arena) -> None:
    made.sql("DROP SCHEMA IF EXISTS bench CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    with redis.Redis.from_url(made.running.redis_url) as client:
        client.flushall()
    made.run("migrate", python("flask", "--app", "wsgi", "db", "upgrade"))
    made.sql((HERE / "fill.sql").read_text())
    made.sql((HERE / "limit.sql").read_text())
    connection = psycopg2.connect(made.running.superuser_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
        cursor.execute("CHECKPOINT")
    connection.close()
