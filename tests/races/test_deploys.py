"""Several deploys migrate at once, while the service of the release before runs; one that broke off is run again."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from fleet.cli import MIGRATION_LOCK_TIMEOUT_S
from fleet.embedded import Databases
from tests.source import ROOT

UPGRADE = [sys.executable, "-m", "flask", "--app", "wsgi", "db", "upgrade"]
TIMEOUT_S = 120


class Deployed:
    """A database of its own on the server of the tests."""

    def __init__(self, url: str, environment: dict[str, str]) -> None:
        self.url = url
        self._environment = {**os.environ, **environment, "DATABASE_URL": url, "DATABASE_MIGRATION_URL": url}

    def begin_upgrade(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            UPGRADE, env=self._environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def upgrade(self) -> list[str]:
        """What one deploy applied."""
        return applied(self.begin_upgrade())

    def run(self, sql: str) -> list[Any]:
        with closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []


def applied(process: subprocess.Popen[str]) -> list[str]:
    said, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, said
    return [line.removeprefix("applied ") for line in said.splitlines() if line.startswith("applied ")]


@pytest.fixture
def deployed(databases: Databases, environment: dict[str, str]) -> Iterator[Deployed]:
    superuser = psycopg2.connect(databases.superuser_url)
    superuser.autocommit = True
    owner = urlsplit(databases.database_url)
    with closing(superuser), superuser.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE deployed OWNER {owner.username}")
        try:
            yield Deployed(owner._replace(path="/deployed").geturl(), environment)
        finally:
            cursor.execute("DROP DATABASE deployed WITH (FORCE)")


@pytest.mark.slow
def test_of_several_deploys_at_once_each_migration_is_applied_by_one(deployed: Deployed) -> None:
    """Also those that build indexes concurrently, which wait for every statement that runs, such as another's wait."""
    deploys = [applied(process) for process in [deployed.begin_upgrade() for _ in range(3)]]
    names = sorted(path.stem for path in (ROOT / "fleet" / "migrations").glob("0*.py"))
    assert sorted(name for deploy in deploys for name in deploy) == names
    assert deployed.upgrade() == []


@pytest.mark.slow
def test_a_migration_that_broke_off_between_its_steps_is_run_again(deployed: Deployed) -> None:
    deployed.upgrade()
    deployed.run(
        """INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, dead_at)
        VALUES (gen_random_uuid(), 't', 'default', 'x', gen_random_uuid(), now())"""
    )
    deployed.run("DROP TABLE audit_event CASCADE")  # with what later migrations tied to it
    deployed.run("DROP INDEX outbox_open_letters")
    deployed.run("DELETE FROM schema_migration WHERE name = '0008_operations'")
    assert deployed.upgrade() == ["0008_operations"]
    invalid = deployed.run("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
    indexes = deployed.run("SELECT indexname FROM pg_indexes WHERE tablename = 'outbox'")
    assert invalid == [(0,)]
    assert {("outbox_open_letters",), ("outbox_confirmed",), ("outbox_dead_letters",)} <= set(indexes)
    assert deployed.run("SELECT count(*) FROM outbox WHERE dead_at IS NOT NULL AND replays = 0") == [(1,)]


@pytest.mark.slow
def test_a_migration_that_waits_for_a_table_keeps_nobody_waiting_for_long(deployed: Deployed) -> None:
    """Behind a lock that is waited for, everybody waits who comes later: without a timeout, for as long as it takes."""
    deployed.upgrade()
    deployed.run("DROP TABLE audit_event CASCADE")  # with what later migrations tied to it
    deployed.run("DELETE FROM schema_migration WHERE name = '0008_operations'")
    waits, over = [], threading.Event()

    def come_later() -> None:
        while not over.is_set():
            started = time.monotonic()
            deployed.run("SELECT count(*) FROM outbox")
            waits.append(time.monotonic() - started)
            time.sleep(0.1)

    with closing(psycopg2.connect(deployed.url)) as long, long.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM outbox")  # its lock is kept until the transaction ends
        deploy = deployed.begin_upgrade()
        others = threading.Thread(target=come_later)
        others.start()
        try:
            deadline = time.monotonic() + 30
            while max(waits, default=0) < 1 and time.monotonic() < deadline:
                time.sleep(0.1)
            long.rollback()
            done = applied(deploy)
        finally:
            over.set()
            others.join()
    assert done == ["0008_operations"]
    assert 1 <= max(waits) < MIGRATION_LOCK_TIMEOUT_S + 2
