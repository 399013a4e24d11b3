"""Where the drills take place: databases of their own and every process of the Procfile, to be killed and frozen at will."""

import os
import random
import re
import shutil
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
from fleet.config import Settings
from fleet.embedded import MARK, Databases, scratch_databases
from fleet.embedded.server import HOST, usable_port
from fleet.services.outbox import QUEUES
from tests.faults.history import History
from tests.faults.mailbox import Mailbox, mailbox
from tests.faults.outsiders import Hooks, hooks
from tests.stripe_server import SECRET, Stripe, stripe_server

ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "var" / "faults"
LOGS = ROOT / "var" / "faults-logs"
SCENE = Path(__file__).parent / "scene.sql"
CREW = ("web", "relay-1", "relay-2", "worker", "beat")
START_TIMEOUT_S, STOP_TIMEOUT_S = 60, 40
LOG_TAIL = 2000


_UNFINISHED = """
SELECT (SELECT count(*) FROM outbox WHERE confirmed_at IS NULL AND dead_at IS NULL)
    + (SELECT count(*) FROM event WHERE position IS NULL)
    + (SELECT count(*) FROM webhook_delivery d JOIN webhook_endpoint e ON e.id = d.endpoint_id
        WHERE e.enabled AND d.status IN ('queued','retrying'))
    + (SELECT count(*) FROM payment WHERE status = 'pending')
    + (SELECT count(*) FROM refund WHERE status NOT IN ('settled','failed'))
"""


class StageBroken(Exception):
    """Something that a drill needs does not run; the message shows the end of its log."""


