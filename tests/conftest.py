"""Real PostgreSQL and Redis for every test process, one application on them, and the cast."""

import dataclasses
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from flask import Flask
from psycopg2 import extensions

from app import create_app
from fleet import breakers, config
from fleet.cli import migrate
from fleet.config import Settings
from fleet.db import db
from fleet.embedded import Databases, scratch_databases
from fleet.rules.postings import CHART
from tests.cast import Cast

CHART_CODES = [account.code for account in CHART]
FEW, TRUNCATE_EVERY = 200, 100
_times_emptied = itertools.count(1)
SLOW_ONE_COUNTS_FOR = 100
KEPT_TABLES = ("schema_migration", "lifecycle_transition", "tax_code", "ledger_account", "fiscal_period")

# Where this is set, every process that a test starts would compile the whole service anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first: the last one to begin would go on alone, and every other process with nothing to do."""
    weights: Counter[Path] = Counter()
    for item in items:
        weights[item.path] += SLOW_ONE_COUNTS_FOR if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture(autouse=True)
def fresh_breakers() -> None:
    """What one test let fail opens no breaker in the next one."""
    registry = breakers._registry
    registry.controls.clear()
    registry.hosts.clear()
    registry.hosts_figure._open.clear()
    for name, breaker in list(registry.named.items()):
        if name != breakers.POSTGRESQL:  # the database has it for as long as it is configured
            del registry.named[name]
        elif breaker.state != "closed":
            breaker.force(breakers.FORCED_CLOSED)
            breaker.force(breakers.AUTO)


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """A PostgreSQL and a Redis of this test process alone."""
    with scratch_databases() as running:
        yield running


