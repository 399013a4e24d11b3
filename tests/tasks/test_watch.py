"""A worker that stopped consuming ends itself; one that has nothing to do, or no broker, does not. All say that they run."""

from types import SimpleNamespace

import psutil
import pytest

from fleet.db import db
from fleet.services import outbox, processes
from tasks import app, watch
from tasks.broker import BrokerAway
from tasks.watch import EXIT_CODE, Watch, Watchdog
from tests.books import issued
from tests.tasks.crew import RELAY, WORKER, await_, running, said


class World:
    """A worker as its watchdog sees it, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.depth, self.taken, self.is_free = 1000.0, 1, 7, True
        self.away = False
        monkeypatch.setattr(watch, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.dog = Watchdog(
            waiting=self.waiting, taken=lambda: self.taken, free=lambda: self.is_free, patience_s=60
        )

    def waiting(self) -> int:
        if self.away:
            raise BrokerAway("gone")
        return self.depth

    def stuck_after(self, seconds: float) -> bool:
        self.now += seconds
        return self.dog.is_stuck()


@pytest.fixture
def world(monkeypatch) -> World:
    made = World(monkeypatch)
    assert not made.dog.is_stuck()
    return made


def test_who_takes_nothing_for_a_minute_while_something_waits_is_stuck(world):
    assert not world.stuck_after(59)
    assert world.stuck_after(1)


def test_who_takes_something_now_and_then_is_not(world):
    for _ in range(5):
        assert not world.stuck_after(59)
        world.taken += 1
    assert not world.stuck_after(59)


@pytest.mark.parametrize("change", [{"depth": 0}, {"is_free": False}, {"away": True}], ids=["idle", "busy", "brokerless"])
def test_who_has_a_reason_is_not_stuck_and_gets_a_minute_when_it_ends(world, change):
    before = {name: getattr(world, name) for name in change}
    vars(world).update(change)
    assert not world.stuck_after(500)
    vars(world).update(before)
    assert not world.stuck_after(59)
    assert world.stuck_after(1)


@pytest.mark.usefixtures("app")
def test_a_look_that_fails_is_told_and_is_not_the_last(monkeypatch, caplog):
    worker = SimpleNamespace(app=app, concurrency=1)
    eye = Watch(worker)
    looks = []

    def is_stuck(_):
        looks.append("look")
        if len(looks) == 1:
            raise LookupError("unforeseen")
        return False

    monkeypatch.setattr(Watchdog, "is_stuck", is_stuck)
    monkeypatch.setattr(eye, "_report", lambda: eye.stop(worker))
    monkeypatch.setattr(watch, "LOOK_EVERY_S", 0)
    eye._run()
    [told] = caplog.records
    assert (told.levelname, told.exc_info[0]) == ("ERROR", LookupError)


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("worker", [{}, {"pool": None}, {"pool": SimpleNamespace(_pool=None)}])
def test_a_deaf_worker_without_a_pool_ends_too(monkeypatch, worker):
    ended: list[list[int]] = []
    monkeypatch.setattr(watch, "end_at_once", ended.append)
    monkeypatch.setattr(Watchdog, "is_stuck", lambda _: True)
    eye = Watch(SimpleNamespace(app=app, concurrency=1, **worker))
    monkeypatch.setattr(eye, "_report", lambda: None)
    eye._look(Watchdog(waiting=int, taken=int, free=bool, patience_s=60))
    assert ended == [[]]


@pytest.mark.slow
def test_a_worker_that_stopped_consuming_ends_with_its_children_and_the_next_one_does_the_work(
    cast, broker, processes_environment, tmp_path
):
    environment = {**processes_environment, "WORKER_STUCK_AFTER_S": "3"}
    log = tmp_path / "worker.log"
    with running(WORKER, environment, log) as worker:
        await_(lambda: said(log, f"celery@{psutil.os.uname().nodename} ready."))
        children = psutil.Process(worker.pid).children()
        assert len(children) >= 2
        [[answer]] = [list(reply.values()) for reply in app.control.cancel_consumer("accounting", reply=True, timeout=5)]
        assert "ok" in answer
        issued(cast)
        with running(RELAY, environment, tmp_path / "relay.log"):
            await_(lambda: broker.depth("accounting") > 0)
            assert worker.wait(20) == EXIT_CODE
            await_(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
            with running(WORKER, environment, tmp_path / "next.log"):
                await_(lambda: db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL") == (0,))
    [last_words] = said(log, "worker takes nothing and ends itself")
    assert last_words["level"] == "CRITICAL"


@pytest.mark.slow
def test_relay_and_worker_say_what_they_serve_and_what_they_have_done(cast, broker, processes_environment, tmp_path):
    with (
        running(WORKER, processes_environment, tmp_path / "worker.log"),
        running(RELAY, processes_environment, tmp_path / "relay.log"),
    ):
        issued(cast)
        await_(lambda: db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL") == (0,))
        done = {"accounting.post_invoice": 1, "notifications.invoice_issued": 1}
        await_(lambda: [one.handled for one in processes.running()] == [done, done])
        relay, worker = processes.running()
    assert (relay.kind, worker.kind) == ("relay", "worker")
    assert sorted(worker.queues) == sorted(relay.queues) == sorted(outbox.QUEUES)
    assert (relay.paused, worker.paused) == ([], [])


def test_a_process_that_is_silent_for_a_while_is_gone(fresh_database):
    processes.report("worker@a", "worker", queues=["default"], paused=[], handled={})
    processes.report("worker@b", "worker", queues=["default"], paused=[], handled={})
    db.execute_sql("UPDATE process_report SET reported_at = now() - interval '16 seconds' WHERE name = 'worker@a'")
    assert [one.name for one in processes.running()] == ["worker@b"]


def test_each_report_takes_the_place_of_the_one_before(fresh_database):
    for count in (1, 2):
        processes.report("relay@a", "relay", queues=["default"], paused=["webhooks"] * (count - 1), handled={"x.y": count})
    [only] = processes.running()
    assert (only.handled, only.paused) == ({"x.y": 2}, ["webhooks"])


def test_two_processes_never_share_a_name():
    assert processes.name_of_this("relay") != processes.name_of_this("relay")
