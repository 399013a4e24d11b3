"""Lanes: how many of a worker's children the slow queues may keep busy, so that the quick ones never wait for them.

Celery takes messages as they come, as many as it has children: two web hooks that run into their timeouts would keep the ledger
waiting. Here each slow queue is consumed on a channel of its own with a prefetch of its own, which broker and worker keep to:
a lane never has more messages in the worker than that, and one child at least is left to the quick queues.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from celery import bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu.common import ignore_errors

# What talks to the outside, each call with timeouts of many seconds.
SLOW = (("notifications",), ("webhooks", "default"))


class Lane(NamedTuple):
    """Queues that share so many of the worker's children."""

    queues: tuple[str, ...]
    children: int


def lanes(served: Sequence[str], children: int) -> list[Lane]:
    """The lanes of the slow among the served queues; none where there is nothing to keep apart.

    Where there are too few children for a lane each, the slow queues share one, turn by turn.
    """
    groups = [tuple(queue for queue in group if queue in served) for group in SLOW]
    slow = [group for group in groups if group]
    quick = sum(map(len, slow)) < len(served)
    if not slow or len(served) == 1:
        return []
    spare = max(1, children - quick)
    if spare < len(slow):
        return [Lane(tuple(queue for group in slow for queue in group), spare)]
    each, left_over = divmod(spare, len(slow))
    return [Lane(group, each + (place < left_over)) for place, group in enumerate(slow)]


class Lanes(bootsteps.StartStopStep):
    """The part of the worker that consumes the slow queues, beside Celery's own, which is left with the quick ones."""

    requires = (Tasks,)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        known = consumer.app.amqp.queues
        # Without an event loop (the solo pool, Windows) there is one task at a time and nothing to keep apart.
        served = dict(known.consume_from) if consumer.controller.use_eventloop else {}
        self._lanes = [
            (lane, [served[name] for name in lane.queues]) for lane in lanes(list(served), consumer.controller.concurrency)
        ]
        self._consumers: list[Any] = []
        consumer.lanes = self
        known.deselect([name for lane, _ in self._lanes for name in lane.queues])

    def start(self, consumer: Any) -> None:
        """Nothing yet: RabbitMQ delivers at once, while Celery is still on its way to where it can take a message."""

    def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
        """Begin to consume, as Celery does in this moment; also after the connection was lost and all of before is gone."""
        self._consumers = [self._consume(consumer, lane.children, queues) for lane, queues in self._lanes]

    def stop(self, consumer: Any) -> None:
        """Take no more. The channels stay: what is in hand is acknowledged through them."""
        for one in self._consumers:
            ignore_errors(consumer, one.cancel)

    shutdown = stop

    def _consume(self, consumer: Any, children: int, queues: list[Any]) -> Any:
        one = consumer.app.amqp.TaskConsumer(
            consumer.connection.channel(),
            queues=queues,
            on_decode_error=consumer.on_decode_error,
            on_message=consumer.create_task_handler(),
            prefetch_count=children,
        )
        one.consume()
        return one
