"""How outbox and webhook deliveries stand, at a cost that does not grow with them: nothing is read beyond a bound."""

from typing import NamedTuple

from fleet.db import db, transaction
from fleet.models.dead_letters import CAUSE
from fleet.rules.webhooks import LONGEST_ASKED_REST_S

# Of one queue, those first that were due first. The count of a longer backlog stops at the one; the oldest is looked for among
# the other, because that takes more than the index.
MOST_WAITING, MOST_AGED = 50_000, 5_000
# Of all queues together, the newest.
MOST_CONFIRMED = 20_000
MOST_DEAD = 50_000


class Backlog(NamedTuple):
    """What waits in one queue, None being all, and the age in seconds of its oldest promise, since its replay if it had one."""

    queue: str | None
    waiting: int
    due: int
    oldest_age_s: float | None


class Deliveries(NamedTuple):
    """Webhook deliveries, which are no promises: those that wait for an enabled endpoint, those of them that are due and whose
    endpoint does not rest, for how many seconds the first of these has been due, and the dead of endpoints that stand."""

    waiting: int
    due: int
    oldest_age_s: float | None
    dead: int


class Pace(NamedTuple):
    """What was confirmed of one queue, None being the whole outbox, and the oldest of these confirmations. Times in seconds."""

    queue: str | None
    confirmed: int
    lag_p50_s: float | None
    lag_p99_s: float | None
    since_s: float


class Dead(NamedTuple):
    """Dead letters of one topic and kind of cause, and how long ago the first of them died, in seconds."""

    topic: str
    queue: str
    cause: str
    letters: int
    oldest_age_s: float


def backlogs(queues: list[str]) -> list[Backlog]:
    """The backlog of each of these queues."""
    with transaction():
        db.execute_sql(ALONG_THE_INDEX)
        return [Backlog(*row) for row in db.rows(BACKLOGS, {"queues": queues, "most": MOST_WAITING, "most_aged": MOST_AGED})]


def deliveries() -> Deliveries:
    """The webhook deliveries of all endpoints."""
    with transaction():
        db.execute_sql(ALONG_THE_INDEX)
        [row] = db.rows(DELIVERIES, {"most": MOST_WAITING, "most_dead": MOST_DEAD})
        return Deliveries(*row)


def paces(window_s: float) -> list[Pace]:
    """The pace of each queue that had confirmations in the last `window_s`, and of all together if there were any."""
    with transaction():
        db.execute_sql(ALONG_THE_INDEX)
        return [Pace(*row) for row in db.rows(PACES, {"window_s": window_s, "most": MOST_CONFIRMED})]


def delivered(queue: str, window_s: float) -> list[Pace]:
    """The pace of the webhook deliveries, which are no promises; nothing where none was delivered in the last `window_s`."""
    with transaction():
        db.execute_sql(ALONG_THE_INDEX)
        values = {"window_s": window_s, "most": MOST_CONFIRMED, "rested_s": LONGEST_ASKED_REST_S}
        return [Pace(queue, *row) for row in db.rows(DELIVERED, values)]


def dead() -> list[Dead]:
    """Dead letters that nobody discarded, those that died first."""
    return [Dead(*row) for row in db.rows(DEAD, {"most": MOST_DEAD})]


# Faced with much of it the planner would read and sort the whole to give us its beginning.
ALONG_THE_INDEX = "SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off"

_WAITING = """FROM outbox
        WHERE queue = asked.queue AND confirmed_at IS NULL AND dead_at IS NULL
        ORDER BY next_attempt_at"""
BACKLOGS = f"""
SELECT asked.queue, counted.waiting, counted.due, head.oldest_age_s
FROM unnest(%(queues)s::text[]) WITH ORDINALITY AS asked (queue, place)
CROSS JOIN LATERAL (
    SELECT count(*) AS waiting, count(*) FILTER (WHERE next_attempt_at <= now()) AS due
    FROM (SELECT next_attempt_at {_WAITING} LIMIT %(most)s) AS those
) AS counted
CROSS JOIN LATERAL (
    SELECT extract(epoch FROM now() - min(coalesce(replayed_at, created_at)))::float8 AS oldest_age_s
    FROM (SELECT created_at, replayed_at {_WAITING} LIMIT %(most_aged)s) AS those
) AS head
ORDER BY asked.place
"""
_DELIVERIES = """FROM webhook_delivery d
        WHERE d.endpoint_id = e.id AND d.status IN ('queued','retrying')"""
