"""A time limit strikes between any two steps of a task; the child's next task has nothing to do with it."""

from celery import signals

from fleet.db import db
from tests.cast import Cast


def test_a_transaction_that_a_time_limit_left_open_is_undone_before_the_next_task(cast: Cast) -> None:
    plate = db.one("SELECT plate_number FROM vehicle WHERE id = %s", (cast.corolla,))
    db.transaction().__enter__()
    db.execute_sql("UPDATE vehicle SET plate_number = 'HALF' WHERE id = %s", (cast.corolla,))
    signals.task_prerun.send(sender=None)
    assert not db.in_transaction()
    assert db.one("SELECT plate_number FROM vehicle WHERE id = %s", (cast.corolla,)) == plate


def test_so_is_one_of_which_nothing_was_sent_yet(cast: Cast) -> None:
    db.transaction().__enter__()
    signals.task_prerun.send(sender=None)
    assert not db.in_transaction()
    assert db.one("SELECT now() <> statement_timestamp()") == (False,), "no BEGIN travels ahead of what comes now"
