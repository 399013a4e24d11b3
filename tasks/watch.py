"""A worker's eye on itself: it says that it runs, and ends itself when it has stopped consuming.

After the crash of its Redis a worker may come back connected and deaf (one in 33 did): it answers pings and takes nothing. Then
the only cure is another process, which whatever started this one brings: this one ends with EXIT_CODE.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import peewee
from celery import bootsteps
from celery.worker import state

from fleet.db import db
from fleet.services import processes
from tasks.broker import Broker, BrokerAway
from tasks.causes import cause_of
from tasks.requests import handled
from tasks.wiring import settings

log = logging.getLogger("tasks.watch")

LOOK_EVERY_S = 5.0
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again


class Watchdog:
    """Judges by what is seen from outside: something waits in the queues, a child is free, and nothing is taken.

    Both must hold without a break for `patience_s`. While all children are busy it is for their time limits to end that.
    """

    def __init__(
        self, *, waiting: Callable[[], int], taken: Callable[[], int], free: Callable[[], bool], patience_s: float
    ) -> None:
        self._waiting, self._taken, self._free = waiting, taken, free
        self._patience_s = patience_s
        self._taken_before = -1
        self._since = time.monotonic()

    def is_stuck(self) -> bool:
        """Look once; whether nothing was taken for too long."""
        taken = self._taken()
        if taken != self._taken_before or not self._free() or not self._something_waits():
            self._taken_before, self._since = taken, time.monotonic()
        return time.monotonic() - self._since >= self._patience_s

    def _something_waits(self) -> bool:
        try:
            return self._waiting() > 0
        except BrokerAway:
            return False  # nobody can take anything; the worker itself waits for the broker


class Watch(bootsteps.StartStopStep):
    """The part of the worker's main process that looks after it, in a thread beside the loop that consumes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._worker = worker
        self._queues = list(worker.app.amqp.queues.consume_from)
        self._name = processes.name_of_this("worker")
        self._ended = threading.Event()

    def start(self, worker: Any) -> None:
        """Begin to look, every LOOK_EVERY_S."""
        threading.Thread(target=self._run, name="watch", daemon=True).start()

    def stop(self, worker: Any) -> None:
        """Look no more: a worker that ends its work takes nothing, and that is right."""
        self._ended.set()

    terminate = stop

    def _run(self) -> None:
        broker = Broker(self._worker.app)
        watchdog = Watchdog(
            waiting=lambda: sum(broker.depth(queue) for queue in self._queues),
            taken=lambda: int(state.all_total_count[0]),
            free=lambda: len(state.active_requests) < self._worker.concurrency,
            patience_s=settings().worker_stuck_after_s,
        )
        while not self._ended.wait(min(LOOK_EVERY_S, settings().worker_stuck_after_s / 4)):
            try:
                self._look(watchdog)
            except Exception:  # whatever a driver raises: a thread that ended here would leave a deaf worker to itself
                log.exception("worker could not look after itself")
        broker.close()

    def _look(self, watchdog: Watchdog) -> None:
        if watchdog.is_stuck() and not self._ended.is_set():
            log.critical("worker takes nothing and ends itself", extra={"queues": self._queues, "exit_code": EXIT_CODE})
            end_at_once(self._children())
        self._report()

    def _report(self) -> None:
        try:
            processes.report(self._name, "worker", queues=self._queues, paused=(), handled=handled)
        except peewee.PeeweeException as error:
            log.warning("not reported", extra={"cause": cause_of(error)})
        finally:
            # Children may be forked at any time, and none may inherit a connection.
            with suppress(peewee.PeeweeException):
                db.close()

    def _children(self) -> list[int]:
        """The pool's processes; none where there is no pool any more: that must not keep a deaf worker alive."""
        pool = getattr(getattr(self._worker, "pool", None), "_pool", None)
        return [process.pid for process in getattr(pool, "_pool", ())]


def end_at_once(children: Sequence[int]) -> None:
    """End this process and its children without another word: a shutdown would wait for the loop that does not turn."""
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    logging.shutdown()
    os._exit(EXIT_CODE)
