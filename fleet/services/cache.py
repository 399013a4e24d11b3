"""How the cache does, and emptying it: for operators."""

from collections.abc import Callable
from dataclasses import dataclass

from fleet import cache, metrics
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.idempotency import Claim, Given, StoredAnswer
from fleet.services import audit

# Remembered by each process and checked by PostgreSQL at every request (services/actors.py): it counts like the others, and
# there is nothing to flush.
PERMISSIONS = "permissions"
OUTCOMES = ("hit", "miss", "stale", "refresh", "error")


@dataclass(frozen=True)
class Rate:
    """What came of the looks into one namespace."""

    namespace: str
    enabled: bool
    ttl_s: float | None
    looks: dict[str, int]

    @property
    def hit_rate(self) -> float | None:
        """The part of looks that did not ask the database; None where nobody looked."""
        total = sum(self.looks.values())
        return round((self.looks["hit"] + self.looks["stale"]) / total, 4) if total else None


def seen(actor: Actor) -> tuple[str, list[Rate]]:
    """The state of the breaker before Redis, in this process, and each namespace over all processes of this instance."""
    ours, counted = cache.current(), metrics.looks()
    ttls = {name: namespace.ttl_s for name, namespace in cache.NAMESPACES.items()}
    rates = [
        Rate(name, name in ours.enabled or name == PERMISSIONS, ttls.get(name), _looks(counted, name))
        for name in (*ttls, PERMISSIONS)
    ]
    return ours.breaker_state, rates


def flush(
    actor: Actor, *, namespace: str | None, claim: Claim | None, answer_of: Callable[[int], StoredAnswer]
) -> Given:
    """Delete what is cached, of one namespace or of all, and answer how many keys that were.

    Redis is asked between two transactions: a large one takes many answers to go through, and meanwhile would hold what is
    open. The first says whether the actor may still act, before anything is deleted; the second is the record. Who dies in
    between, or comes twice at once under one key, has emptied a cache once more, which decides nothing.
    Raises Unavailable while Redis is away, InProgress, Invalid `idempotency_key_reused`.
    """
    first = _first_answer(claim)
    if first is not None:
        return Given(first, replayed=True)
    removed = cache.current().flush(f"{cache.PREFIX}{namespace}:*" if namespace else f"{cache.PREFIX}*")
    return Given(_noted(actor, namespace, claim, answer_of(removed)), replayed=False)


def _first_answer(claim: Claim | None) -> StoredAnswer | None:
    if claim is None:
        db.check_assumed()
        return None
    return _taken(claim)


@atomic
def _taken(claim: Claim) -> StoredAnswer | None:
    return claim.take()


@atomic
def _noted(actor: Actor, namespace: str | None, claim: Claim | None, answer: StoredAnswer) -> StoredAnswer:
    audit.record(actor, "cache.flush", "cache", namespace or "all")
    if claim is not None:
        claim.keep(answer)
    return answer


def _looks(counted: dict[tuple[str, str], int], name: str) -> dict[str, int]:
    return {outcome: counted.get((name, outcome), 0) for outcome in OUTCOMES}
