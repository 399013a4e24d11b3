"""Lists and reports come from a read replica where that is as good as the primary, and from the primary where it is not.

The replica is a real one, which streams from the embedded PostgreSQL; it is paused, stopped and frozen here.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from uuid import UUID, uuid4

import psycopg2
import pytest
from flask import Flask

from fleet import openapi
from fleet.config import Settings
from fleet.db import db, replica
from fleet.db.replicas import CLUSTER, HAS_REPLAYED, POSITION
from fleet.embedded import Databases, PostgresReplica
from fleet.models.access import ACTOR_OF_SESSION, User
from tests.cast import Cast, at, iso
from tests.freezing import frozen
from tests.races.scenes import begun

WINDOW = f"start_at={iso(at(1))}&end_at={iso(at(2))}"
ASKED_FOR = {"/v1/availability": WINDOW, "/v1/vehicles/{vehicle_id}/calendar.ics": f"from={iso(at(-1))}&to={iso(at(9))}"}
# Who acts, how far the primary has come, and whether the replica is one of it: always the primary's to say.
ASKED_BEFORE = {ACTOR_OF_SESSION.name, POSITION.name, CLUSTER}
RESTED_S = 0.1
SOON_S = 5
BRANCH = {"name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR"}

Asked = list[tuple[int, str]]
Replicated = Callable[..., None]


@pytest.fixture(scope="module")
def standby(app: Flask, databases: Databases) -> Iterator[PostgresReplica]:
    """A replica of the tests' database."""
    server = databases.postgres.replica()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def replicated(standby: PostgresReplica, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Replicated]:
    """The service with that replica, which has all the time it wants; called, it is configured anew."""

    def configure(url: str = standby.url, max_lag_ms: int = 10_000, statement_ms: int = 10_000) -> None:
        changed = dataclasses.replace(settings, database_replica_url=url, database_replica_max_lag_ms=max_lag_ms)
        replica.configure(dataclasses.replace(changed, database_statement_timeout_ms=statement_ms))

    monkeypatch.setattr("fleet.db.replicas._REST_S", RESTED_S)
    monkeypatch.setattr("fleet.db.replicas._MOST_ASK_S", 1)
    configure()
    yield configure
    replica._source.close()
    replica.configure(settings)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Which server was asked what, by port and the name or text of the statement."""
    sent: Asked = []
    execute, run = db._execute, db._run

    def noting_execute(sql, params):
        sent.append((port(), sql))
        return execute(sql, params)

    def noting_run(statement, params, **how):
        sent.append((port(), statement.name))
        return run(statement, params, **how)

    def port() -> int:
        return int(db.connection().info.port)

    monkeypatch.setattr(db, "_execute", noting_execute)
    monkeypatch.setattr(db, "_run", noting_run)
    return sent


def ask(server: PostgresReplica, sql: str) -> object:
    """What the server answers to its superuser."""
    with closing(psycopg2.connect(server.superuser_url)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()


@contextmanager
def paused(standby: PostgresReplica) -> Iterator[None]:
    """The replica goes on receiving and replays nothing."""
    ask(standby, "SELECT pg_wal_replay_pause()")
    deadline = time.monotonic() + SOON_S
    while ask(standby, "SELECT pg_get_wal_replay_pause_state()") != ("paused",) and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        yield
    finally:
        ask(standby, "SELECT pg_wal_replay_resume()")


def ports(asked: Asked) -> set[int]:
    """Who was asked for what the list shows."""
    return {port for port, name in asked if name not in ASKED_BEFORE}


def answered_by(cast: Cast, asked: Asked) -> int:
    """The port of the server that a list of rentals comes from."""
    asked.clear()
    assert cast.agent.get("/v1/rentals").status_code == 200
    [port] = ports(asked)
    return port


def comes_back(cast: Cast, asked: Asked, standby: PostgresReplica) -> bool:
    """Whether the replica is read again by itself."""
    deadline = time.monotonic() + SOON_S
    while answered_by(cast, asked) != standby.port and time.monotonic() < deadline:
        time.sleep(0.02)
    return answered_by(cast, asked) == standby.port


def test_every_list_and_report_is_read_from_the_replica(
    app: Flask, cast: Cast, replicated: Replicated, asked: Asked, standby: PostgresReplica
) -> None:
    rental = begun(cast).rpartition("/")[2]
    ids = {"vehicle_id": cast.corolla, "rental_id": rental, "code": "1000"}
    cast.admin.known()
    read: dict[str, int] = {}
    for rule, _, declared, _ in openapi.operations(app):
        if declared.listed or declared.report:
            path = rule.rule.replace("<uuid:", "{").replace("<", "{").replace(">", "}")
            query = ASKED_FOR.get(path, "")
            asked.clear()
            found = cast.admin.get(f"{path.format_map(_Ids(ids))}?{query}")
            assert ports(asked) == {standby.port}, (path, asked, found.json)
            assert found.status_code in {200, 404}, (path, found.json)
            read[path] = found.status_code
    assert len(read) >= 20
    assert [path for path, status in read.items() if status == 404 and "{" not in path] == []


class _Ids(dict[str, object]):
    def __missing__(self, name: str) -> UUID:
        return uuid4()


def test_a_single_resource_is_read_from_the_primary(
    cast: Cast, replicated: Replicated, asked: Asked, databases: Databases
) -> None:
    cast.agent.get(f"/v1/vehicles/{cast.corolla}")
    assert ports(asked) == {databases.postgres.port}


def test_without_a_replica_a_list_is_one_statement(cast: Cast, asked: Asked) -> None:
    cast.agent.known()
    asked.clear()
    cast.agent.get("/v1/rentals")
    assert len(asked) == 1


def test_whoever_wrote_reads_what_they_wrote_though_the_replica_stands_still(
    cast: Cast, replicated: Replicated, asked: Asked, standby: PostgresReplica, databases: Databases
) -> None:
    assert answered_by(cast, asked) == standby.port
    replicated(max_lag_ms=20)
    with paused(standby):
        made = begun(cast).rpartition("/")[2]
        listed = cast.agent.get("/v1/rentals").json["data"]
        assert [rental["id"] for rental in listed] == [made]
        # So does everybody else: what is listed is as new as the primary was when the list was asked for.
        assert [rental["id"] for rental in cast.ana.get("/v1/rentals").json["data"]] == [made]
        assert answered_by(cast, asked) == databases.postgres.port
    assert comes_back(cast, asked, standby)


def test_a_write_is_waited_for_and_then_read_from_the_replica(
    cast: Cast, replicated: Replicated, asked: Asked, standby: PostgresReplica
) -> None:
    for number in range(20):
        assert cast.admin.post("/v1/branches", {**BRANCH, "code": f"P{number:02d}"}).status_code == 201
        asked.clear()
        listed = cast.admin.get("/v1/branches?limit=1").json["data"]
        assert (listed[0]["code"], ports(asked)) == (f"P{number:02d}", {standby.port})


def test_a_right_that_was_withdrawn_is_gone_though_the_replica_does_not_know(
    cast: Cast, replicated: Replicated, standby: PostgresReplica
) -> None:
    assert cast.admin.get("/v1/users").status_code == 200
    replicated(max_lag_ms=20)
    with paused(standby):
        User.update(roles=["driver"]).where(User.id == cast.admin.user_id).execute()
        assert cast.admin.get("/v1/users").status_code == 403


def test_a_page_may_come_from_the_one_and_the_next_from_the_other(
    cast: Cast, replicated: Replicated, asked: Asked, standby: PostgresReplica, databases: Databases
) -> None:
    for _ in range(2):
        cast.vehicle()
    first = cast.agent.get("/v1/vehicles?limit=2")
    assert ports(asked) >= {standby.port}
    replicated(url="")
    asked.clear()
    rest = cast.agent.get(f"/v1/vehicles?limit=2&cursor={first.json['next_cursor']}").json["data"]
    assert ports(asked) == {databases.postgres.port}
    assert len({vehicle["id"] for vehicle in [*first.json["data"], *rest]}) == 3


def test_a_replica_that_lags_is_left_alone_until_it_has_caught_up(
    cast: Cast, replicated: Replicated, asked: Asked, standby: PostgresReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.db.replicas._REST_S", 60)
    replicated(max_lag_ms=20)
    looks: list[str] = []
    run = replica._source.run

    def noting_run(statement, params):
        looks.append(statement.name)
        return run(statement, params)

    monkeypatch.setattr(replica._source, "run", noting_run)
    with paused(standby):
        cast.vehicle()
        assert cast.agent.get("/v1/rentals").status_code == 200
        assert set(looks) == {HAS_REPLAYED.name}
        looks.clear()
        asked.clear()
        for _ in range(3):
            assert cast.agent.get("/v1/rentals").status_code == 200
        # A replica that rests costs nothing: it is not asked, and neither is the primary how far it has come.
        assert looks == [] and len(asked) == 3
    monkeypatch.setattr(replica, "_resting_until", time.monotonic())
    assert comes_back(cast, asked, standby)


def test_one_request_finds_out_for_all_whether_a_replica_does_again(
    replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.db.replicas._REST_S", 60)
    replica._rest("away")
    assert not replica._may_be_asked()
    monkeypatch.setattr(replica, "_resting_until", time.monotonic())
    assert [replica._may_be_asked() for _ in range(3)] == [True, False, False]


def test_a_replica_that_is_gone_costs_nobody_an_answer(
    cast: Cast, replicated: Replicated, asked: Asked, standby: PostgresReplica, databases: Databases
) -> None:
    assert answered_by(cast, asked) == standby.port
    standby.stop()
    try:
        assert [answered_by(cast, asked) for _ in range(3)] == [databases.postgres.port] * 3
    finally:
        standby.start()
    assert comes_back(cast, asked, standby)


def test_a_replica_that_stands_still_costs_one_request_a_moment(
    cast: Cast,
    replicated: Replicated,
    asked: Asked,
    standby: PostgresReplica,
    databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fleet.db.replicas._MOST_ASK_S", 0.2)
    replicated(max_lag_ms=20)
    answered_by(cast, asked)
    with frozen(standby):
        began = time.monotonic()
        # The first on the connection that there is, later ones while a new one is being made.
        for _ in range(6):
            assert answered_by(cast, asked) == databases.postgres.port
            time.sleep(RESTED_S / 2)
        assert time.monotonic() - began < 4
    assert comes_back(cast, asked, standby)


@pytest.mark.parametrize("trouble", ["pg_sleep(60)", "pg_terminate_backend(pg_backend_pid())"])
def test_what_fails_on_the_replica_is_read_from_the_primary(cast: Cast, replicated: Replicated, trouble: str) -> None:
    replicated(statement_ms=200)
    sql = f"SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN {trouble}::text END"
    assert replica.read(lambda: db.one(sql)) == (False, None)
    assert db.one("SELECT pg_is_in_recovery()") == (False,)


def test_what_is_no_replica_is_never_read(
    cast: Cast, replicated: Replicated, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    replicated(url=databases.database_url, max_lag_ms=1)
    assert replica.read(lambda: db.one("SELECT pg_is_in_recovery()")) == (False,)
    assert replica._resting_until is not None


def test_a_replica_of_another_database_is_never_read(
    cast: Cast, replicated: Replicated, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two servers tell different things of themselves, as those of two clusters would.
    monkeypatch.setattr("fleet.db.replicas.CLUSTER", "SELECT pg_is_in_recovery()")
    assert replica.read(lambda: db.one("SELECT pg_is_in_recovery()")) == (False,)
    assert replica._resting_until is not None


def test_nothing_is_written_through_the_replica(cast: Cast, replicated: Replicated) -> None:
    assert replica.read(lambda: db.one("SHOW default_transaction_read_only")) == ("on",)
    assert db.one("SHOW default_transaction_read_only") == ("off",)
