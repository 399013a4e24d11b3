"""What a drill has in hand: the stage, its own chance, and the promises that it makes."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from celery import Celery

from fleet import clock
from fleet.services import outbox
from tests.faults.clients import Client, Wishes, all_at_once
from tests.faults.stage import Stage, StageBroken

LAPSE_EVERY_S = 1.0
KEY_PREFIX = "fleet:"

_LAPSE = """
UPDATE outbox SET next_attempt_at = now()
WHERE {chosen} AND next_attempt_at > now() AND confirmed_at IS NULL AND dead_at IS NULL
"""
_THESE = "id = ANY (%(ids)s::uuid[])"
_LETTERS = """queue = 'notifications' AND last_error IS NOT NULL
AND NOT EXISTS (SELECT FROM notification n WHERE n.id = outbox.id AND n.status = 'sending')"""


@dataclass
class Scene:
    """One performance of one drill."""

    stage: Stage
    wishes: Wishes
    drill: str
    rng: random.Random
    full: bool
    faults: int = 0
    poison: set[str] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    leases_pass: bool = False  # whether leases ended before their time
    hurry_letters: bool = False  # whether their back-off passes in seconds once all is healed

    def chosen(self, full: float, short: float) -> float:
        """A length or a count for a full run, or for the short one."""
        return full if self.full else short

    def pause(self, at_least_s: float, at_most_s: float) -> None:
        """Wait for a while that the seed chooses."""
        time.sleep(self.rng.uniform(at_least_s, at_most_s))

    def client(self, number: int, *, drops: float = 0) -> Client:
        return Client(self.stage, self.wishes, self.drill, number, random.Random(self.rng.random()), drops=drops)

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note what is wrong unless `holds`."""
        if not holds:
            self.wrong.append(otherwise)

    def until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until it is done. Raises StageBroken."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                raise StageBroken(f"{self.drill}: no {what} within {seconds:.0f} s")
            time.sleep(0.02)

    # --- promises -----------------------------------------------------------------------------------------------------

    def promise(self, does: Sequence[str], *, topic: str = "drills.work", deliveries: int = 0) -> list[str]:
        """Promise work that does what is said, in one transaction; `deliveries` of it are used up already."""
        ids = [f"{clock.new_id()}" for _ in does]
        payloads = [json.dumps({"does": what}) for what in does]
        rows = [(one, topic, "default", "drill", one, load, deliveries) for one, load in zip(ids, payloads, strict=True)]
        marks = ", ".join(["(%s, %s, %s, %s, %s, %s, %s)"] * len(rows))
        columns = "id, topic, queue, aggregate_type, aggregate_id, payload, deliveries"
        self.stage.sql(f"INSERT INTO outbox ({columns}) VALUES {marks}", [value for row in rows for value in row])
        return ids

    def ring(self, topic: str, *arguments: list[str], times: int = 1) -> None:
        """Put messages into the broker, past the relay."""
        ringer = Celery("drills", broker=self.stage.running.redis_url, set_as_current=False)
        ringer.conf.broker_transport_options = {"global_keyprefix": KEY_PREFIX}
        with ringer.connection_for_write() as connection, ringer.amqp.Producer(connection) as producer:
            for _ in range(times):
                ringer.send_task(topic, arguments, queue=outbox.queue_of(topic), producer=producer)

    def replay_twice(self, letter: str) -> None:
        """Two people bring the dead letter back at once, and ring for it besides."""
        revived = "UPDATE outbox SET dead_at = NULL, deliveries = 0, next_attempt_at = now() WHERE id = %s"
        all_at_once([lambda: self.stage.sql(revived, (letter,))] * 2)
        self.ring("drills.work", [letter], times=2)

    def ended(self, ids: Sequence[str]) -> int:
        """How many of these promises have ended."""
        ended = "SELECT count(*) FROM outbox WHERE id = ANY (%s::uuid[]) AND coalesce(confirmed_at, dead_at) IS NOT NULL"
        return int(self.stage.sql(ended, (list(ids),))[0][0])

    def let_leases_pass(self) -> None:
        """In a short run: what was claimed is due again, and letters in hand count as lost, as after minutes of waiting."""
        if not self.full:
            self.leases_pass = True
            self.stage.sql("UPDATE notification SET attempted_at = now() - interval '1 hour' WHERE status = 'sending'")
            self.stage.sql("UPDATE outbox SET next_attempt_at = now() WHERE confirmed_at IS NULL AND dead_at IS NULL")

    @contextmanager
    def time_lapse(self, ids: Sequence[str] | None = None) -> Iterator[None]:
        """Let hours of back-off pass in seconds: that of these promises, or of letters that nobody has in hand."""
        chosen = _THESE if ids is not None else _LETTERS
        stopping = threading.Event()

        def hurry() -> None:
            while not stopping.wait(LAPSE_EVERY_S):
                self.stage.sql(_LAPSE.format(chosen=chosen), {"ids": list(ids or ())})

        thread = threading.Thread(target=hurry, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
