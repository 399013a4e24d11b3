"""Forgetting what has served its purpose, in bounded batches: each commits by itself and locks nothing that is in use."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from fleet import clock
from fleet.auth import SESSION_LIFETIME
from fleet.db import db
from fleet.idempotency import FORGET_ANSWERS, KEPT_HOURS
from fleet.models.access import FORGET_FAILURES, FORGET_SESSIONS, FORGET_TOKENS
from fleet.models.events import FORGET_EVENTS
from fleet.models.promises import FORGET_CONFIRMED, FORGET_RECEIVED
from fleet.models.webhooks import FORGET_DELIVERIES
from fleet.rules.throttle import HEALS_AFTER

# Confirmed promises are the record of what was sent when. Their inbox rows stay a day longer: a message that is still on
# its way finds at least one of the two, and does nothing.
CONFIRMED_KEPT = timedelta(days=7)
RECEIVED_KEPT = CONFIRMED_KEPT + timedelta(days=1)
# A session that is over tells for a while when it was used and why it ended.
SESSIONS_KEPT = timedelta(days=30)
# How long a reader of the stream may have been away; longer than what the table's guard asks for.
EVENTS_KEPT = timedelta(days=90)
# Whatever became of them; what still waits after so long waits for an endpoint that was switched off or removed.
DELIVERIES_KEPT = timedelta(days=30)
BATCH, MOST_BATCHES = 2000, 100


def forget_old() -> dict[str, int]:
    """Delete what is past its time; returns how many rows of each table.

    Dead promises are kept: they wait for a person. Does at most MOST_BATCHES batches of each; the next run goes on.
    """
    now = clock.now()
    return {
        "outbox": _in_batches(FORGET_CONFIRMED, {"before": first_id_of(now - CONFIRMED_KEPT)}),
        "inbox": _in_batches(FORGET_RECEIVED, {"before": first_id_of(now - RECEIVED_KEPT)}),
        "idempotency_record": _in_batches(FORGET_ANSWERS, {"before": now - timedelta(hours=KEPT_HOURS)}),
        "user_session": _in_batches(FORGET_SESSIONS, {"before": now - SESSIONS_KEPT}),
        "refresh_token": _in_batches(FORGET_TOKENS, {"before": now - SESSION_LIFETIME}),
        "login_throttle": _in_batches(FORGET_FAILURES, {"before": now - HEALS_AFTER}),
        "webhook_delivery": _in_batches(FORGET_DELIVERIES, {"before": first_id_of(now - DELIVERIES_KEPT)}),
        "event": _in_batches(FORGET_EVENTS, {"before": first_id_of(now - EVENTS_KEPT)}),
    }


def first_id_of(instant: datetime) -> UUID:
    """The least UUID of version 7 that this millisecond can give (RFC 9562, section 5.7): ids below it are older."""
    return UUID(int=(int(instant.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62))


def _in_batches(statement: str, values: Mapping[str, Any]) -> int:
    forgotten = 0
    for _ in range(MOST_BATCHES):
        batch = db.execute_sql(statement, {**values, "limit": BATCH}).rowcount
        forgotten += batch
        if batch < BATCH:
            break
    return forgotten
