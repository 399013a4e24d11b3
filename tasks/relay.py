"""`python -m tasks.relay`: carries promises from PostgreSQL to the broker. Two or more may run; each claims what others do not.

It claims what is due for the length of a lease, commits, and only then publishes. Killed in between, it has lost nothing: the
lease ends. It reads the outbox every POLL_S and is woken neither by NOTIFY, which would cost the reservations a lock at commit,
nor by a nudge after it, which would save 20 ms (decision 10); a pause so short also makes batches, and a batch costs Celery no
more than a single promise.
"""

import logging
import signal
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import Any

import peewee

from fleet.config import ConfigError
from fleet.db import db
from fleet.services import outbox, processes
from fleet.services.outbox import Claimed
from tasks import app, topics, webhooks
from tasks.backpressure import Backpressure
from tasks.broker import Broker, BrokerAway
from tasks.sequencer import Sequencer
from tasks.troubles import RECOVERY_S, Troubles
from tasks.wiring import settings, share_breakers, wire

log = logging.getLogger("tasks.relay")

POLL_S = 0.05
REPORT_EVERY_S = 10.0
TELL_EVERY_S = 5.0
CLAIM_LIMIT = 500
# Promises that one message rings for. What is slow goes in small batches: several workers then share a backlog of it.
BATCH = {"notifications": 10, "webhooks": 10, "default": 10}
USUAL_BATCH = 200


class Relay:
    """One relay; `run` returns after `stop`."""

    def __init__(self, broker: Broker, *, known: Collection[str], limits: Mapping[str, int]) -> None:
        self._broker = broker
        self._known = known
        self._pressure = Backpressure(broker, limits)
        self._name = processes.name_of_this("relay")
        self._relayed: Counter[str] = Counter()
        self._since_start: Counter[str] = Counter()
        self._tell_at = 0.0
        self._reported_at = time.monotonic()
        self._troubles = Troubles("relay", log)
        self._sequencer = Sequencer()
        self._stopping = False

    def stop(self, *_: Any) -> None:
        """End after the batch in hand. Safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Relay until stopped, whatever goes away and comes back meanwhile. Raises SequencerDied."""
        log.info("relay started", extra={"topics": sorted(self._known)})
        self._sequencer.start()
        while not self._stopping:
            self._sequencer.check()
            time.sleep(self._careful_turn())
            self._report(every_s=REPORT_EVERY_S)
            self._tell()
        self._sequencer.stop()
        self._report(every_s=0)
        self._broker.close()
        db.close()
        log.info("relay stopped")

    def turn(self) -> bool:
        """Ring for webhooks, then claim once and publish; returns whether a queue had more to claim.

        What the database refuses of the first is noted, and keeps no promise waiting. Raises BrokerAway, peewee's errors.
        """
        free = self._pressure.room()
        try:
            self._ring_for_webhooks(free.get(webhooks.QUEUE, 0))
        except peewee.PeeweeException as error:
            self._troubles.note(error)
        return self._relay(free)

    def _relay(self, free: Mapping[str, int]) -> bool:
        room = {queue: min(CLAIM_LIMIT, messages * _batch_size(queue)) for queue, messages in free.items()}
        claimed = outbox.claim_due(room)
        unknown = [promise for promise in claimed if promise.topic not in self._known]
        if unknown:
            self._leave_to_others(unknown)
        self._publish([promise for promise in claimed if promise.topic in self._known])
        found = Counter(promise.queue for promise in claimed)
        return any(count >= room[queue] for queue, count in found.items())

    def _ring_for_webhooks(self, messages: int) -> None:
        rung = webhooks.ring(self._broker, limit=min(CLAIM_LIMIT, messages)) if messages > 0 else 0
        if rung:
            self._relayed[webhooks.TOPIC] += rung
            self._since_start[webhooks.TOPIC] += rung

    def _careful_turn(self) -> float:
        """One turn; returns how long to pause after it, in seconds."""
        self._troubles.begin()
        more = False
        try:
            more = self.turn()
        except (BrokerAway, peewee.PeeweeException) as error:
            self._troubles.note(error)
        pause_s = self._troubles.end(POLL_S)
        return 0.0 if more else pause_s

    def _publish(self, claimed: Sequence[Claimed]) -> None:
        unsent = {promise.id for promise in claimed}
        try:
            for batch in _batches(claimed):
                topic, queue = batch[0].topic, batch[0].queue
                self._broker.publish(topic, queue, [promise.id for promise in batch])
                unsent.difference_update(promise.id for promise in batch)
                self._pressure.published(queue)
                self._relayed[topic] += len(batch)
                self._since_start[topic] += len(batch)
        except BrokerAway:
            # Without this they would wait for the end of a lease that nobody uses.
            outbox.release(sorted(unsent), delay_s=RECOVERY_S)
            raise

    def _leave_to_others(self, unknown: Sequence[Claimed]) -> None:
        dead = outbox.leave_to_others([promise.id for promise in unknown])
        names = sorted({promise.topic for promise in unknown})
        log.warning("no consumer here", extra={"topics": names, "count": len(unknown)})
        if dead:
            log.error("dead letters: no consumer", extra={"topics": sorted(set(dead)), "count": len(dead)})

    def _tell(self) -> None:
        """Let the operators' page know that this relay runs. It runs as well when nobody can be told."""
        if time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + TELL_EVERY_S
        with suppress(peewee.PeeweeException):
            processes.report(
                self._name, "relay", queues=outbox.QUEUES, paused=self._pressure.paused(), handled=self._since_start
            )

    def _report(self, *, every_s: float) -> None:
        if time.monotonic() - self._reported_at < every_s:
            return
        if self._relayed:
            log.info("relayed", extra={"promises": dict(self._relayed), "paused": self._pressure.paused()})
        self._relayed.clear()
        self._reported_at = time.monotonic()


def _batches(claimed: Sequence[Claimed]) -> Iterator[list[Claimed]]:
    """Promises of one topic, in the order in which they were made, as many as one message rings for."""
    for _, same in groupby(sorted(claimed, key=attrgetter("topic", "id")), key=attrgetter("topic")):
        promises = list(same)
        size = _batch_size(promises[0].queue)
        for start in range(0, len(promises), size):
            yield promises[start : start + size]


def _batch_size(queue: str) -> int:
    return BATCH.get(queue, USUAL_BATCH)


def main() -> int:
    """Run one relay until SIGTERM or SIGINT. Returns the exit code."""
    try:
        wire()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    relay = Relay(Broker(app), known=topics(), limits=settings().queue_limits)
    signal.signal(signal.SIGTERM, relay.stop)
    signal.signal(signal.SIGINT, relay.stop)
    share_breakers("relay")
    relay.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
