"""What a drill has in hand: the stage, its own chance, and the promises that it makes."""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from celery import Celery

from fleet import clock
from fleet.services import outbox
from tests.faults.clients import Client, Wishes, all_at_once
from tests.faults.evidence import Heard
from tests.faults.outsiders import Reader
from tests.faults.stage import Stage, StageBroken

LAPSE_EVERY_S = 1.0
KEY_PREFIX = "fleet:"

_LAPSE = """UPDATE outbox SET next_attempt_at = now()
WHERE next_attempt_at > now() AND confirmed_at IS NULL AND dead_at IS NULL"""
THESE = f"{_LAPSE} AND id = ANY (%(ids)s::uuid[])"
LETTERS = f"""{_LAPSE} AND queue = 'notifications' AND last_error IS NOT NULL
AND NOT EXISTS (SELECT FROM notification n WHERE n.id = outbox.id AND n.status = 'sending')"""
REFUNDS = f"{_LAPSE} AND topic = 'payments.send_refund' AND last_error IS NOT NULL"
HOOKS = """
UPDATE webhook_health SET rest_until = NULL WHERE rest_until > now();
UPDATE webhook_delivery SET next_attempt_at = now() WHERE status = 'retrying' AND next_attempt_at > now()
"""


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
    hurry: str = ""  # whose back-off passes in seconds once all is healed: LETTERS, REFUNDS or HOOKS
    readers: list[Reader] = field(default_factory=list)

    def chosen(self, full: float, short: float) -> float:
        """A length or a count for a full run, or for the short one."""
        return full if self.full else short

    def pause(self, at_least_s: float, at_most_s: float) -> None:
        """Wait for a while that the seed chooses."""
        time.sleep(self.rng.uniform(at_least_s, at_most_s))

    def client(self, number: int, *, drops: float = 0, pays: bool = False) -> Client:
        chance = random.Random(self.rng.random())
        return Client(self.stage, self.wishes, self.drill, number, chance, drops=drops, pays=pays)

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

    def promise(
        self, does: Sequence[str], *, topic: str = "drills.work", queue: str = "default", deliveries: int = 0
    ) -> list[str]:
        """Promise work that does what is said, in one transaction; `deliveries` of it are used up already."""
        ids = [f"{clock.new_id()}" for _ in does]
        payloads = [json.dumps({"does": what}) for what in does]
        rows = [(one, topic, queue, "drill", one, load, deliveries) for one, load in zip(ids, payloads, strict=True)]
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
        """Two people replay the dead letter at once by the API, and it is rung for twice besides."""
        people = [self.client(number) for number in (70, 71)]
        path = f"/admin/dead-letters/{letter}/replay"
        seen = all_at_once([partial(person.insist, "replay", path, None) for person in people])
        self.ring("drills.work", [letter], times=2)
        self.expect(any(one.acknowledged for one in seen), f"nobody could replay the letter: {[one.status for one in seen]}")
        for person in people:
            person.hang_up()

    # --- those outside ------------------------------------------------------------------------------------------------

    def listen(self) -> Heard:
        """Have every event from here on sent to a receiver of this drill."""
        path, client = f"/{self.drill}/{len(self.stage.hooks.heard)}", self.client(60)
        self.stage.hooks.heard[path] = heard = Heard("", 0)
        made = client.insist("listen", "/v1/webhook-endpoints", {"url": self.stage.hooks.url + path})
        client.hang_up()
        if not made.acknowledged:
            raise StageBroken(f"{self.drill}: no endpoint: {made.status} {made.answer}")
        # Whatever gets its place after the answer is for this endpoint; what got it shortly before may be.
        heard.endpoint_id, heard.after = made.document["id"], self.stage.position()
        return heard

    def read_along(self, readers: int) -> None:
        """Let so many readers follow the event stream until all has come to rest."""
        after = self.stage.position()
        self.readers += [Reader(self.client(50 + number), after) for number in range(readers)]

    def ended(self, ids: Sequence[str]) -> int:
        """How many of these promises have ended."""
        ended = "SELECT count(*) FROM outbox WHERE id = ANY (%s::uuid[]) AND coalesce(confirmed_at, dead_at) IS NOT NULL"
        return int(self.stage.sql(ended, (list(ids),))[0][0])

    def books_do_not_wait(self) -> None:
        """Prove that work in the queue of the books is done at once."""
        started = time.monotonic()
        others = self.promise(["effect"], queue="accounting")
        while not self.ended(others) and time.monotonic() < started + 60:
            time.sleep(0.05)
        waited_s = time.monotonic() - started
        self.remarks.append(f"the books waited {waited_s:.1f} s")
        self.expect(waited_s < 5, f"the books waited {waited_s:.0f} s")

    def let_leases_pass(self) -> None:
        """In a short run: what was claimed is due again, and letters in hand count as lost, as after minutes of waiting."""
        if not self.full:
            self.leases_pass = True
            self.stage.sql("UPDATE notification SET attempted_at = now() - interval '1 hour' WHERE status = 'sending'")
            self.stage.sql("UPDATE outbox SET next_attempt_at = now() WHERE confirmed_at IS NULL AND dead_at IS NULL")
            self.stage.sql("UPDATE webhook_delivery SET leased_until = now() WHERE leased_until > now()")
            self.stage.sql("UPDATE payment SET attempt_ends_at = now() WHERE status = 'pending' AND attempt_ends_at > now()")

    @contextmanager
    def time_lapse(self, what: str, ids: Sequence[str] = ()) -> Iterator[None]:
        """Let hours of back-off pass in seconds: of THESE promises, LETTERS that nobody has in hand, REFUNDS or HOOKS."""
        stopping = threading.Event()

        def hurry() -> None:
            while what and not stopping.wait(LAPSE_EVERY_S):
                self.stage.sql(what, {"ids": list(ids)})

        thread = threading.Thread(target=hurry, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join()
