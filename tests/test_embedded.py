"""The embedded databases: nobody shares them by accident, nothing of them is left over, and what was written stays."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet.embedded import InUse, databases, marked, scratch_databases
from fleet.embedded.crew import Crashed, Crew
from fleet.embedded.ownership import is_living
from fleet.embedded.postgres import unprivileged_account

ROOT = Path(__file__).parents[1]

# Another process that runs databases in a directory until it is killed.
OWNER = """
import sys, time
from pathlib import Path
from fleet.embedded import databases
with databases(Path(sys.argv[1]), durable=True) as running:
    print(running.database_url, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A home for durable databases. The tests share it, because making one takes longer than all that they do there."""
    with tempfile.TemporaryDirectory(prefix="fleet-embedded-") as path:
        yield Path(path).resolve()


@pytest.fixture
def owner(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has its databases in `directory` and has said so."""
    command = [sys.executable, "-c", OWNER, str(directory)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            write(process.stdout.readline().strip(), f"by {process.pid}")
            yield process
        finally:
            process.kill()
            end_all(directory)


def sql(url: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []


def write(url: str, text: str) -> None:
    sql(url, "CREATE TABLE IF NOT EXISTS note (text text)")
    sql(url, "INSERT INTO note VALUES (%s)", text)


def notes(url: str) -> list[str]:
    return [text for (text,) in sql(url, "SELECT text FROM note")]


def redis_client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0))


def end_all(directory: Path) -> None:
    for process in marked(directory):
        process.kill()


def until(condition: Any, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def test_data_survives_a_restart_and_no_process_does(directory: Path) -> None:
    with databases(directory, durable=True) as running:
        assert {"postgres", "valkey-server"} <= {process.name() for process in marked(directory)}
        write(running.database_url, "kept")
        with redis_client(running.redis_url) as client:
            client.set("note", "kept")
    assert marked(directory) == []

    with databases(directory, durable=True) as running:
        assert "kept" in notes(running.database_url)
        with redis_client(running.redis_url) as client:
            assert client.get("note") == b"kept"


def test_an_interrupt_stops_the_databases_too(directory: Path) -> None:
    with pytest.raises(KeyboardInterrupt), databases(directory, durable=True):
        raise KeyboardInterrupt
    assert marked(directory) == []


def test_the_application_is_no_superuser_and_strangers_do_not_get_in(directory: Path) -> None:
    with databases(directory, durable=True) as running:
        rights = "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        assert sql(running.database_url, rights) == [(False, False, False)]
        assert sql(running.superuser_url, rights) == [(True, True, True)]
        sql(running.database_url, "CREATE EXTENSION IF NOT EXISTS btree_gist")
        with pytest.raises(psycopg2.OperationalError):
            sql(running.database_url.replace(running.postgres.password, "wrong"), "SELECT 1")
        with redis_client(f"redis://127.0.0.1:{running.redis.port}") as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_each_database_can_be_lost_and_come_back_at_the_same_address() -> None:
    with scratch_databases() as running:
        write(running.database_url, "before")
        os.kill(running.postgres.pid, signal.SIGKILL)
        running.redis.stop()
        with redis_client(running.redis_url) as client, pytest.raises(redis.ConnectionError):
            client.ping()

        running.postgres.stop()
        running.postgres.start()
        running.redis.start()
        assert notes(running.database_url) == ["before"]
        with redis_client(running.redis_url) as client:
            assert client.ping()


def test_a_second_start_in_the_same_directory_is_refused(directory: Path, owner: subprocess.Popen[str]) -> None:
    with pytest.raises(InUse, match=f"process {owner.pid}"), databases(directory, durable=True):
        pass
    assert owner.poll() is None
    assert len(marked(directory)) > 1


def test_a_second_start_in_the_same_process_is_refused_and_leaves_the_first_alone(directory: Path) -> None:
    with databases(directory, durable=True) as running:
        with pytest.raises(InUse), databases(directory, durable=True):
            pass
        assert sql(running.database_url, "SELECT 1") == [(1,)]


def test_what_a_killed_owner_left_is_ended_and_its_data_found(
    directory: Path, owner: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.embedded.ownership.GRACE_S", 60)
    owner.kill()
    owner.wait()
    stale = marked(directory)
    assert {"postgres", "valkey-server"} <= {process.name() for process in stale}
    next(process for process in stale if process.name() == "valkey-server").suspend()

    begun_at = time.monotonic()
    with databases(directory, durable=True) as running:
        assert time.monotonic() - begun_at < 30, "a frozen process was waited for and not woken"
        assert not any(map(is_living, stale))
        assert f"by {owner.pid}" in notes(running.database_url)


def test_a_pid_file_whose_number_is_another_programs_does_not_stop_the_start(
    directory: Path, owner: subprocess.Popen[str]
) -> None:
    owner.kill()
    owner.wait()
    end_all(directory)
    pid_file = directory / "postgres" / "data" / "postmaster.pid"
    _, *others = pid_file.read_text().splitlines()
    with subprocess.Popen(["sleep", "60"], **unprivileged_account()) as another:
        pid_file.write_text("\n".join([str(another.pid), *others, ""]))
        with databases(directory, durable=True) as running:
            assert f"by {owner.pid}" in notes(running.database_url)
        another.kill()


def test_a_taken_port_becomes_a_free_one(directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with databases(directory, durable=True, postgres_port=port, redis_port=port) as running:
            assert port not in {running.postgres.port, running.redis.port}
            assert sql(running.database_url, "SELECT 1") == [(1,)]


def test_scratch_databases_remove_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    abandoned = tmp_path / "abandoned"
    abandoned.mkdir()
    with scratch_databases(tmp_path) as first:
        assert not abandoned.exists()
        with scratch_databases(tmp_path) as second:
            assert sql(first.database_url, "SELECT 1") == sql(second.database_url, "SELECT 1")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


@pytest.fixture
def stopping() -> Event:
    return Event()


@pytest.fixture
def crew(stopping: Event) -> Iterator[Crew]:
    crew = Crew(dict(os.environ), stopping)
    yield crew
    crew.stop()


def test_the_crew_prints_every_line_behind_its_name(crew: Crew, capsys: pytest.CaptureFixture[str]) -> None:
    crew.start({"web": "echo hello; exec sleep 60", "worker": "exec sleep 60"})
    crew.stop()
    assert "web    | hello\n" in capsys.readouterr().out


def test_stopping_the_crew_ends_the_children_of_its_members(crew: Crew, tmp_path: Path) -> None:
    written = tmp_path / "pid"
    crew.start({"web": f"sleep 60 & echo $! > {written}; wait"})
    assert until(lambda: written.exists() and written.read_text())
    child = psutil.Process(int(written.read_text()))
    crew.stop()
    assert until(lambda: not is_living(child))


def test_a_member_that_ends_right_after_its_start_ends_the_run(crew: Crew) -> None:
    crew.start({"web": "exit 3"})
    with pytest.raises(Crashed, match="web ended with code 3"):
        crew.watch()


def test_a_member_that_ends_later_is_started_again(
    crew: Crew, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.embedded.crew.TOO_SHORT_A_LIFE_S", 0)
    starts = tmp_path / "starts"
    crew.start({"relay": f"echo started >> {starts}; [ $(wc -l < {starts}) -gt 1 ] && exec sleep 60"})

    def restarted() -> bool:
        crew.check()
        return starts.exists() and len(starts.read_text().splitlines()) > 1

    assert until(restarted)
