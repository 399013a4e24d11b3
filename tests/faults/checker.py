"""The proof after a drill: what the clients saw and what the database holds tell one story, with nothing lost or doubled."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tests.faults.evidence import Evidence, Finding, Kind, pairs
from tests.faults.history import Exchange, by_key
from tests.faults.money_checker import MONEY_JUDGES
from tests.faults.stream_checker import STREAM_JUDGES


def check(evidence: Evidence) -> list[Finding]:
    """Everything that is wrong; empty when all is well."""
    return [finding for judge in JUDGES for finding in judge(evidence)]


def letters_twice(evidence: Evidence) -> int:
    """Letters that came more than once, which is allowed."""
    return sum(count - 1 for count in evidence.letters.values() if count > 1)


# --- what the clients saw ---------------------------------------------------------------------------------------------


def one_answer_for_a_key(evidence: Evidence) -> Iterable[Finding]:
    """A key that got its final answer gets that one to the letter ever after."""
    for (path, key), same in by_key(evidence.exchanges):
        if len({(seen.status, seen.answer) for seen in same if seen.final}) > 1:
            yield Finding("wrong", f"key {key} got different answers from {path}")


def no_failure_but_503(evidence: Evidence) -> Iterable[Finding]:
    """A client sees success, a refusal that it had to expect, or 503 with Retry-After."""
    for seen in evidence.exchanges:
        if seen.failed_badly:
            yield Finding("wrong", f"{seen.operation} with key {seen.key}: {seen.status} Retry-After {seen.retry_after}")
        elif seen.status and 400 <= seen.status < 500 and not seen.expected_refusal:
            yield Finding("wrong", f"{seen.operation} with key {seen.key}: {seen.status} {seen.code}")


# --- reservations -----------------------------------------------------------------------------------------------------


def reservations_once(evidence: Evidence) -> Iterable[Finding]:
    """An acknowledged reservation exists once, a refused one does not, any other at most once, and no others at all."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for key, *row in evidence.sql(_RENTALS):
        found.setdefault(key, []).append(tuple(row))
    asked = {key: same for (_, key), same in by_key(seen for seen in evidence.exchanges if seen.operation == "reserve")}
    for key, same in asked.items():
        yield from _reservation(key, same, found.get(key, []))
    for key in found.keys() - asked.keys():
        yield Finding("wrong", f"a rental with the notes {key} exists, for which nobody asked")


def _reservation(key: str, same: Sequence[Exchange], rows: Sequence[tuple[Any, ...]]) -> Iterable[Finding]:
    final = next((seen for seen in same if seen.final), None)
    if len(rows) > 1:
        yield Finding("duplicated", f"{len(rows)} rentals for key {key}")
    if final is None or len(rows) > 1:
        return
    if not final.acknowledged:
        if rows:
            yield Finding("wrong", f"key {key} was refused, and its rental exists")
        return
    if not rows:
        yield Finding("lost", f"the reservation of key {key} was acknowledged and does not exist")
        return
    rental_id, vehicle_id, blocks, promises, answers = rows[0]
    if (rental_id, vehicle_id) != (final.document["id"], (final.sent or {}).get("vehicle_id")):
        yield Finding("wrong", f"the rental of key {key} is another one than was acknowledged")
    for what, count in (("block in the calendar", blocks), ("promised letter", promises), ("stored answer", answers)):
        if count != 1:
            yield Finding("lost" if count == 0 else "duplicated", f"{count} × {what} for the reservation of key {key}")


def steps_taken(evidence: Evidence) -> Iterable[Finding]:
    """An acknowledged handover or return stands, and a return has its invoice over just what was told."""
    rentals = {rental_id: row for rental_id, *row in evidence.sql(_STEPS)}
    for seen in evidence.exchanges:
        if not (seen.acknowledged and seen.operation in {"activate", "complete"}):
            continue
        status, invoices, net = rentals.get(seen.document["id"], (None, 0, 0))
        if status not in {"active", "completed"} or (seen.operation == "complete" and status != "completed"):
            yield Finding("lost", f"{seen.operation} with key {seen.key} was acknowledged, and the rental is {status}")
        if seen.operation == "complete" and invoices != 1:
            yield Finding("lost" if invoices == 0 else "duplicated", f"{invoices} invoices for the return of key {seen.key}")
        elif seen.operation == "complete" and net != seen.document["total_amount"]:
            yield Finding("wrong", f"the invoice for the return of key {seen.key} is over another amount")


def no_overlap(evidence: Evidence) -> Iterable[Finding]:
    """No vehicle is taken twice at a time; the constraint is not asked."""
    for vehicle_id, first, second in evidence.sql(_OVERLAPS):
        yield Finding("duplicated", f"vehicle {vehicle_id} is taken twice: blocks {first} and {second}")


# --- the books --------------------------------------------------------------------------------------------------------


def one_entry_a_fact(evidence: Evidence) -> Iterable[Finding]:
    """Every invoice has one ledger entry, and the ledger's own proof holds."""
    for number, count in evidence.sql(_ENTRIES):
        yield Finding("lost" if count == 0 else "duplicated", f"invoice {number} has {count} ledger entries")
    if evidence.books:
        yield Finding("wrong", f"the books do not prove: {evidence.books}")