# While an endpoint rests, it is the receiver that keeps its deliveries waiting and no relay: they are not due. The oldest is
# the first of each endpoint's index, so it needs no bound.
DELIVERIES = f"""
WITH open AS MATERIALIZED (
    SELECT e.id FROM webhook_endpoint e LEFT JOIN webhook_health h ON h.endpoint_id = e.id
    WHERE e.enabled AND (h.rest_until IS NULL OR h.rest_until <= now())
)
SELECT
    (SELECT count(*) FROM (
        SELECT 1 FROM webhook_endpoint e CROSS JOIN LATERAL (
            SELECT d.next_attempt_at {_DELIVERIES} ORDER BY d.next_attempt_at LIMIT %(most)s
        ) AS those WHERE e.enabled LIMIT %(most)s
    ) AS waiting),
    (SELECT count(*) FROM (
        SELECT 1 FROM open e CROSS JOIN LATERAL (
            SELECT d.next_attempt_at {_DELIVERIES} AND d.next_attempt_at <= now() ORDER BY d.next_attempt_at LIMIT %(most)s
        ) AS those LIMIT %(most)s
    ) AS due),
    (SELECT extract(epoch FROM now() - min(first.next_attempt_at))::float8 FROM open e CROSS JOIN LATERAL (
        SELECT d.next_attempt_at {_DELIVERIES} AND d.next_attempt_at <= now() ORDER BY d.next_attempt_at LIMIT 1
    ) AS first),
    (SELECT count(*) FROM (
        SELECT 1 FROM webhook_endpoint e CROSS JOIN LATERAL (
            SELECT d.id FROM webhook_delivery d
            WHERE d.endpoint_id = e.id AND d.status = 'dead' ORDER BY d.id DESC LIMIT %(most_dead)s
        ) AS those WHERE e.deleted_at IS NULL LIMIT %(most_dead)s
    ) AS dead)
"""
PACES = """
SELECT queue, count(*),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY lag_s), percentile_cont(0.99) WITHIN GROUP (ORDER BY lag_s),
    extract(epoch FROM now() - min(confirmed_at))::float8
FROM (
    SELECT queue, confirmed_at, extract(epoch FROM confirmed_at - coalesce(replayed_at, created_at))::float8 AS lag_s
    FROM outbox
    WHERE confirmed_at > now() - interval '1 second' * %(window_s)s
    ORDER BY confirmed_at DESC LIMIT %(most)s
) AS recent
GROUP BY GROUPING SETS ((queue), ())
HAVING count(*) > 0
"""
# How long a delivery waited for us since it was due. Where the endpoint is slow, or failed shortly before, it waited for its
# receiver: that counts as delivered, and for no lag.
DELIVERED = """
SELECT count(*),
    percentile_cont(0.5) WITHIN GROUP (ORDER BY lag_s), percentile_cont(0.99) WITHIN GROUP (ORDER BY lag_s),
    extract(epoch FROM now() - min(delivered_at))::float8
FROM (
    SELECT d.delivered_at, CASE
        WHEN h.slow IS NOT TRUE AND coalesce(h.last_failure_at < d.next_attempt_at - interval '1 second' * %(rested_s)s, true)
        THEN extract(epoch FROM d.delivered_at - d.next_attempt_at)::float8 END AS lag_s
    FROM (
        SELECT endpoint_id, delivered_at, next_attempt_at FROM webhook_delivery
        WHERE delivered_at > now() - interval '1 second' * %(window_s)s
        ORDER BY delivered_at DESC LIMIT %(most)s
    ) AS d
    LEFT JOIN webhook_health h ON h.endpoint_id = d.endpoint_id
) AS recent
HAVING count(*) > 0
"""
DEAD = f"""
SELECT topic, queue, cause, count(*), extract(epoch FROM now() - min(dead_at))::float8
FROM (
    SELECT topic, queue, dead_at, coalesce({CAUSE}, 'Unknown') AS cause FROM outbox
    WHERE dead_at IS NOT NULL AND discarded_at IS NULL
    ORDER BY dead_at LIMIT %(most)s
) AS open_letters
GROUP BY topic, queue, cause ORDER BY topic, cause
"""
