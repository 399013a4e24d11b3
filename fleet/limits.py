"""How often one caller may call. Counted in Redis, so that all instances share it; in the process while Redis is away.

The tier is known only after authentication, so each operation asks here once, in one place. Flask-Limiter holds the storage;
the moving window is a script of ours on it, because the library's takes two round trips for a call and where it stands,
which was a fifth of what a reservation costs.
"""

import time
from dataclasses import dataclass
from typing import Any

import redis
from flask import Flask
from flask_limiter import Limiter
from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from fleet.config import Settings
from fleet.errors import RateLimited

AUTH_STRICT, PUBLIC, AUTHENTICATED = "auth_strict", "public", "authenticated"
# Seconds; Flask-Limiter's annotation knows only whole ones.
_STORAGE_OPTIONS: dict[str, Any] = {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}
_AWAY_S = 1.0
_EVERYBODY = "everybody"

# Takes one call out of the caller's window, and out of the fixed window of all callers together, which need not be exact.
# Answers whether there was one (-1: not for anybody), how many are left, and when the next one comes, in milliseconds.
# The clock is that of Redis, so that instances need not agree on theirs.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, span, most, most_span = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local oldest = redis.call('LINDEX', KEYS[1], -1)
while oldest and tonumber(oldest) <= now - span do
  redis.call('RPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], -1)
end
local used = redis.call('LLEN', KEYS[1])
if used >= limit then return {0, 0, oldest + span - now} end
local all = redis.call('INCR', KEYS[2])
if all == 1 then redis.call('PEXPIRE', KEYS[2], most_span) end
if all > most then return {-1, 0, redis.call('PTTL', KEYS[2])} end
redis.call('LPUSH', KEYS[1], now)
redis.call('PEXPIRE', KEYS[1], span)
return {1, limit - used - 1, (oldest or now) + span - now}
"""


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
        limiter = Limiter(
            lambda: "",
            # An app of its own: the extension's hooks would look at every request a second time.
            app=Flask("limits"),
            headers_enabled=False,
            storage_uri=settings.redis_url,
            storage_options=_STORAGE_OPTIONS,
        )
        storage: Any = limiter.storage
        self._take = storage.storage.register_script(_TAKE)
        self._local = MovingWindowRateLimiter(MemoryStorage())
        self._shared_again_at = 0.0

    def check(self, tier: str, caller: str) -> Standing | None:
        """Count one call of `caller`. Raises RateLimited; returns None while limits are switched off."""
        if not self.enabled:
            return None
        item = self._tiers[tier]
        if time.monotonic() >= self._shared_again_at:
            try:
                return self._count_shared(item, tier, caller)
            except (redis.RedisError, StorageError, OSError):
                # Every request that waited for a dead Redis would hold a thread: count locally for a moment instead.
                self._shared_again_at = time.monotonic() + _AWAY_S
        return self._count_locally(item, tier, caller)

    def _count_shared(self, item: RateLimitItem, tier: str, caller: str) -> Standing:
        # The limit is part of the key: where it was changed, a new window begins.
        key = f"fleet-limit:{tier}:{item.amount}-{item.get_expiry()}:{caller}"
        spans = (item.amount, item.get_expiry() * 1000, self._everybody.amount, self._everybody.get_expiry() * 1000)
        taken, remaining, wait_ms = self._take(keys=(key, f"fleet-limit:{_EVERYBODY}"), args=spans)
        limit = self._everybody.amount if taken < 0 else item.amount
        return _judged(Standing(limit, remaining, _whole_seconds(wait_ms / 1000)), allowed=taken > 0)

    def _count_locally(self, item: RateLimitItem, tier: str, caller: str) -> Standing:
        if not self._local.hit(self._everybody, _EVERYBODY):
            raise _limited(Standing(self._everybody.amount, 0, 1))
        allowed = self._local.hit(item, tier, caller)
        window = self._local.get_window_stats(item, tier, caller)
        wait_s = window.reset_time - time.time()
        return _judged(Standing(item.amount, window.remaining if allowed else 0, _whole_seconds(wait_s)), allowed=allowed)


def _whole_seconds(wait_s: float) -> int:
    return max(1, int(wait_s + 0.999))


def _judged(standing: Standing, *, allowed: bool) -> Standing:
    if not allowed:
        raise _limited(standing)
    return standing


def _limited(standing: Standing) -> RateLimited:
    headers = {**standing.headers(), "Retry-After": str(standing.reset_s)}
    return RateLimited(
        f"At most {standing.limit} requests in this window; try again in {standing.reset_s} s", headers=headers
    )
