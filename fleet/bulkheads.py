"""Bulkheads: how many threads of a process one dependency may hold at once, so that a slow one does not take them all."""

import threading

from fleet import metrics


class Full(Exception):
    """As many are inside as may be. Whoever comes is told so at once: to wait would hold a thread too."""


class Bulkhead:
    """At most `most` at once. Whoever has entered leaves, whatever happened inside."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._places = threading.BoundedSemaphore(most)

    def enter(self) -> None:
        """Raises Full."""
        if not self._places.acquire(blocking=False):
            metrics.TURNED_AWAY.labels(self._name).inc()
            raise Full(self._name)

    def leave(self) -> None:
        self._places.release()
