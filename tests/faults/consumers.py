"""The service's tasks and one consumer more, whose messages say themselves what goes wrong with them.

`celery --app tests.faults.consumers worker` is the service's own worker with that consumer; `python -m tests.faults.consumers`
is its own relay, which knows the topic.
"""

import os
import signal
import sys
import time
from contextlib import suppress

from celery.exceptions import SoftTimeLimitExceeded

from fleet.db import db
from fleet.services.outbox import Message
from tasks import app, delivery, relay

TOPIC = "drills.work"
SOFT_LIMIT_S, HARD_LIMIT_S = 3, 6
AN_HOUR_S = 3600

__all__ = ["app", "work"]


class Poison(Exception):
    """What the consumer raises for a message that it cannot digest."""


@app.task(name=TOPIC, consumes_promises=True, soft_time_limit=SOFT_LIMIT_S, time_limit=HARD_LIMIT_S)
def work(ids: list[str]) -> None:
    """Leave a row for each message, unless it is poison."""
    delivery.together(TOPIC, ids, _take_effect)


@app.task(name="drills.long_work", consumes_promises=True)
def long_work(ids: list[str]) -> None:
    """The same under the service's usual time limits."""
    delivery.together("drills.long_work", ids, _take_effect)


def _take_effect(messages: list[Message]) -> None:
    for message in messages:
        does, _, seconds = message.payload.get("does", "effect").partition(" ")
        if does == "raise":
            raise Poison("for Ana Silva, ana@example.com")
        if does == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if does == "hang":
            time.sleep(AN_HOUR_S)
        if does == "hang_deaf":
            _hang_deaf()
        if does == "sleep":
            # In PostgreSQL: who sleeps beside an open transaction for more than 5 s loses it.
            db.execute_sql("SELECT pg_sleep(%s)", (float(seconds),))
        db.execute_sql("INSERT INTO drill_effect (message_id) VALUES (%s)", (message.id,))


def _hang_deaf() -> None:
    while True:
        with suppress(SoftTimeLimitExceeded):
            time.sleep(AN_HOUR_S)


if __name__ == "__main__":
    sys.exit(relay.main())
