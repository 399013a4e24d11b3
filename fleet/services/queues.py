"""How the queues stand: what waits, how old it is, how fast it goes, who serves it. For the operators' page and for alerts."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import peewee

from fleet import clock
from fleet.auth import Actor
from fleet.gateways.broker import BrokerGauge, Depths
from fleet.models import queues as models
from fleet.models.processes import ProcessReport
from fleet.models.queues import Backlog, Dead, Deliveries, Pace
from fleet.services import audit_chain, processes
from fleet.services.outbox import QUEUES

WINDOW_S = 300.0
# The queue that rings for deliveries. They wait in a table of their own, not in the outbox.
WEBHOOKS = "webhooks"
# One look serves everybody who asks so soon after it.
PAGE_KEEPS_S, SCRAPE_KEEPS_S = 1.0, 5.0


@dataclass(frozen=True)
class Counted:
    """What PostgreSQL knows."""

    backlogs: Sequence[Backlog]
    paces: Sequence[Pace]
    dead: Sequence[Dead]
    deliveries: Deliveries
    processes: Sequence[ProcessReport]
    unsealed_s: float


@dataclass(frozen=True)
class QueueState:
    """One queue, or the whole outbox where `queue` is None. Ages and lags in seconds; None where nobody knows.

    `depth` counts messages in the broker, each of which rings for many promises; the other counts are promises, and
    in `webhooks` deliveries too. Lags and the rate are those of promises, in `webhooks` of deliveries.
    """

    queue: str | None
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


@dataclass(frozen=True)
class Picture:
    """One look at everything. `counted` is None when PostgreSQL did not answer, `depths` when the broker did not."""

    as_of: datetime
    counted: Counted | None
    depths: Depths | None
    trouble: peewee.PeeweeException | None = None

    @property
    def queues(self) -> list[QueueState]:
        """Each queue. There are none without `counted`."""
        return [self._state(backlog) for backlog in self.counted.backlogs] if self.counted else []

    @property
    def outbox(self) -> QueueState | None:
        """All queues together."""
        if not self.counted:
            return None
        ages = [backlog.oldest_age_s for backlog in self.counted.backlogs if backlog.oldest_age_s is not None]
        waiting = sum(backlog.waiting for backlog in self.counted.backlogs)
        due = sum(backlog.due for backlog in self.counted.backlogs)
        return self._state(Backlog(None, waiting, due, max(ages, default=None)))

    def _state(self, backlog: Backlog) -> QueueState:
        assert self.counted is not None  # noqa: S101 - those who call have looked
        name = backlog.queue
        pace = next((pace for pace in self.counted.paces if pace.queue == name), None)
        serving = [process for process in self.counted.processes if name is None or name in process.queues]
        return QueueState(
            queue=name,
            depth=self._depth(name),
            waiting=backlog.waiting,
            due=backlog.due,
            oldest_age_s=backlog.oldest_age_s,
            lag_p50_s=pace and pace.lag_p50_s,
            lag_p99_s=pace and pace.lag_p99_s,
            rate_per_minute=self._rate_per_minute(pace),
            dead=self._dead(name),
            consumers=sum(process.kind == "worker" for process in serving),
            paused=any(process.paused and (name is None or name in process.paused) for process in self.counted.processes),
        )

    def _dead(self, name: str | None) -> int:
        assert self.counted is not None  # noqa: S101 - those who call have looked
        letters = sum(item.letters for item in self.counted.dead if name in {None, item.queue})
        return letters + (self.counted.deliveries.dead if name in {None, WEBHOOKS} else 0)

    def _depth(self, name: str | None) -> int | None:
        if self.depths is None:
            return None
        return sum(self.depths.waiting.values()) if name is None else self.depths.waiting[name]

    def _rate_per_minute(self, pace: Pace | None) -> float:
        assert self.counted is not None  # noqa: S101 - those who call have looked
        if pace is None:
            return 0.0
        whole = pace if pace.queue == WEBHOOKS else next(item for item in self.counted.paces if item.queue is None)
        # Where more was confirmed than is looked at, the newest of it spans less than the window.
        span_s = whole.since_s if whole.confirmed >= models.MOST_CONFIRMED else WINDOW_S
        return pace.confirmed * 60 / max(span_s, 1.0)


class Watch:
    """Looks for whoever asks, one look at a time: ten who ask at once cost no more than one."""

    def __init__(self, broker: BrokerGauge) -> None:
        self._broker = broker
        self._looking = threading.Lock()
        self._picture: Picture | None = None
        self._taken_at = 0.0

    def picture(self, *, keeps_s: float) -> Picture:
        """A picture no older than `keeps_s`. What does not answer is missing in it, and is not waited for long."""
        with self._looking:
            if self._picture is None or time.monotonic() - self._taken_at >= keeps_s:
                self._picture = self._look()
                self._taken_at = time.monotonic()
            return self._picture

    def _look(self) -> Picture:
        asked = self._broker.ask(QUEUES)
        counted, trouble = None, None
        try:
            counted = _count()
        except peewee.PeeweeException as error:
            trouble = error
        return Picture(clock.now(), counted, asked.depths(), trouble)


def seen(actor: Actor, watch: Watch) -> Picture:
    """The queues as they stand. Raises what PostgreSQL says when it does not answer; without the broker, depths are None."""
    picture = watch.picture(keeps_s=PAGE_KEEPS_S)
    if picture.trouble is not None:
        raise picture.trouble
    return picture


def _count() -> Counted:
    deliveries = models.deliveries()
    backlogs = [
        _joined(backlog, deliveries) if backlog.queue == WEBHOOKS else backlog for backlog in models.backlogs(list(QUEUES))
    ]
    paces = [*models.paces(WINDOW_S), *models.delivered(WEBHOOKS, WINDOW_S)]
    return Counted(backlogs, paces, models.dead(), deliveries, processes.running(), audit_chain.waiting_s())


def _joined(backlog: Backlog, deliveries: Deliveries) -> Backlog:
    """The backlog with the deliveries that wait beside it."""
    ages = [age for age in (backlog.oldest_age_s, deliveries.oldest_age_s) if age is not None]
    return Backlog(backlog.queue, backlog.waiting + deliveries.waiting, backlog.due + deliveries.due, max(ages, default=None))
