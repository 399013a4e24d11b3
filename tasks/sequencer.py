"""Puts committed events in their order, beside the relay: whoever reads the stream needs no broker, and waits for none."""

import logging
import threading

import peewee

from fleet.db import db
from fleet.services import events
from tasks.troubles import Troubles

log = logging.getLogger("tasks.sequencer")

POLL_S = 0.05
STOP_S = 2.0


class SequencerDied(Exception):
    """The thread has ended by an error of ours; the process has to end too, so that another one takes over."""


class Sequencer:
    """A thread with a connection of its own. The relay's calls may wait for a broker for seconds; this one's never do."""

    def __init__(self) -> None:
        self._troubles = Troubles("sequencer", log)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)

    def start(self) -> None:
        """Begin, every POLL_S."""
        self._thread.start()

    def check(self) -> None:
        """Raises SequencerDied: nobody would notice the silence of a thread."""
        if not self._thread.is_alive():
            raise SequencerDied

    def stop(self) -> None:
        """End after the batch in hand."""
        self._stopping.set()
        self._thread.join(STOP_S)

    def turn(self) -> float:
        """Place one batch; returns how long to wait for the next turn, in seconds."""
        self._troubles.begin()
        placed = 0
        try:
            placed = events.put_in_order()
        except peewee.PeeweeException as error:
            self._troubles.note(error)
        return self._troubles.end(0.0 if placed >= events.PLACED_AT_ONCE else POLL_S)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self.turn()):
                continue
        finally:
            db.close()
