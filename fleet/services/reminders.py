"""What the clock tells customers: the rental begins soon, the vehicle is late, the hold has ended.

A notice is noted in the transaction that promises it, under the rental, its kind and the time that it is about. So each is
promised once, however often and by however many the sweep is run, and again only when the rental has another time.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fleet import clock, config
from fleet.db import atomic, db
from fleet.models.notifications import DUE_EXPIRED, DUE_OVERDUE, DUE_REMINDERS, NOTE_DUE
from fleet.services import outbox
from fleet.services.retention import first_id_of

# Few at a time: until they commit, whoever wants to change one of these rentals waits.
BATCH, MOST_BATCHES = 50, 100
# A hold lasts a day at most, and what ended longer ago than a day is no news.
_HOLDS_MADE_SINCE = timedelta(days=3)


def promise_due() -> dict[str, int]:
    """Promise every notice that is due, and return how many of each kind. Harmless when two run."""
    now, settings = clock.now(), config.current()
    window = timedelta(hours=settings.reminder_hours)
    grace = timedelta(minutes=settings.overdue_notice_minutes)
    reminders = _in_batches("notifications.rental_reminder", DUE_REMINDERS, {"now": now, "window": window}) if window else 0
    return {
        "rental_reminder": reminders,
        "rental_overdue": _in_batches("notifications.rental_overdue", DUE_OVERDUE, {"now": now, "grace": grace}),
        "rental_expired": _in_batches(
            "notifications.rental_expired", DUE_EXPIRED, {"now": now, "made_since": first_id_of(now - _HOLDS_MADE_SINCE)}
        ),
    }


def _in_batches(topic: str, due: str, values: Mapping[str, Any]) -> int:
    promised = 0
    for _ in range(MOST_BATCHES):
        batch = _promise(topic, due, values)
        promised += batch
        if batch < BATCH:
            break
    return promised


@atomic
def _promise(topic: str, due: str, values: Mapping[str, Any]) -> int:
    kind = topic.partition(".")[2]
    noted = db.rows(NOTE_DUE.format(due=due), {**values, "kind": kind, "limit": BATCH})
    for rental_id, about_at in noted:
        outbox.promise(topic, "rental", rental_id, {"about_at": about_at.isoformat()})
    return len(noted)
