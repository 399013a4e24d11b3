"""A PostgreSQL that does not answer: one thread at a time finds out, and nobody waits behind it."""

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator

import peewee
import psycopg2
import pytest
from flask import Flask

from fleet import deadline
from fleet.breakers import Breaker, Rules
from fleet.config import Settings
from fleet.db import Database, db
from fleet.embedded import Databases
from fleet.outages import ConnectGuard, _is_outage
from tests.tasks.outboxes import at_once

CONNECT_S, OPEN_S = 0.4, 0.2


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("postgresql-of-test", Rules(min_calls=1, open_s=OPEN_S), is_failure=_is_outage)


@pytest.fixture
def frozen(app: Flask, settings: Settings, breaker: Breaker) -> Iterator[Database]:
    """A database whose server takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        made = Database(None)
        short = dataclasses.replace(settings, database_connect_timeout_ms=int(CONNECT_S * 1000))
        made.configure(short, url=f"postgresql://x@127.0.0.1:{listener.getsockname()[1]}/x?sslmode=disable&gssencmode=disable")
        made._guard = ConnectGuard(breaker)
        yield made


def waits(database: Database, threads: int = 8) -> list[float]:
    """How long each of so many threads waits to hear that there is no connection."""

    def ask() -> float:
        began = time.monotonic()
        with pytest.raises(peewee.OperationalError):
            database.one("SELECT 1")
        return time.monotonic() - began

    return sorted(at_once([ask] * threads))


def test_threads_do_not_queue_for_a_server_that_hangs(frozen: Database) -> None:
    """Peewee connects under a lock of the whole process: without the guard the eighth waits eight times as long."""
    assert waits(frozen)[-1] < 2.5 * CONNECT_S
    assert waits(frozen)[-1] < CONNECT_S / 2


def test_when_it_is_time_one_of_them_tries_and_the_others_go_on(frozen: Database, breaker: Breaker) -> None:
    waits(frozen, 1)
    time.sleep(OPEN_S + 0.05)
    found = waits(frozen)
    assert found[-1] >= CONNECT_S and found[-2] < CONNECT_S / 2
    assert breaker.state == "open"


def test_it_is_found_back_by_the_first_who_may_try(app: Flask, settings: Settings, breaker: Breaker) -> None:
    own = Database(None)
    own.configure(settings)
    own._guard = ConnectGuard(breaker)
    breaker.force("forced_open")
    with pytest.raises(peewee.OperationalError):
        own.one("SELECT 1")
    breaker.force("auto")
    assert own.one("SELECT 1") == (1,)
    breaker.force("forced_open")
    assert own.one("SELECT 1") == (1,)  # who is connected stays so
    own.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)",
        "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$",
    ],
    ids=["statement timeout", "deadlock", "serialization", "lock timeout"],
)
def test_what_concerns_one_transaction_opens_nothing(
    fresh_database: None, breaker: Breaker, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    monkeypatch.setattr(db, "_guard", ConnectGuard(breaker))
    for _ in range(3):
        with pytest.raises(peewee.OperationalError), db.transaction():
            db.execute_sql(sql)
    db.close()
    assert db.one("SELECT 1") == (1,)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


def test_a_server_without_a_free_connection_opens_it(
    fresh_database: None, databases: Databases, breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "_guard", ConnectGuard(breaker))
    with psycopg2.connect(databases.superuser_url) as other, other.cursor() as cursor:
        cursor.execute("ALTER ROLE fleet CONNECTION LIMIT 0")
    db.close()
    try:
        with pytest.raises(peewee.OperationalError):
            db.one("SELECT 1")
        assert breaker.state == "open"
    finally:
        with psycopg2.connect(databases.superuser_url) as other, other.cursor() as cursor:
            cursor.execute("ALTER ROLE fleet CONNECTION LIMIT -1")


def asks_with_no_time_left(database: Database) -> None:
    deadline.begin(0.05)
    try:
        with pytest.raises(peewee.OperationalError):
            database.one("SELECT 1")
    finally:
        deadline.end()


def test_who_has_no_time_left_says_nothing_about_the_server(frozen: Database, breaker: Breaker) -> None:
    asks_with_no_time_left(frozen)
    assert breaker.state == "closed"


def test_a_probe_that_had_no_time_left_does_not_close_it(frozen: Database, breaker: Breaker) -> None:
    waits(frozen, 1)
    time.sleep(OPEN_S + 0.05)
    asks_with_no_time_left(frozen)
    assert breaker.state == "half_open"


def test_health_says_at_once_that_it_is_away(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Breaker("postgresql-of-test", Rules())
    stuck.force("forced_open")
    monkeypatch.setattr(db, "_guard", ConnectGuard(stuck))
    answers: list[int] = []
    thread = threading.Thread(target=lambda: answers.append(app.test_client().get("/health/ready").status_code))
    thread.start()
    thread.join(2)
    assert answers == [503]