@pytest.fixture(scope="session")
def environment(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a process of the service needs in its environment to join the test."""
    return {
        "FLEET_ENV": "test",
        "SECRET_KEY": "a-secret-key-of-the-tests-0123456789",
        "DATABASE_URL": databases.runtime_url,
        "DATABASE_MIGRATION_URL": databases.database_url,
        "REDIS_URL": databases.redis_url,
        "RATELIMIT_AUTH_STRICT": "1000 per second",
        "RATELIMIT_PUBLIC": "100000 per second",
        "RATELIMIT_AUTHENTICATED": "100000 per second",
        "RATELIMIT_GLOBAL": "1000000 per second",
        "DATABASE_CONNECT_TIMEOUT_MS": "5000",
        "DATABASE_STATEMENT_TIMEOUT_MS": "10000",
        "DATABASE_LOCK_TIMEOUT_MS": "8000",
        "WEB_QUEUE_WAIT_MS": "60000",
        "FLEET_MAIL_DIR": str(tmp_path_factory.mktemp("mail")),
        "LOG_LEVEL": "WARNING",
    }


@pytest.fixture(scope="session")
def settings(environment: dict[str, str], databases: Databases) -> Settings:
    """Of the tests' own process, which is the owner of the tables: it breaks by hand what the service cannot."""
    return Settings.load({**environment, "DATABASE_URL": databases.database_url})


@pytest.fixture(scope="session")
def app(settings: Settings, environment: dict[str, str]) -> Iterator[Flask]:
    """The application, migrated and ready."""
    os.environ.update(environment)
    app = create_app(settings)
    with app.app_context():
        migrate()
    db.close()
    db.configure(settings)
    yield app
    if not db.is_closed():
        db.close()


@pytest.fixture(scope="session")
def tables(app: Flask) -> list[str]:
    rows = db.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return [name for (name,) in rows if name not in KEPT_TABLES]


class Sweeper:
    """Empties the tables: a rollback per test would never fire a deferred constraint.

    The few rows of most tests are deleted, because to truncate forty tables takes longer than most tests; what is many is
    truncated, and so is everything now and then, because deleted rows stay in the files for a while.

    It keeps its connection, and what it prepared there: a new one has to learn of all tables first, which was a fifth of
    what the tests cost.
    """

    def __init__(self, superuser_url: str, tables: list[str]) -> None:
        counts = [f"SELECT '{name}', (SELECT count(*) FROM (SELECT FROM {name} LIMIT {FEW}) few)" for name in tables]
        self._count = " UNION ALL ".join(counts)
        self._tables = tables
        self._url = superuser_url
        self._connection: extensions.connection | None = None

    def empty(self) -> None:
        """Empty all tables but those that migrations fill, which are as they were then."""
        try:
            self._empty()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.close()  # a test has stopped the server, or ended all its connections
            self._empty()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _empty(self) -> None:
        with self._connected() as connection, connection.cursor() as cursor:
            cursor.execute("EXECUTE rows_of_tables")
            rows = {name: count for name, count in cursor.fetchall() if count}
            if next(_times_emptied) % TRUNCATE_EVERY == 0 or FEW in rows.values():
                cursor.execute("TRUNCATE " + ", ".join(self._tables))
            elif rows:
                cursor.execute(";".join(f"DELETE FROM {name}" for name in rows))
            cursor.execute("DELETE FROM tax_code WHERE code <> 'NONE'")
            cursor.execute("DELETE FROM ledger_account WHERE code <> ALL (%s)", (CHART_CODES,))
            cursor.execute("UPDATE ledger_account SET active = true WHERE NOT active")
            cursor.execute("UPDATE fiscal_period SET closed_at = NULL WHERE closed_at IS NOT NULL")

    def _connected(self) -> extensions.connection:
        if self._connection is None:
            self._connection = psycopg2.connect(self._url)
            with self._connection, self._connection.cursor() as cursor:
                # The guards that keep the books from being emptied are put aside for this session alone.
                cursor.execute("SET session_replication_role = replica")
                cursor.execute(f"PREPARE rows_of_tables AS {self._count}")
        return self._connection


@pytest.fixture(scope="session")
def sweeper(databases: Databases, tables: list[str]) -> Iterator[Sweeper]:
    """Whoever empties the tables of this test process."""
    sweeper = Sweeper(databases.superuser_url, tables)
    yield sweeper
    sweeper.close()


@pytest.fixture
def set_to(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives settings of this process other values, for what reads them as it runs."""

    def change(**settings: Any) -> None:
        monkeypatch.setattr(config, "_current", dataclasses.replace(config.current(), **settings))

    return change


@pytest.fixture
def hold_limit(set_to: Callable[..., None]) -> Callable[[int], None]:
    """Sets how many open holds a customer may have in this process; 0 for any number."""
    return lambda limit: set_to(max_open_holds=limit)


@pytest.fixture
def reservation_limit(set_to: Callable[..., None]) -> Callable[[int], None]:
    """Sets how many open reservations and holds a customer may make in this process; 0 for any number."""
    return lambda limit: set_to(max_open_reservations=limit)


@pytest.fixture
def fresh_database(app: Flask, sweeper: Sweeper) -> None:
    """An empty database, with the chart of accounts and the tables that migrations fill."""
    sweeper.empty()


@pytest.fixture
def cast(app: Flask, fresh_database: None) -> Cast:
    """The people, places and vehicles that the tests are about, in an otherwise empty database."""
    return Cast(app)


@pytest.fixture
def statements(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that the service sends from here on; BEGIN, COMMIT and ROLLBACK are not among them."""
    sent: list[str] = []
    execute, run, run_and_commit = db._execute, db._run, db.run_and_commit

    def noting_execute(sql, params):
        sent.append(sql)
        return execute(sql, params)

    def noting_run(statement, params, **how):
        sent.append(statement.name)
        return run(statement, params, **how)

    def noting_run_and_commit(statement, params):
        sent.append(statement.name)
        return run_and_commit(statement, params)

    monkeypatch.setattr(db, "_execute", noting_execute)
    monkeypatch.setattr(db, "run_and_commit", noting_run_and_commit)
    monkeypatch.setattr(db, "_run", noting_run)
    return sent


@pytest.fixture
def effects(fresh_database: None) -> Iterator[None]:
    """A table of effects, for `tests.tasks.consuming`."""
    db.execute_sql("CREATE TABLE effect_of_test (message_id uuid)")
    yield
    db.execute_sql("DROP TABLE effect_of_test")
