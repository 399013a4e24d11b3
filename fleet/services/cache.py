"""How the cache does, and emptying it: for operators."""

from dataclasses import dataclass

from fleet import cache, metrics
from fleet.auth import Actor
from fleet.db import atomic
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


@atomic
def flush(actor: Actor, *, namespace: str | None) -> int:
    """Delete what is cached, of one namespace or of all; returns how many keys. Raises Unavailable while Redis is away.

    The record comes first, because whether the actor may still act is known with the first statement; where Redis is away
    it is undone. Redis is asked within the transaction, for it answers or is given up within moments.
    """
    audit.record(actor, "cache.flush", "cache", namespace or "all")
    return cache.current().flush(f"{cache.PREFIX}{namespace}:*" if namespace else f"{cache.PREFIX}*")


def _looks(counted: dict[tuple[str, str], int], name: str) -> dict[str, int]:
    return {outcome: counted.get((name, outcome), 0) for outcome in OUTCOMES}
