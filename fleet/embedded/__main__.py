"""`make run`: databases, migrations, demo data and every process of the Procfile, under one Ctrl-C."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from threading import Event

from fleet.config import DEMO_PASSWORD
from fleet.embedded.crew import Crashed, Crew
from fleet.embedded.databases import Databases, databases
from fleet.embedded.ownership import MARK, InUse
from fleet.embedded.server import HOST, StartFailed, kept, usable_port

DIRECTORY = Path("var")
WEB_PORT, POSTGRES_PORT, REDIS_PORT = 8000, 15432, 16379
NOT_HERE = {"release", "flower"}  # we migrate before the others start; Flower is for those who want it
PREPARATIONS = {"Migrating": ["db", "upgrade"], "Looking for demo data": ["seed-demo", "--if-empty"]}
ADMIN_EMAIL = "admin@example.com"
READY_TIMEOUT_S = 60


def main() -> int:
    """Run everything until a signal says stop. Returns the exit code."""
    stopping = Event()
    # A handler that only raises a flag: an exception out of the blue could skip the end of a process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    directory = DIRECTORY.resolve()
    say(f"Starting PostgreSQL and Redis under {DIRECTORY}/")
    try:
        with databases(directory, durable=True, postgres_port=POSTGRES_PORT, redis_port=REDIS_PORT) as running:
            run(environment(directory, running), stopping)
    except (InUse, StartFailed, Crashed) as problem:
        say(f"Stopped: {problem}")
        return 1
    say("Stopped.")
    return 0


def environment(directory: Path, running: Databases) -> dict[str, str]:
    """What the processes get: our own environment, with the databases and the secrets of `directory` over it."""
    elsewhere = {"BROKER_URL", "DATABASE_REPLICA_URL"}
    metrics = directory / "metrics"
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir()
    port = web_port()
    password = os.environ.get("FLEET_ADMIN_PASSWORD") or DEMO_PASSWORD
    return {name: value for name, value in os.environ.items() if name not in elsewhere} | {
        MARK: str(directory),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "FLEET_ENV": "development",
        # Whoever tries the demo signs in as everybody, one after the other.
        "RATELIMIT_AUTH_STRICT": os.environ.get("RATELIMIT_AUTH_STRICT") or "60 per minute",
        "SECRET_KEY": kept(directory / "secret_key", secrets.token_urlsafe(48)),
        "DATABASE_URL": running.runtime_url,
        "DATABASE_MIGRATION_URL": running.database_url,
        "REDIS_URL": running.redis_url,
        # The admin keeps the password of the first start, so that we do not print another one later.
        "FLEET_ADMIN_PASSWORD": kept(directory / "admin_password", password),
        "FLEET_MAIL_DIR": str(directory / "mail"),
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "BEAT_SCHEDULE": str(directory / "celerybeat-schedule"),
        "PORT": port,
        "PUBLIC_URL": f"http://{HOST}:{port}",
    }


def run(chosen: dict[str, str], stopping: Event) -> None:
    """Prepare the database, then run the Procfile's processes until `stopping`. Raises Crashed."""
    for what, command in PREPARATIONS.items():
        say(what)
        if not prepare(command, chosen, stopping):
            return
    crew = Crew(chosen, stopping)
    try:
        crew.start(procfile())
        await_ready(crew, chosen["PORT"], stopping)
        if not stopping.is_set():
            say(welcome(chosen))
        crew.watch()
    finally:
        say("Stopping: web and workers first, then Redis and PostgreSQL.")
        crew.stop()


def prepare(command: list[str], chosen: dict[str, str], stopping: Event) -> bool:
    """Run a command of the app; False when `stopping` cut it short. Raises Crashed when it fails."""
    process = subprocess.Popen([sys.executable, "-m", "flask", "--app", "wsgi", *command], env=chosen)
    while process.poll() is None:
        if stopping.wait(0.05):
            process.terminate()
            process.wait()
            return False
    if process.returncode and not stopping.is_set():
        raise Crashed(f"flask {' '.join(command)} failed with code {process.returncode}")
    return process.returncode == 0


def procfile() -> dict[str, str]:
    """The process types that run here, with their commands."""
    lines = re.findall(r"^([\w-]+):\s*(.+)$", Path("Procfile").read_text(), re.MULTILINE)
    return {name: command for name, command in lines if name not in NOT_HERE}


def await_ready(crew: Crew, port: str, stopping: Event) -> None:
    """Return when the web process answers that it is ready. Raises Crashed when it does not in READY_TIMEOUT_S."""
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not stopping.wait(0.1):
        crew.check()
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError) as problem:
            if time.monotonic() > deadline:
                raise Crashed(f"web is not ready after {READY_TIMEOUT_S} s: {problem}") from problem


def welcome(chosen: dict[str, str]) -> str:
    """What a newcomer needs to know."""
    address = f"http://{HOST}:{chosen['PORT']}"
    return f"""
  The fleet is running.

    API            {address}/v1
    Documentation  {address}/docs
    Admin          {ADMIN_EMAIL}  {chosen["FLEET_ADMIN_PASSWORD"]}
    Mails and SMS  {DIRECTORY}/mail/index.html
    PostgreSQL     {chosen["DATABASE_URL"]}
    Redis          {chosen["REDIS_URL"]}

  Ctrl-C stops all of it. The data stays in {DIRECTORY}/ for the next start; delete that to begin anew.
"""


def web_port() -> str:
    """PORT where that is set, else the usual port or a free one. Raises StartFailed when PORT is taken."""
    wanted = os.environ.get("PORT")
    port = str(usable_port(int(wanted or WEB_PORT)))
    if wanted and port != wanted:
        raise StartFailed(f"port {wanted}, which PORT asks for, is taken")
    return port


def say(text: str) -> None:
    """Tell the terminal, if it is still there: losing it must not keep us from ending what we started."""
    with suppress(OSError):
        print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
