"""Forgetting what has served its purpose, in bounded batches: each commits by itself and locks nothing that is in use."""

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import peewee

from fleet import clock
from fleet.auth import SESSION_LIFETIME
from fleet.clock import first_id_of
from fleet.db import db
from fleet.idempotency import FORGET_ANSWERS, KEPT_HOURS
from fleet.models.access import FORGET_FAILURES, FORGET_SESSIONS, FORGET_TOKENS
from fleet.models.accounts import FORGET_ACCOUNT_TOKENS
from fleet.models.events import FORGET_EVENTS
from fleet.models.processes import FORGET_PROCESSES
from fleet.models.promises import FORGET_CONFIRMED, FORGET_DISCARDED, FORGET_RECEIVED
from fleet.models.webhooks import FORGET_DELIVERIES
from fleet.outages import database_is_away, sqlstate
from fleet.rules.throttle import HEALS_AFTER

log = logging.getLogger("fleet.retention")

# Confirmed promises are the record of what was sent when. Their inbox rows stay a day longer: a message that is still on
# its way finds at least one of the two, and does nothing.
CONFIRMED_KEPT = timedelta(days=7)
RECEIVED_KEPT = CONFIRMED_KEPT + timedelta(days=1)
# Long enough for whoever misses something to ask where it went; the audit log knows for ever.
DISCARDED_KEPT = timedelta(days=180)
# A session that is over tells for a while when it was used and why it ended.
SESSIONS_KEPT = timedelta(days=30)
# They count how many letters somebody was sent within the last hour.
ACCOUNT_TOKENS_KEPT = timedelta(days=1)
# How long a reader of the stream may have been away; longer than what the table's guard asks for.
EVENTS_KEPT = timedelta(days=90)
# Whatever became of them; what still waits after so long waits for an endpoint that was switched off or removed.
DELIVERIES_KEPT = timedelta(days=30)
# Each start of a process leaves a row behind.
PROCESSES_KEPT = timedelta(days=1)
# A run ends after BUDGET_S, because the sweep sits in a worker that others wait for; it is rung for often enough.
BATCH, BUDGET_S = 2000, 2.0


def forget_old() -> dict[str, int]:
    """Delete what is past its time from each of these tables; returns how many rows of each.

    Dead promises are kept until a person replays or discards them. Takes a batch of each table in turn until nothing is left or
    BUDGET_S is over; the next run goes on. A table that fails is logged and left for this run. Raises peewee's errors when the
    database is away.
    """
    now = clock.now()
    return _in_batches(
        {
            "outbox": (FORGET_CONFIRMED, {"before": now - CONFIRMED_KEPT}),
            "inbox": (FORGET_RECEIVED, {"before": now - RECEIVED_KEPT, "first_id": first_id_of(now - RECEIVED_KEPT)}),
            "discarded": (FORGET_DISCARDED, {"before": now - DISCARDED_KEPT}),
            "idempotency_record": (FORGET_ANSWERS, {"before": now - timedelta(hours=KEPT_HOURS)}),
            "user_session": (FORGET_SESSIONS, {"before": now - SESSIONS_KEPT}),
            "refresh_token": (FORGET_TOKENS, {"before": now - SESSION_LIFETIME}),
            "login_throttle": (FORGET_FAILURES, {"before": now - HEALS_AFTER}),
            "account_token": (FORGET_ACCOUNT_TOKENS, {"before": now - ACCOUNT_TOKENS_KEPT}),
            "webhook_delivery": (FORGET_DELIVERIES, {"before": first_id_of(now - DELIVERIES_KEPT)}),
            "event": (FORGET_EVENTS, {"before": first_id_of(now - EVENTS_KEPT)}),
            "process_report": (FORGET_PROCESSES, {"before": now - PROCESSES_KEPT}),
        }
    )


def _in_batches(past: Mapping[str, tuple[str, Mapping[str, Any]]]) -> dict[str, int]:
    forgotten = dict.fromkeys(past, 0)
    unfinished, deadline = list(past), time.monotonic() + BUDGET_S
    while unfinished:
        for table in list(unfinished):
            if time.monotonic() >= deadline:
                return forgotten
            batch = _batch(table, *past[table])
            forgotten[table] += batch
            if batch < BATCH:
                unfinished.remove(table)
    return forgotten


def _batch(table: str, statement: str, values: Mapping[str, Any]) -> int:
    try:
        return int(db.execute_sql(statement, {**values, "limit": BATCH}).rowcount)
    except peewee.PeeweeException as error:
        if database_is_away(error):
            raise
        log.error("not forgotten", extra={"table": table, "cause": type(error).__name__, "sqlstate": sqlstate(error)})
        return 0
