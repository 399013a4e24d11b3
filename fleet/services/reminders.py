"""What the clock tells customers: the rental begins soon, the vehicle is late, the hold has ended.

A notice is noted in the transaction that promises it, under the rental, its kind and the time that it is about. So each is
promised once, however often and by however many the sweep is run, and again only when the rental has another time.
"""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fleet import clock, config
from fleet.db import atomic, db
from fleet.models.notifications import DUE_EXPIRED, DUE_OVERDUE, DUE_REMINDERS, NOTE_DUE
from fleet.services import outbox
from fleet.services.retention import first_id_of

# Few at a time: until they commit, whoever wants to change one of these rentals waits.
BATCH = 50
BUDGET_S = 2.0
"""How long one run may take: others wait for its worker, and the next run goes on."""
# A hold lasts a day at most, and what ended longer ago than a day is no news.
_HOLDS_MADE_SINCE = timedelta(days=3)


def promise_due() -> dict[str, int]:
    """Promise every notice that is due, and return how many of each kind. Harmless when two run.

    Takes a batch of each kind in turn until nothing is left or BUDGET_S is over: many of one kind hold up no other.
    """
    due = _due()
    promised, unfinished, deadline = dict.fromkeys(due, 0), list(due), time.monotonic() + BUDGET_S
    while unfinished and time.monotonic() < deadline:
        for topic in list(unfinished):
            batch = _promise(topic, *due[topic])
            promised[topic] += batch
            if batch < BATCH:
                unfinished.remove(topic)
    return {topic.partition(".")[2]: count for topic, count in promised.items()}


def _due() -> dict[str, tuple[str, Mapping[str, Any]]]:
    """By topic: what finds the rentals, and its values."""
    now, settings = clock.now(), config.current()
    window = timedelta(hours=settings.reminder_hours)
    grace = timedelta(minutes=settings.overdue_notice_minutes)
    reminders = {"notifications.rental_reminder": (DUE_REMINDERS, {"now": now, "window": window})} if window else {}
    return {
        **reminders,
        "notifications.rental_overdue": (DUE_OVERDUE, {"now": now, "grace": grace}),
        "notifications.rental_expired": (DUE_EXPIRED, {"now": now, "made_since": first_id_of(now - _HOLDS_MADE_SINCE)}),
    }


@atomic
def _promise(topic: str, due: str, values: Mapping[str, Any]) -> int:
    kind = topic.partition(".")[2]
    noted = db.rows(NOTE_DUE.format(due=due), {**values, "kind": kind, "limit": BATCH})
    for rental_id, about_at in noted:
        outbox.promise(topic, "rental", rental_id, {"about_at": about_at.isoformat()})
    return len(noted)
