"""The promises of fleet.db: what a transaction is, and what is sent again when the connection died."""

import os
import signal
from collections.abc import Callable

import peewee
import psycopg2
import pytest
from flask import Flask

from fleet.db import Statement, db, transaction
from fleet.embedded import Databases

INSERT = Statement("insert_tax", ("text",), "INSERT INTO tax_code (code, name, rate_bps) VALUES ($1, $1, 0) RETURNING code")


@pytest.fixture
def lose_connection(fresh_database: None, databases: Databases) -> Callable[[], None]:
    """Ends this thread's connection on the server, as a restart would."""

    def lose() -> None:
        row = db.one("SELECT pg_backend_pid()")
        assert row is not None
        with psycopg2.connect(databases.superuser_url) as other, other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", row)

    return lose


def codes() -> set[str]:
    return {code for (code,) in db.rows("SELECT code FROM tax_code WHERE code <> 'NONE'")}


def test_what_raises_leaves_nothing(app: Flask, fresh_database: None) -> None:
    with pytest.raises(ZeroDivisionError), transaction():
        db.run(INSERT, ("A",))
        raise ZeroDivisionError
    assert codes() == set()


def test_a_block_within_a_transaction_is_part_of_it(app: Flask, fresh_database: None) -> None:
    with pytest.raises(ZeroDivisionError), transaction():
        with transaction():
            db.run(INSERT, ("A",))
        raise ZeroDivisionError
    assert codes() == set()


class TestWhatIsAssumed:
    """It travels ahead of the next statement, whatever that is, and as it was written."""

    SAYS = Statement("says", ("text",), "SELECT set_config('fleet.said', $1, false)")

    @pytest.mark.parametrize(
        "ask",
        [
            lambda: db.run(Statement("half", (), "SELECT '50%'"), ())[0],
            lambda: db.run(Statement("so_many", ("text",), "SELECT $1 || '%'"), ("50",))[0],
            lambda: db.recurring("SELECT %s || '%%'", ("50",))[0],
            lambda: db.one("SELECT '50%%'"),
            lambda: db.one("SELECT %s", ("50%",)),
        ],
    )
    def test_a_percent_sign_arrives_as_one(self, app: Flask, ask: Callable[[], object]) -> None:
        db.close()
        for said in ("not prepared yet: 100%", "prepared: 90%"):
            with db.assuming(self.SAYS, (said,)):
                assert ask() == ("50%",)
            assert db.one("SELECT current_setting('fleet.said')") == (said,)


def test_a_last_statement_commits_what_came_before_it(app: Flask, fresh_database: None) -> None:
    with transaction():
        db.run(INSERT, ("A",))
        db.run_and_commit(INSERT, ("B",))
    assert codes() == {"A", "B"}


def test_a_last_statement_that_fails_commits_nothing(app: Flask, fresh_database: None) -> None:
    with pytest.raises(peewee.IntegrityError), transaction():
        db.run(INSERT, ("A",))
        db.run_and_commit(INSERT, ("A",))
    assert codes() == set()


def test_nobody_commits_the_transaction_of_somebody_else(app: Flask, fresh_database: None) -> None:
    with pytest.raises(RuntimeError), transaction():
        db.run(INSERT, ("A",))
        with transaction():
            db.run_and_commit(INSERT, ("B",))
    assert codes() == set()
    with transaction():
        db.run_and_commit(INSERT, ("C",))
    assert codes() == {"C"}


def test_a_child_that_is_forked_while_another_thread_closes_can_close_too(app: Flask, fresh_database: None) -> None:
    """As the children of a worker are while its watch makes its report."""
    db.close()
    with db._lock:
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            answer = db.one("SELECT 1")
            db.close()
            os._exit(0 if answer == (1,) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_a_read_on_a_dead_connection_is_sent_again(lose_connection: Callable[[], None]) -> None:
    lose_connection()
    assert db.one("SELECT 1") == (1,)


def test_a_transaction_that_begins_on_a_dead_connection_begins_again(lose_connection: Callable[[], None]) -> None:
    lose_connection()
    with transaction():
        db.run(INSERT, ("A",))
    assert codes() == {"A"}


def test_a_write_without_a_transaction_is_not_sent_twice(lose_connection: Callable[[], None]) -> None:
    lose_connection()
    with pytest.raises(peewee.OperationalError):
        db.execute_sql("INSERT INTO tax_code (code, name, rate_bps) VALUES ('A', 'A', 0)")
    assert codes() == set()


def test_a_transaction_that_loses_its_connection_fails_as_a_whole(lose_connection: Callable[[], None]) -> None:
    with pytest.raises(peewee.OperationalError), transaction():
        db.run(INSERT, ("A",))
        lose_connection()
        db.run(INSERT, ("B",))
    assert codes() == set()


def test_what_is_wrong_is_told_though_the_connection_was_lost_before_it_was_rolled_back(
    lose_connection: Callable[[], None],
) -> None:
    """And what was to be done after the commit is not done after the next one."""
    done: list[str] = []
    with pytest.raises(ZeroDivisionError), transaction():
        db.run(INSERT, ("A",))
        db.after_commit(lambda: done.append("A"))
        lose_connection()
        raise ZeroDivisionError
    with transaction():
        db.run(INSERT, ("B",))
        db.after_commit(lambda: done.append("B"))
    assert (codes(), done) == ({"B"}, ["B"])
