"""The proof of what others are told: the event stream as its readers saw it, and webhooks as their receivers did."""

from collections.abc import Callable, Iterable

from tests.faults.evidence import Evidence, Finding, Heard, Kind
from tests.faults.history import by_key

# What a client's step is called in the stream.
EVENT_OF = {"reserve": "rental.reserved", "activate": "rental.activated", "complete": "rental.completed"}


def one_event_a_fact(evidence: Evidence) -> Iterable[Finding]:
    """An acknowledged step of a rental is told once, and has its place in the stream."""
    told = {(rental_id, type_): row for rental_id, type_, *row in evidence.sql(_TOLD_OF_RENTALS)}
    for _, same in by_key(seen for seen in evidence.exchanges if seen.operation in EVENT_OF and seen.acknowledged):
        type_ = EVENT_OF[same[0].operation]
        count, placed, _ = told.get((same[0].document.get("id"), type_), (0, 0, 0))
        if count != 1:
            yield Finding("lost" if count == 0 else "duplicated", f"{count} × {type_} for key {same[0].key}")
        elif not placed:
            yield Finding("lost", f"{type_} for key {same[0].key} has no place in the stream")


def stream_without_gaps(evidence: Evidence) -> Iterable[Finding]:
    """The places are one after the other, and each reader got each event once, in that order."""
    stream: dict[int, str] = dict(evidence.sql(_STREAM)) if evidence.exchanges else {}
    if sorted(stream) != list(range(1, len(stream) + 1)):
        yield Finding("wrong", f"the stream has {len(stream)} events and ends at {max(stream)}")
    for reading in evidence.readings:
        expected = reading.after + 1
        for sequence, event_id in reading.read:
            if sequence != expected:
                kind: Kind = "lost" if sequence > expected else "duplicated"
                yield Finding(kind, f"{reading.name} read event {sequence} and not {expected}")
            if stream.get(sequence) != event_id:
                yield Finding("wrong", f"{reading.name} read {event_id} at {sequence}, where the stream has another event")
            expected = sequence + 1


def commit_order(evidence: Evidence) -> Iterable[Finding]:
    """What was acknowledged before another step was first asked for stands before it in the stream."""
    told = {(rental_id, type_): row[-1] for rental_id, type_, *row in evidence.sql(_TOLD_OF_RENTALS)}
    steps: list[tuple[int, float, float, str]] = []
    for _, same in by_key(seen for seen in evidence.exchanges if seen.operation in EVENT_OF):
        known = [seen for seen in same if seen.acknowledged]
        position = told.get((known[0].document.get("id"), EVENT_OF[same[0].operation])) if known else None
        if position is not None:
            asked_at = min(seen.sent_at for seen in same)
            steps.append((position, asked_at, min(seen.sent_at + seen.seconds for seen in known), same[0].key))
    latest, of_latest = float("-inf"), ""
    for position, asked_at, known_at, key in sorted(steps):
        if known_at < latest:
            yield Finding(
                "wrong", f"event {position} of key {key} was over before that of {of_latest} began, and comes after it"
            )
        if asked_at > latest:
            latest, of_latest = asked_at, key


def webhooks_arrived(evidence: Evidence) -> Iterable[Finding]:
    """Every event reached every endpoint that listened, at least once and under its own id, and the log says the same."""
    for heard in evidence.hooks:
        known = set()
        for event_id, status, attempts, answered in evidence.sql(_DELIVERED, (heard.endpoint_id, heard.after, heard.until)):
            known.add(event_id)
            yield from _delivery(heard, event_id, status, attempts, answered)
        for event_id in heard.asked.keys() - known:
            yield Finding("wrong", f"the receiver got {event_id}, which was not for it")
        for event_id in heard.mistaken:
            yield Finding("wrong", f"the receiver got {event_id} with the body of another event")


def _delivery(heard: Heard, event_id: str, status: str | None, attempts: int, answered: int | None) -> Iterable[Finding]:
    if status is None:
        yield Finding("lost", f"event {event_id} was never queued for the endpoint that listened")
    elif status != "delivered":
        yield Finding("lost", f"the delivery of event {event_id} is {status}")
    elif not heard.taken[event_id]:
        yield Finding("lost", f"event {event_id} counts as delivered and never arrived")
    elif not 200 <= (answered or 0) < 300:
        yield Finding("wrong", f"event {event_id} counts as delivered on the answer {answered}")
    if heard.asked[event_id] > (attempts or 0):
        yield Finding("wrong", f"event {event_id} arrived {heard.asked[event_id]} times in {attempts} attempts")


STREAM_JUDGES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    one_event_a_fact,
    stream_without_gaps,
    commit_order,
    webhooks_arrived,
)

_TOLD_OF_RENTALS = """
SELECT aggregate_id::text, type, count(*), count(position), min(position) FROM event
WHERE type IN ('rental.reserved', 'rental.activated', 'rental.completed') GROUP BY 1, 2
"""
_STREAM = "SELECT position, id::text FROM event WHERE position IS NOT NULL"
_DELIVERED = """
SELECT e.id::text, d.status, d.attempts, d.response_status FROM event e
LEFT JOIN webhook_delivery d ON d.event_id = e.id AND d.endpoint_id = %s
WHERE d.id IS NOT NULL OR (e.position > %s AND e.position <= coalesce(%s, e.position))
"""
