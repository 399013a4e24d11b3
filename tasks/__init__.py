"""Work that is done later, by worker processes: another doorway to the services, like the blueprints.

A task takes ids, looks first, calls one service and decides whether to try again; what it does may be asked of it twice.
Consumers are rung for by promises in the outbox, sweeps by the clock. `tasks.config` holds Celery's settings.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, Task, signals

from fleet.db import db
from tasks import delivery, speech
from tasks.causes import cause_of
from tasks.wiring import share_breakers, wire

log = logging.getLogger("tasks")


class FleetTask(Task):
    """A task whose answer is how much it handled; the worker's main process adds that up."""

    abstract = True
    Request = "tasks.requests:CountedRequest"


app = Celery("fleet", task_cls=FleetTask)
# By name, so that the settings are read when Celery is first used and not when a module is imported.
app.config_from_object("tasks.config")
app.steps["worker"].add("tasks.watch:Watch")
app.steps["consumer"].add("tasks.lanes:Lanes")
app.steps["consumer"].add("tasks.ending:Ending")


def consumer(topic: str) -> Callable[[Callable[[list[str]], int | None]], Any]:
    """Make a function the consumer of a topic: it gets the ids of promises, and may get any of them again.

    The task answers how many it handled: what the function returns, or else what went through `tasks.delivery`.
    """

    def register(work: Callable[[list[str]], int | None]) -> Any:
        @functools.wraps(work)
        def counted(ids: list[str]) -> int:
            before = delivery.handled()
            done = work(ids)
            return delivery.handled() - before if done is None else done

        return app.task(name=topic, consumes_promises=True)(counted)

    return register


def sweep(name: str) -> Callable[[Callable[[], None]], Any]:
    """Make a function a sweep: it finds its own work, and does none twice when two run at once. Its answer is that it ran."""

    def register(work: Callable[[], None]) -> Any:
        @functools.wraps(work)
        def counted() -> int:
            work()
            return 1

        return app.task(name=name)(counted)

    return register


def topics() -> frozenset[str]:
    """The topics that have a consumer here."""
    app.loader.import_default_modules()
    return frozenset(name for name, task in app.tasks.items() if getattr(task, "consumes_promises", False))


@signals.celeryd_init.connect
def _log_from_the_start(**_: Any) -> None:
    """Before Celery looks at its own configuration, and warns."""
    speech.tame()


@signals.setup_logging.connect
def _wire_worker_or_beat(**_: Any) -> None:
    """Having a receiver for this signal also keeps Celery from setting up logs of its own."""
    wire()
    speech.tame()


@signals.worker_process_init.connect
def _share_breakers(**_: Any) -> None:
    """In each of the pool's children: they call what is outside, and they fork no more."""
    share_breakers("worker")


@signals.task_prerun.connect
def _begin_afresh(**_: Any) -> None:
    if db.forget_unfinished():
        log.warning("the task before was broken off within a transaction")


@signals.task_failure.connect
def _log_failure(sender: Any, exception: BaseException, **_: Any) -> None:
    log.error("task failed", extra={"task": sender.name, "cause": cause_of(exception)})