# --- promises ---------------------------------------------------------------------------------------------------------


def promises_ended(evidence: Evidence) -> Iterable[Finding]:
    """Every promise is kept; only poison is dead, and all of it."""
    for promise_id, topic in evidence.sql(_UNFINISHED):
        yield Finding("lost", f"promise {promise_id} of {topic} has not ended")
    dead = pairs(evidence.sql(_DEAD))
    for promise_id in dead.keys() - evidence.poison:
        yield Finding("lost", f"promise {promise_id} of {dead[promise_id]} is dead and no poison")
    for promise_id in evidence.poison - dead.keys():
        yield Finding("wrong", f"promise {promise_id} is poison and not dead")


def one_effect_a_message(evidence: Evidence) -> Iterable[Finding]:
    """A kept promise is in the inbox once, any other is not; each of the drills' own took effect just as often."""
    for promise_id, topic, count in evidence.sql(_RECEIVED):
        yield Finding("lost" if count == 0 else "wrong", f"promise {promise_id} of {topic} is {count} times in the inbox")
    for promise_id, count, kept in evidence.sql(_EFFECTS):
        kind: Kind = "duplicated" if count > 1 else "lost" if kept else "wrong"
        yield Finding(kind, f"promise {promise_id} took effect {count} times")


def letters_arrived(evidence: Evidence) -> Iterable[Finding]:
    """Every letter that counts as sent arrived, and none came that nobody promised."""
    promised = pairs(evidence.sql(_LETTERS))
    for promise_id, kept in promised.items():
        if kept and not evidence.letters.get(promise_id):
            yield Finding("lost", f"letter {promise_id} counts as sent and never arrived")
    for promise_id in evidence.letters.keys() - promised.keys():
        yield Finding("wrong", f"letter {promise_id} arrived, which nobody promised")


JUDGES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (
    one_answer_for_a_key,
    no_failure_but_503,
    reservations_once,
    steps_taken,
    no_overlap,
    one_entry_a_fact,
    promises_ended,
    one_effect_a_message,
    letters_arrived,
    *STREAM_JUDGES,
    *MONEY_JUDGES,
)

_RENTALS = """
WITH block AS MATERIALIZED (SELECT rental_id, count(*) FROM vehicle_block GROUP BY 1),
promise AS MATERIALIZED (
    SELECT aggregate_id, count(*) FROM outbox WHERE topic = 'notifications.rental_reserved' GROUP BY 1
),
answer AS MATERIALIZED (
    SELECT key, count(*) FROM idempotency_record WHERE path = '/v1/rentals' AND status = 201 GROUP BY 1
)
SELECT r.notes, r.id::text, r.vehicle_id::text,
    coalesce(block.count, 0), coalesce(promise.count, 0), coalesce(answer.count, 0)
FROM rental r
LEFT JOIN block ON block.rental_id = r.id
LEFT JOIN promise ON promise.aggregate_id = r.id
LEFT JOIN answer ON answer.key = r.notes
WHERE r.notes IS NOT NULL
"""
_STEPS = """
SELECT r.id::text, r.status, count(i.id), coalesce(sum(i.net_amount), 0)::bigint
FROM rental r LEFT JOIN invoice i ON i.rental_id = r.id AND i.status <> 'draft'
WHERE r.status <> 'reserved' GROUP BY r.id
"""
_OVERLAPS = """
SELECT a.vehicle_id, a.id, b.id FROM vehicle_block a
JOIN vehicle_block b ON b.vehicle_id = a.vehicle_id AND b.id > a.id AND b.live AND b.occupied && a.occupied
WHERE a.live
"""
_ENTRIES = """
SELECT i.number, count(e.id) FROM invoice i
LEFT JOIN journal_entry e ON e.source_type = 'invoice' AND e.source_id = i.id AND e.event = 'issued'
WHERE i.status <> 'draft' GROUP BY i.id HAVING count(e.id) <> 1
"""
_UNFINISHED = "SELECT id::text, topic FROM outbox WHERE confirmed_at IS NULL AND dead_at IS NULL"
_DEAD = "SELECT id::text, topic FROM outbox WHERE dead_at IS NOT NULL"
_RECEIVED = """
SELECT o.id::text, o.topic, count(i.message_id) FROM outbox o
LEFT JOIN inbox i ON i.message_id = o.id AND i.consumer = o.topic
GROUP BY o.id HAVING count(i.message_id) <> (o.confirmed_at IS NOT NULL)::integer
"""
_EFFECTS = """
SELECT o.id::text, count(e.message_id), o.confirmed_at IS NOT NULL FROM outbox o
LEFT JOIN drill_effect e ON e.message_id = o.id WHERE o.topic LIKE 'drills.%'
GROUP BY o.id HAVING count(e.message_id) <> (o.confirmed_at IS NOT NULL)::integer
"""
# One that would no longer have told the truth is skipped, such as that of a hold which is over.
_LETTERS = """
SELECT o.id::text, o.confirmed_at IS NOT NULL AND n.reason IS DISTINCT FROM 'outdated'
FROM outbox o LEFT JOIN notification n ON n.id = o.id WHERE o.queue = 'notifications'
"""
