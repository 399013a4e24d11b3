"""Work that is done later, by worker processes: another doorway to the services, like the blueprints.

A task takes ids, looks first, calls one service and decides whether to try again; what it does may be asked of it twice.
Consumers are rung for by promises in the outbox, sweeps by the clock. `tasks.config` holds Celery's settings.
"""

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, signals

from tasks.causes import cause_of
from tasks.wiring import wire

log = logging.getLogger("tasks")

app = Celery("fleet")
# By name, so that the settings are read when Celery is first used and not when a module is imported.
app.config_from_object("tasks.config")


def consumer(topic: str) -> Callable[[Callable[[list[str]], None]], Any]:
    """Make a function the consumer of a topic: it gets the ids of promises, and may get any of them again."""
    return app.task(name=topic, consumes_promises=True)


def sweep(name: str) -> Callable[[Callable[[], None]], Any]:
    """Make a function a sweep: it finds its own work, and does none twice when two run at once."""
    return app.task(name=name)


def topics() -> frozenset[str]:
    """The topics that have a consumer here."""
    app.loader.import_default_modules()
    return frozenset(name for name, task in app.tasks.items() if getattr(task, "consumes_promises", False))


@signals.setup_logging.connect
def _wire_worker_or_beat(**_: Any) -> None:
    """Having a receiver for this signal also keeps Celery from setting up logs of its own."""
    wire()
    # Celery writes arguments, and the words of exceptions, into its lines about tasks: ours say what may be said.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)


@signals.task_failure.connect
def _log_failure(sender: Any, exception: BaseException, **_: Any) -> None:
    log.error("task failed", extra={"task": sender.name, "cause": cause_of(exception)})
