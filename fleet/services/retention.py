"""Forgetting what has served its purpose, in bounded batches: each commits by itself and locks nothing that is in use."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from fleet import clock
from fleet.auth import SESSION_LIFETIME
from fleet.clock import first_id_of
from fleet.db import db
from fleet.idempotency import FORGET_ANSWERS, KEPT_HOURS
from fleet.models.access import FORGET_FAILURES, FORGET_SESSIONS, FORGET_TOKENS
from fleet.models.promises import FORGET_CONFIRMED, FORGET_DISCARDED, FORGET_RECEIVED
from fleet.rules.throttle import HEALS_AFTER

# Confirmed promises are the record of what was sent when. Their inbox rows stay a day longer: a message that is still on
# its way finds at least one of the two, and does nothing.
CONFIRMED_KEPT = timedelta(days=7)
RECEIVED_KEPT = CONFIRMED_KEPT + timedelta(days=1)
# Long enough for whoever misses something to ask where it went; the audit log knows for ever.
DISCARDED_KEPT = timedelta(days=180)
# A session that is over tells for a while when it was used and why it ended.
SESSIONS_KEPT = timedelta(days=30)
BATCH, MOST_BATCHES = 2000, 100


def forget_old() -> dict[str, int]:
    """Delete promises, inbox rows, answers, sessions and failed sign-ins past their time; returns how many of each.

    Dead promises are kept until a person replays or discards them. Does at most MOST_BATCHES batches of each; the next run
    goes on.
    """
    now = clock.now()
    return {
        "outbox": _in_batches(FORGET_CONFIRMED, {"before": now - CONFIRMED_KEPT}),
        "inbox": _in_batches(
            FORGET_RECEIVED, {"before": now - RECEIVED_KEPT, "first_id": first_id_of(now - RECEIVED_KEPT)}
        ),
        "discarded": _in_batches(FORGET_DISCARDED, {"before": now - DISCARDED_KEPT}),
        "idempotency_record": _in_batches(FORGET_ANSWERS, {"before": now - timedelta(hours=KEPT_HOURS)}),
        "user_session": _in_batches(FORGET_SESSIONS, {"before": now - SESSIONS_KEPT}),
        "refresh_token": _in_batches(FORGET_TOKENS, {"before": now - SESSION_LIFETIME}),
        "login_throttle": _in_batches(FORGET_FAILURES, {"before": now - HEALS_AFTER}),
    }


def _in_batches(statement: str, values: Mapping[str, Any]) -> int:
    forgotten = 0
    for _ in range(MOST_BATCHES):
        batch = db.execute_sql(statement, {**values, "limit": BATCH}).rowcount
        forgotten += batch
        if batch < BATCH:
            break
    return forgotten
