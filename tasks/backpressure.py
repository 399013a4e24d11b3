"""How much each queue takes. What does not fit waits in PostgreSQL, where it costs nothing and the oldest goes first."""

import logging
import time
from collections.abc import Mapping

from fleet.services import outbox
from tasks.broker import Broker

log = logging.getLogger("tasks.backpressure")

LOOK_EVERY_S = 0.5


class Backpressure:
    """Pauses a queue that is as long as its limit, in messages, until it is half as long."""

    def __init__(self, broker: Broker, limits: Mapping[str, int]) -> None:
        self._broker = broker
        self._limits = limits
        self._depths = dict.fromkeys(outbox.QUEUES, 0)
        self._paused: set[str] = set()
        self._look_at = 0.0

    def room(self) -> dict[str, int]:
        """How many messages each open queue takes. Raises BrokerAway, so that nothing is claimed in vain."""
        if time.monotonic() >= self._look_at:
            self._depths = {queue: self._broker.depth(queue) for queue in outbox.QUEUES}
            self._look_at = time.monotonic() + LOOK_EVERY_S
        for queue, depth in self._depths.items():
            self._judge(queue, depth)
        return {queue: self._limits[queue] - depth for queue, depth in self._depths.items() if queue not in self._paused}

    def published(self, queue: str) -> None:
        """Count a message of our own until the next look."""
        self._depths[queue] += 1

    def paused(self) -> list[str]:
        """The queues that take no more at the moment."""
        return sorted(self._paused)

    def _judge(self, queue: str, depth: int) -> None:
        limit = self._limits[queue]
        if queue not in self._paused and depth >= limit:
            self._paused.add(queue)
            log.warning("queue paused", extra={"queue": queue, "depth": depth})
        elif queue in self._paused and depth <= limit // 2:
            self._paused.discard(queue)
            log.info("queue resumed", extra={"queue": queue, "depth": depth})
