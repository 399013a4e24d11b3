"""/admin/cache"""

from typing import Any, Literal

from flask import Blueprint, g

from fleet.http import Answer, answer, operation, stored, told
from fleet.idempotency import Claim, StoredAnswer
from fleet.parsing import Input, View
from fleet.services import cache
from fleet.services.cache import Rate

bp = Blueprint("cache", __name__, url_prefix="/admin/cache")


class NamespaceView(View):
    """Looks since this instance started. A `hit` or `stale` answer (past its time, while somebody renews it or the database
    fails) did not ask the database; a `miss`, a `refresh` (early or late) and an `error` (Redis did not help) did.
    """

    namespace: str
    enabled: bool
    ttl_s: float | None
    hits: int
    misses: int
    stale: int
    refreshes: int
    errors: int
    hit_rate: float | None


class CacheView(View):
    """The breaker is that of the process that answers, the figures those of all web processes of the instance."""

    breaker: Literal["closed", "open", "half_open"]
    namespaces: list[NamespaceView]


class FlushCache(Input):
    namespace: Literal["vehicles", "vehicle_classes", "branches", "availability"] | None = None


class FlushedView(View):
    removed: int


@bp.get("")
@operation("cache.read", answer=CacheView)
def show() -> Answer:
    """Show the hit rate of each namespace of the cache."""
    breaker, rates = cache.seen(g.actor)
    return answer({"breaker": breaker, "namespaces": [_shaped(rate) for rate in rates]})


@bp.post("/flush")
@operation("cache.flush", body=FlushCache, answer=FlushedView, idempotent=True, claimed_by_service=True)
def flush(body: FlushCache, claim: Claim | None = None) -> Answer:
    """Empty the cache, or one namespace of it; the values are read anew when somebody asks for them."""
    return told(cache.flush(g.actor, namespace=body.namespace, claim=claim, answer_of=_flushed))


def _flushed(removed: int) -> StoredAnswer:
    return stored(answer({"removed": removed}))


def _shaped(rate: Rate) -> dict[str, Any]:
    looks = rate.looks
    return {
        "namespace": rate.namespace,
        "enabled": rate.enabled,
        "ttl_s": rate.ttl_s,
        "hits": looks["hit"],
        "misses": looks["miss"],
        "stale": looks["stale"],
        "refreshes": looks["refresh"],
        "errors": looks["error"],
        "hit_rate": rate.hit_rate,
    }
