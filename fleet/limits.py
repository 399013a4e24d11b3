"""How often one caller may call. Counted in Redis, so that all instances share it; in the process while Redis is away.

Flask-Limiter holds the storage and the moving-window strategy; the tier is known only after authentication, so each
operation asks here once, in one place, instead of through its decorators. A process takes a caller's calls out of Redis a
hundredth of the limit at a time: two round trips for each call would cost more than most answers.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any

import redis
from flask import Flask
from flask_limiter import Limiter
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, RateLimiter

from fleet.config import Settings
from fleet.errors import RateLimited

AUTH_STRICT, PUBLIC, AUTHENTICATED = "auth_strict", "public", "authenticated"
# Seconds; Flask-Limiter's annotation knows only whole ones.
_STORAGE_OPTIONS: dict[str, Any] = {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}
_AWAY_S = 1.0
_LARGEST_BATCH = 20
_LARGEST_ALLOWANCE, _ALLOWANCE_S, _MOST_ALLOWANCES = 5, 1.0, 10_000


@dataclass(frozen=True)
class Standing:
    """Where a caller stands in the window: what the RateLimit headers say."""

    limit: int
    remaining: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


@dataclass
class _Allowance:
    """Calls of one caller that this process has counted in Redis already, and how long it may still give them out."""

    left: int
    limit: int
    remaining: int
    reset_s: int
    until: float


class Limits:
    """The tiers and their counters."""

    def __init__(self, settings: Settings) -> None:
        self.enabled = settings.ratelimit_enabled
        self._tiers: dict[str, RateLimitItem] = {
            AUTH_STRICT: parse(settings.ratelimit_auth_strict),
            PUBLIC: parse(settings.ratelimit_public),
            AUTHENTICATED: parse(settings.ratelimit_authenticated),
        }
        self._everybody = parse(settings.ratelimit_global)
        # Small beside the limit, or one thread's batch would be the whole of it.
        self._batch_size = max(1, min(_LARGEST_BATCH, self._everybody.amount // 100))
        limiter = Limiter(
            _no_key,
            # An app of its own: the extension's hooks would look at every request a second time.
            app=Flask("limits"),
            headers_enabled=False,
            strategy="moving-window",
            storage_uri=settings.redis_url,
            storage_options=_STORAGE_OPTIONS,
            key_prefix="fleet-limit",
        )
        self._shared: RateLimiter = limiter.limiter
        self._local: RateLimiter = MovingWindowRateLimiter(MemoryStorage())
        self._shared_again_at = 0.0
        self._batch = threading.local()
        self._allowances: dict[tuple[str, str], _Allowance] = {}
        self._lock = threading.Lock()

    def check(self, tier: str, caller: str) -> Standing | None:
        """Count one call of `caller`. Raises RateLimited; returns None while limits are switched off."""
        if not self.enabled:
            return None
        standing = self._out_of_allowance(tier, caller)
        if standing is not None:
            return standing
        if time.monotonic() >= self._shared_again_at:
            try:
                return self._count(self._shared, tier, caller)
            except (redis.RedisError, StorageError, OSError):
                # Every request that waited for a dead Redis would hold a thread: count locally for a moment instead.
                self._shared_again_at = time.monotonic() + _AWAY_S
        return self._count(self._local, tier, caller)

    def _out_of_allowance(self, tier: str, caller: str) -> Standing | None:
        with self._lock:
            allowance = self._allowances.get((tier, caller))
            if allowance is None or allowance.left == 0 or time.monotonic() > allowance.until:
                return None
            allowance.left -= 1
            return Standing(allowance.limit, allowance.remaining + allowance.left, allowance.reset_s)

    def _count(self, counters: RateLimiter, tier: str, caller: str) -> Standing:
        item = self._tiers[tier]
        self._count_everybody(counters)
        # A hundredth of the limit, so that what other processes leave unused is never worth mentioning.
        taken = max(1, min(_LARGEST_ALLOWANCE, item.amount // 100))
        if not counters.hit(item, tier, caller, cost=taken):
            taken = 1 if taken > 1 and counters.hit(item, tier, caller) else 0
        window = counters.get_window_stats(item, tier, caller)
        reset_s = _seconds_until(window.reset_time)
        if not taken:
            raise _limited(Standing(item.amount, 0, reset_s))
        self._keep(tier, caller, _Allowance(taken - 1, item.amount, window.remaining, reset_s, time.monotonic() + _ALLOWANCE_S))
        return Standing(item.amount, window.remaining + taken - 1, reset_s)

    def _keep(self, tier: str, caller: str, allowance: _Allowance) -> None:
        with self._lock:
            if len(self._allowances) >= _MOST_ALLOWANCES:
                self._allowances.clear()
            self._allowances[tier, caller] = allowance

    def _count_everybody(self, counters: RateLimiter) -> None:
        """The safety net over all callers, taken from Redis in batches: it need not be exact, it must be cheap."""
        left = getattr(self._batch, "left", 0)
        if left == 0:
            if not counters.hit(self._everybody, "everybody", cost=self._batch_size):
                raise _limited(Standing(self._everybody.amount, 0, 1))
            left = self._batch_size
        self._batch.left = left - 1


def _no_key() -> str:
    return ""


def _seconds_until(instant: float) -> int:
    return max(1, int(instant - time.time() + 0.999))


def _limited(standing: Standing) -> RateLimited:
    headers = {**standing.headers(), "Retry-After": str(standing.reset_s)}
    return RateLimited(
        f"At most {standing.limit} requests in this window; try again in {standing.reset_s} s", headers=headers
    )
