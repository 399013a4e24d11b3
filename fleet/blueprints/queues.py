"""/admin/queues"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

from flask import Blueprint, current_app, g

from fleet.http import Answer, answer, operation, shape
from fleet.parsing import View
from fleet.services import queues
from fleet.services.queues import Picture

bp = Blueprint("queues", __name__, url_prefix="/admin/queues")


class OutboxView(View):
    """All queues together. Promises are counted, but for `depth`: messages in the broker, each of which rings for many.

    `waiting` are neither confirmed nor dead (counted up to 50000 a queue), `due` those of them that no relay has taken. Lags
    go from promise to confirmation; they and the rate cover the last five minutes. `depth` is null when the broker does not
    answer. Webhook deliveries count as promises of `webhooks`: `waiting` to endpoints that are enabled, `due` where the
    endpoint does not rest, the oldest by how long it has been due, `dead` until they are redelivered or forgotten. Their lags
    go from when they were due to their delivery, and leave out endpoints that are slow or failed in the hour before.
    """

    depth: int | None
    waiting: int
    due: int
    oldest_age_s: float | None
    lag_p50_s: float | None
    lag_p99_s: float | None
    rate_per_minute: float
    dead: int
    consumers: int
    paused: bool


class QueueView(OutboxView):
    queue: str


class BrokerView(View):
    """Redis tells how many messages workers hold, RabbitMQ does not."""

    answers: bool
    unacknowledged: int | None


class ProcessView(View):
    """A relay or worker that reported within 15 seconds."""

    name: str
    kind: str
    reported_at: datetime
    queues: list[str]
    paused: list[str]


class QueuesView(View):
    as_of: datetime
    broker: BrokerView
    outbox: OutboxView
    queues: list[QueueView]
    processes: list[ProcessView]


@bp.get("")
@operation("queues.read", answer=QueuesView, cost=3)
def show() -> Answer:
    """Show how the queues stand: depth, backlog, age, lag, rate, dead letters, consumers."""
    return answer(_shaped(queues.seen(g.actor, current_app.extensions["fleet"].watch)))


def _shaped(picture: Picture) -> dict[str, Any]:
    assert picture.counted is not None and picture.outbox is not None  # noqa: S101 - it would have raised
    whole = asdict(picture.outbox)
    del whole["queue"]
    return {
        "as_of": picture.as_of,
        "broker": {
            "answers": picture.depths is not None,
            "unacknowledged": picture.depths.unacknowledged if picture.depths else None,
        },
        "outbox": whole,
        "queues": [asdict(state) for state in picture.queues],
        "processes": [shape(ProcessView, process) for process in picture.counted.processes],
    }
