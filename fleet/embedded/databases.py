"""Both databases under one directory, for as long as a block runs."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fleet.embedded.ownership import LOCK_FILE, InUse, claimed, queued
from fleet.embedded.postgres import Postgres
from fleet.embedded.valkey import Valkey

SCRATCH = Path(__file__).parents[2] / "var" / "test"


@dataclass(frozen=True)
class Databases:
    """A running PostgreSQL and Redis. Stop and start them one by one to see what their loss does."""

    postgres: Postgres
    redis: Valkey

    @property
    def database_url(self) -> str:
        """Connects as the owner of the database `fleet`, who is no superuser."""
        return self.postgres.url

    @property
    def runtime_url(self) -> str:
        """Connects as the role that the service runs as: it owns nothing, and may do what `fleet.grants` says."""
        return self.postgres.runtime_url

    @property
    def report_url(self) -> str:
        """Connects as the role that reads, without secrets."""
        return self.postgres.report_url

    @property
    def superuser_url(self) -> str:
        """Connects to the same database as the superuser."""
        return self.postgres.superuser_url

    @property
    def redis_url(self) -> str:
        """Connects to Redis, as cache and as broker."""
        return self.redis.url


@contextmanager
def databases(
    directory: Path, *, durable: bool, postgres_port: int | None = None, redis_port: int | None = None
) -> Iterator[Databases]:
    """Run both databases in `directory`, which keeps their data, and stop them at the end, whatever happened.

    `durable` is whether a commit survives a power cut; without it everything is quicker. A port that is not given, or
    is taken, becomes a free one. Raises InUse when the directory has an owner, StartFailed when a server does not.
    """
    directory = directory.resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with claimed(directory), _started(directory, durable, postgres_port, redis_port) as running:
        yield running


@contextmanager
def scratch_databases(root: Path = SCRATCH) -> Iterator[Databases]:
    """Run both databases, empty and quick, in a new directory under `root` that is gone afterwards.

    Any number of these may run at once. What killed ones left under `root` is ended and removed first.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # A directory that is not claimed yet looks abandoned: so making and claiming it excludes sweeping.
        with queued(root / LOCK_FILE):
            _sweep(root)
            directory = Path(tempfile.mkdtemp(dir=root))
            stack.enter_context(claimed(directory))
        stack.callback(_remove, directory)
        yield stack.enter_context(_started(directory, durable=False))


@contextmanager
def _started(
    directory: Path, durable: bool, postgres_port: int | None = None, redis_port: int | None = None
) -> Iterator[Databases]:
    postgres = Postgres(directory / "postgres", owner=directory, port=postgres_port, durable=durable)
    redis = Valkey(directory / "valkey", owner=directory, port=redis_port, durable=durable)
    try:
        postgres.start()
        redis.start()
        yield Databases(postgres, redis)
    finally:
        redis.stop()
        postgres.stop()


def _remove(directory: Path) -> None:
    # The claim goes with the lock file, first of all, and what is left would look abandoned to a sweep.
    with queued(directory.parent / LOCK_FILE):
        shutil.rmtree(directory)


def _sweep(root: Path) -> None:
    for directory in filter(Path.is_dir, root.iterdir()):
        with suppress(InUse), claimed(directory):
            shutil.rmtree(directory)
