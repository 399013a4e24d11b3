"""Beat only rings: two of them, and every sweep twice at once, do nothing twice."""

from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from fleet import clock
from fleet.db import db
from fleet.services import no_shows, outbox, processes
from tasks import app, maintenance, payments
from tasks.lanes import SLOW
from tests.races.scenes import out, reserved, state_of
from tests.tasks.crew import BEAT, WORKER, await_, running
from tests.tasks.outboxes import at_once, promised, state


def sweeps() -> list[str]:
    return sorted(app.conf.beat_schedule)


def a_day_of_everything(cast) -> dict[str, str]:
    """Something for every sweep to do: rentals whose time went by, a promise that died in silence, a process long gone."""
    late = out(cast, vehicle_id=cast.corolla)
    held = reserved(cast, 10, 11, hold_minutes=15)
    missed = reserved(cast, 20, 22)
    db.execute_sql(
        "UPDATE rental SET start_at = now() - interval '3 days', end_at = now() - interval '1 minute' WHERE id = %s",
        (id_of(late),),
    )
    db.execute_sql(
        """UPDATE vehicle_block SET end_at = now() - interval '1 minute',
        occupied = tstzrange(lower(occupied), now() - interval '1 minute') WHERE rental_id = %s""",
        (id_of(late),),
    )
    db.execute_sql("UPDATE rental SET hold_expires_at = now() - interval '1 minute' WHERE id = %s", (id_of(held),))
    db.execute_sql(
        """UPDATE rental SET start_at = now() - interval '2 days', end_at = now() + interval '1 day',
        terms = jsonb_set(terms, '{no_show_fee}', '5000') WHERE id = %s""",
        (id_of(missed),),
    )
    db.execute_sql("DELETE FROM outbox")
    [silent] = promised()
    db.execute_sql("UPDATE outbox SET deliveries = %s, next_attempt_at = now()", (outbox.MAX_DELIVERIES,))
    processes.report("relay@gone", "relay", queues=[], paused=[], handled={})
    db.execute_sql("UPDATE process_report SET reported_at = now() - interval '2 days'")
    return {"late": late, "held": held, "missed": missed, "silent": silent}


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def check_done_once(made: dict[str, str]) -> None:
    assert state_of(made["held"]) == ("expired", 0)
    assert state_of(made["missed"]) == ("no_show", 0)
    assert db.one("SELECT count(*) FROM invoice WHERE rental_id = %s", (id_of(made["missed"]),)) == (1,)
    assert state(made["silent"]) == "dead"
    assert db.one("SELECT count(*) FROM process_report WHERE name = 'relay@gone'") == (0,)
    [(until,)] = db.rows("SELECT end_at FROM vehicle_block WHERE rental_id = %s", (id_of(made["late"]),))
    assert until > clock.now() + timedelta(minutes=1)


def test_every_sweep_twice_at_once_does_its_work_once(cast):
    made = a_day_of_everything(cast)
    for name in sweeps():
        module, _, function = name.partition(".")
        sweep = getattr({"maintenance": maintenance, "payments": payments}[module], function)
        at_once([sweep, sweep])
        sweep()
    check_done_once(made)
    assert no_shows.give_up() == 0


ASKS_OUTSIDE = {"payments.settle_pending"}


def test_no_sweep_waits_behind_letters_or_entries():
    assert {outbox.queue_of(name) for name in set(sweeps()) - ASKS_OUTSIDE} == {"maintenance"}


def test_a_sweep_that_asks_somebody_outside_is_in_a_lane_that_nothing_quick_waits_for():
    slow = {queue for group in SLOW for queue in group}
    assert {outbox.queue_of(name) for name in ASKS_OUTSIDE} <= slow


@pytest.mark.slow
def test_two_beats_and_two_workers_do_it_once(cast, broker, processes_environment, tmp_path):
    """The beats are in a hurry here, so that both ring for each sweep again and again."""
    made = a_day_of_everything(cast)
    logs = [tmp_path / f"beat{number}.log" for number in (1, 2)]
    with ExitStack() as stack:
        for number, log in enumerate(logs):
            beat = [part if part != "tasks" else "tests.tasks.hasty" for part in BEAT]
            stack.enter_context(running([*beat, str(tmp_path / f"schedule{number}")], processes_environment, log))
            stack.enter_context(running(WORKER, processes_environment, tmp_path / f"worker{number}.log"))
        await_(lambda: all(len(rung(log)) >= 3 * len(sweeps()) for log in logs))
        await_(lambda: broker.depth("maintenance") < len(sweeps()))
    check_done_once(made)


def rung(log: Path) -> list[str]:
    """What a beat has rung for; Celery's line says `Scheduler: Sending due task NAME (NAME)`."""
    return [line for line in log.read_text().splitlines() if "Sending due task" in line]
