"""How a worker ends when it is told to: it takes nothing more, finishes what it can in SOFT_S, and gives back the rest.

Celery does this inside its signal handler, on top of whatever the main loop was doing in that instant. Where that was an event
on its way to Flower, the handler waits for ever for the lock that the interrupted code below it holds. It also sleeps out its
whole time, in which nobody hears of tasks that have ended, so that they are done again. Here the handler writes one byte, the
main loop reads it where it holds no lock, and goes on turning until the work is done.
"""

import logging
import os
import signal
import time
from typing import Any

from celery import bootsteps
from celery.worker import state
from kombu.common import ignore_errors

from tasks.lanes import Lanes

log = logging.getLogger("tasks.ending")

SOFT_S = 20.0  # platforms kill 30 s after TERM
LOOK_EVERY_S = 0.1
SIGNALS = (signal.SIGTERM, signal.SIGQUIT)


class Ending(bootsteps.StartStopStep):
    """The part of the worker's main process that hears signals and lets the work end."""

    requires = (Lanes,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        # Without an event loop (the solo pool, Windows) Celery's own way has to do.
        self.enabled = bool(consumer.controller.use_eventloop)
        self._celerys: dict[int, Any] = {}
        self._turning = False
        self._heard_before = b""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def start(self, consumer: Any) -> None:
        """Put our handlers in the place of Celery's, once."""
        if not self._celerys:
            self._celerys = {number: signal.signal(number, self._hear) for number in SIGNALS}

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """From here on the main loop turns; also again, after the connection was lost and all of before is gone."""
        hub.add_reader(self._reader, self._end, consumer, hub)
        self._turning = True

    def stop(self, consumer: Any) -> None:
        """The loop turns no more, as when the broker is away: what was heard is Celery's to do, and what will be."""
        self._turning = False
        for number in [*self._heard(), *self._heard_before]:
            self._let_celery_end(number)

    shutdown = stop

    def _hear(self, number: int, frame: Any) -> None:
        if self._turning:
            os.write(self._writer, bytes([number]))
        else:
            self._celerys[number](number, frame)

    def _heard(self) -> bytes:
        try:
            return os.read(self._reader, 64)
        except BlockingIOError:
            return b""

    def _end(self, consumer: Any, hub: Any) -> None:
        heard = self._heard()
        if self._heard_before:  # told twice
            return self._let_celery_end(heard[0])
        self._heard_before = heard
        log.info("worker takes nothing more", extra={"at_work": len(state.active_requests)})
        ignore_errors(consumer, consumer.task_consumer.cancel)
        consumer.lanes.stop(consumer)
        hub.call_repeatedly(LOOK_EVERY_S, self._look, heard[0], time.monotonic() + SOFT_S)
        return None

    def _look(self, number: int, until: float) -> None:
        at_work = len(state.active_requests)
        if not at_work or time.monotonic() >= until:
            log.info("worker ends", extra={"given_back": at_work})
            self._let_celery_end(number)

    def _let_celery_end(self, number: int) -> None:
        """Celery's cold shutdown: what is at work is cancelled, and its messages go back to the broker."""
        if state.should_terminate is None:
            self._celerys[number](number, None)