@dataclass
class Stage:
    """Running databases, the processes on them, and the history of all that their clients saw."""

    running: Databases
    post: Mailbox
    hooks: Hooks
    cards: Stripe
    cards_url: str
    history: History = field(default_factory=History)
    web_port: int = field(default_factory=lambda: usable_port(None))
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    boot_s: float = 0

    @property
    def directory(self) -> Path:
        return self.running.postgres.directory.parent

    @property
    def environment(self) -> dict[str, str]:
        """What a process gets: timeouts as in production, limits for callers out of the way."""
        ours = {name: value for name, value in os.environ.items() if name not in config.names()}
        return ours | {
            MARK: str(self.directory),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "FLEET_ENV": "test",
            "SECRET_KEY": "the-secret-key-of-the-drills-0123456789",
            "DATABASE_URL": self.running.runtime_url,
            "DATABASE_MIGRATION_URL": self.running.database_url,
            "REDIS_URL": self.running.redis_url,
            "RATELIMIT_GLOBAL": "10000000 per minute",
            "RATELIMIT_AUTHENTICATED": "1000000 per minute",
            "RATELIMIT_PUBLIC": "1000000 per minute",
            "SMTP_URL": self.post.url,
            "STRIPE_API_KEY": "sk_test_of_the_drills",
            "STRIPE_API_BASE": self.cards_url,
            "STRIPE_WEBHOOK_SECRET": SECRET,
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "HOST": HOST,
            "PORT": str(self.web_port),
            "WEB_CONCURRENCY": "2",
            "LOG_LEVEL": "INFO",
        }

    @property
    def settings(self) -> Settings:
        return Settings.load(self.environment)

    # --- processes ----------------------------------------------------------------------------------------------------

    def assemble(self) -> None:
        """Start what does not run, and return when the web answers that it is ready. Raises StageBroken."""
        for name in CREW:
            if name not in self.processes:
                self.start(name)
        self.revive()
        self.await_ready()

    def start(self, name: str) -> None:
        """Start a process of the Procfile; what it prints goes to a file. `name` may carry a number: relay-2."""
        command = _procfile()[name.partition("-")[0]]
        own = {
            "PROMETHEUS_MULTIPROC_DIR": str(self.directory / f"metrics-{name}"),
            "BEAT_SCHEDULE": str(self.directory / f"{name}-schedule"),
        }
        (self.directory / f"metrics-{name}").mkdir(exist_ok=True)
        with self.log(name).open("ab") as log:
            self.processes[name] = subprocess.Popen(
                ["/bin/sh", "-c", f"exec env {command}"],
                env=self.environment | own,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we end what we started
            )

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process and all its children."""
        with suppress(ProcessLookupError, PermissionError):  # macOS says the second for a group of the dead
            os.killpg(self.processes[name].pid, number)

    def kill(self, name: str) -> None:
        """End a process and its children without a warning."""
        self.signal(name, signal.SIGKILL)
        self.processes[name].wait()

    def stop(self, name: str) -> float:
        """Ask a process to end its work; returns how long that took, in seconds. Kills what does not."""
        started = time.monotonic()
        process = self.processes[name]
        self.signal(name, signal.SIGCONT)  # a frozen process hears nothing until it is woken
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_S)
        self.kill(name)
        return time.monotonic() - started

    def restart(self, *names: str) -> None:
        """Kill these and start them again, as a platform would."""
        for name in names:
            self.kill(name)
        for name in names:
            self.start(name)

    def revive(self) -> None:
        """Start again what has ended."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start(name)

    def process(self, name: str) -> list[psutil.Process]:
        """The process itself; nothing when it has ended."""
        running = self.processes[name].poll() is None
        return [psutil.Process(self.processes[name].pid)] if running else []

    def children(self, name: str) -> list[psutil.Process]:
        """The children of a process: gunicorn's or Celery's own workers."""
        with suppress(psutil.NoSuchProcess):
            return [child for child in psutil.Process(self.processes[name].pid).children() if child.is_running()]
        return []

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the app to its end."""
        command = [sys.executable, "-m", "flask", "--app", "wsgi", *arguments]
        return subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True)

    # --- databases ----------------------------------------------------------------------------------------------------

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """A connection of the superuser, in autocommit mode: nobody else sees where the service's connections wait."""
        connection = psycopg2.connect(self.running.superuser_url)
        connection.autocommit = True
        try:
            yield connection
        finally:
            connection.close()

    def sql(self, statement: str, values: Any = None) -> list[tuple[Any, ...]]:
        """Run SQL apart from what is drilled."""
        with self.connection() as connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.running.redis_url, socket_timeout=5)

    def depth(self) -> int:
        """How many messages wait in all queues together."""
        with self.redis() as client:
            return sum(int(client.llen(f"fleet:{queue}")) for queue in QUEUES)

    def prove(self) -> str:
        """What the service itself finds wrong with its books; empty when nothing is."""
        done = self.run("ledger", "prove")
        return "" if done.returncode == 0 else f"{done.stdout}{done.stderr[-LOG_TAIL:]}"

    def unfinished(self) -> int:
        """How many promises, events, deliveries to open endpoints, payments and refunds have not come to their end."""
        return int(self.sql(_UNFINISHED)[0][0])

    def waiting(self, queue: str) -> int:
        """How many promises of a queue have not ended."""
        waiting = "SELECT count(*) FROM outbox WHERE queue = %s AND confirmed_at IS NULL AND dead_at IS NULL"
        return int(self.sql(waiting, (queue,))[0][0])

    def position(self) -> int:
        """Where the event stream ends."""
        return int(self.sql("SELECT coalesce(max(position), 0) FROM event")[0][0])

    def deliveries(self, promise: str) -> int:
        """How often a promise was delivered."""
        return int(self.sql("SELECT deliveries FROM outbox WHERE id = %s", (promise,))[0][0])

    def switch_hooks_off(self) -> None:
        """Let no more events be sent: each drill has an endpoint of its own."""
        for heard in self.hooks.heard.values():
            if heard.until is None:
                heard.until = self.position()
        self.sql(
            """UPDATE webhook_endpoint SET enabled = false, disabled_reason = 'by_hand', disabled_at = now() WHERE enabled"""
        )

    def await_ready(self) -> None:
        """Return when the web answers that it is ready. Raises StageBroken."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self.processes["web"].poll() is None:
            with suppress(OSError), urllib.request.urlopen(f"http://{HOST}:{self.web_port}/health/ready", timeout=2):
                return
            time.sleep(0.1)
        raise StageBroken(f"web is not ready: {self.log('web').read_text(errors='replace')[-LOG_TAIL:]}")


@contextmanager
def stage(seed: int) -> Iterator[Stage]:
    """New databases with the scene in them; every process ends with the block, whatever happened."""
    with ExitStack() as stack:
        running = stack.enter_context(scratch_databases(DIRECTORY))
        post = stack.enter_context(mailbox(random.Random(f"{seed}/mail")))
        receivers = stack.enter_context(hooks(random.Random(f"{seed}/hooks")))
        made = Stage(running, post, receivers, *stack.enter_context(stripe_server()))
        stack.callback(_end_all, made)
        migrated = made.run("db", "upgrade")
        if migrated.returncode:
            raise StageBroken(migrated.stderr[-LOG_TAIL:])
        made.sql(SCENE.read_text())
        started = time.monotonic()
        made.assemble()
        made.boot_s = time.monotonic() - started
        yield made


def _end_all(made: Stage) -> None:
    for name in made.processes:
        made.signal(name, signal.SIGCONT)
        made.processes[name].terminate()
    for name in made.processes:
        made.stop(name)
    LOGS.mkdir(parents=True, exist_ok=True)
    for log in made.directory.glob("*.log"):
        shutil.copy(log, LOGS / log.name)


def _procfile() -> dict[str, str]:
    """The commands of the Procfile, with the drills' consumer added to worker and relay."""
    commands = dict(re.findall(r"^([\w-]+):\s*(.+)$", (ROOT / "Procfile").read_text(), re.MULTILINE))
    commands["worker"] = commands["worker"].replace("--app tasks", "--app tests.faults.consumers")
    commands["relay"] = commands["relay"].replace("tasks.relay", "tests.faults.consumers")
    return commands
