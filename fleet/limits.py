"""How often one caller may call. Counted in Redis, so that all instances share it; in the process while Redis is away.

The tier is known only after authentication, so each operation asks here once, in one place. Flask-Limiter holds the storage;
the moving window is a script of ours on it, because the library's takes two round trips for a call and where it stands,
which was a fifth of what a reservation costs. A heavy call costs several: its time stands in the window as often.
"""

import logging
import threading
import time
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import redis
from flask import Flask
from flask_limiter import Limiter
from limits import RateLimitItem, parse
from limits.errors import StorageError

from fleet import metrics
from fleet.config import Settings
from fleet.errors import RateLimited
from fleet.redis_line import Line, Script

log = logging.getLogger("fleet.limits")

# Whether it was taken (-1: not by anybody), how many calls are left, and in how many milliseconds there are more.
Found = tuple[int, int, float]

AUTH_STRICT, PUBLIC, AUTHENTICATED = "auth_strict", "public", "authenticated"
EVERYBODY = "everybody"
# Seconds; Flask-Limiter's annotation knows only whole ones.
_STORAGE_OPTIONS: dict[str, Any] = {"socket_connect_timeout": 0.2, "socket_timeout": 0.2}
_AWAY_S = 1.0
_BREAKER = "redis-limits"
# How many calls the process remembers while Redis is away: some 15 MB at most, from however many addresses they come.
_REMEMBERED_CALLS = 50_000

# Takes `cost` calls out of the caller's window, and out of the fixed window of all callers together, which need not be exact.
# Answers whether there were as many (-1: not for anybody), how many are left, and in how many milliseconds there are more: of
# a call that was taken the next one, of one that was refused all that it costs. What is refused is not counted.
# The clock is that of Redis, so that instances need not agree on theirs.
_TAKE = Script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, span, most, most_span = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local cost = tonumber(ARGV[5])
local oldest = redis.call('LINDEX', KEYS[1], -1)
while oldest and tonumber(oldest) <= now - span do
  redis.call('RPOP', KEYS[1])
  oldest = redis.call('LINDEX', KEYS[1], -1)
end
local left = limit - redis.call('LLEN', KEYS[1])
if left < cost then return {0, left, redis.call('LINDEX', KEYS[1], left - cost) + span - now} end
local all = redis.call('INCRBY', KEYS[2], cost)
if all == cost then redis.call('PEXPIRE', KEYS[2], most_span) end
if all > most then
  redis.call('DECRBY', KEYS[2], cost)
  return {-1, most - all + cost, redis.call('PTTL', KEYS[2])}
end
for _ = 1, cost do redis.call('LPUSH', KEYS[1], now) end
redis.call('PEXPIRE', KEYS[1], span)
return {1, left - cost, (oldest or now) + span - now}
""")

_HINTS = {
    AUTH_STRICT: "Too many attempts. Please wait {seconds} s and try again.",
    EVERYBODY: "We are very busy right now. Nothing was changed; please try again in {seconds} s.",
}
_HINT = "That was a little too fast. Nothing was changed; please wait {seconds} s and try again."


@dataclass(frozen=True)
class Standing:
    """Where a caller stands in the window: what the RateLimit headers say. One who is `refused` has to wait until the reset."""

    tier: str
    limit: int
    remaining: int
    reset_s: int
    cost: int = 1
    refused: bool = False

    def headers(self) -> dict[str, str]:
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_s),
        }


@dataclass(frozen=True, slots=True)
class _Spans:
    """How many calls in how many milliseconds: of one caller, and of all together."""

    limit: int
    span_ms: int
    most: int
    most_span_ms: int


class Limits:
    """The tiers and their counters."""

    def __init__(self, settings: Settings) -> None:
        self.enabled = settings.ratelimit_enabled
        self.costs = settings.costs
        everybody = parse(settings.ratelimit_global)
        self._tiers = {
            AUTH_STRICT: _spans(parse(settings.ratelimit_auth_strict), everybody),
            PUBLIC: _spans(parse(settings.ratelimit_public), everybody),
            AUTHENTICATED: _spans(parse(settings.ratelimit_authenticated), everybody),
        }
        limiter = Limiter(
            lambda: "",
            # An app of its own: the extension's hooks would look at every request a second time.
            app=Flask("limits"),
            headers_enabled=False,
            storage_uri=settings.redis_url,
            storage_options=_STORAGE_OPTIONS,
        )
        storage: Any = limiter.storage
        self._line = Line(storage.storage.connection_pool)
        self._local = _Local()
        self._shared = _Shared()

    def check(self, tier: str, caller: str, *, cost: int = 1) -> Standing | None:
        """Count a call of `caller` that is as heavy as `cost` simple ones; None while limits are switched off.

        What costs more than the whole limit takes the whole limit: it is never out of reach.
        """
        if not self.enabled:
            return None
        spans = self._tiers[tier]
        cost = min(cost, spans.limit, spans.most)
        # The limit is part of the key: where it was changed, a new window begins.
        key = f"fleet-limit:{tier}:{spans.limit}-{spans.span_ms // 1000}:{caller}"
        taken, remaining, wait_ms = self._taken(key, spans, cost)
        everybody = taken < 0
        longest_ms = spans.most_span_ms if everybody else spans.span_ms
        return Standing(
            tier=EVERYBODY if everybody else tier,
            limit=spans.most if everybody else spans.limit,
            remaining=remaining,
            # A clock that was put back would have callers wait until it is where it was; their window is gone before that.
            reset_s=_whole_seconds(min(wait_ms, longest_ms)),
            cost=cost,
            refused=taken <= 0,
        )

    def _taken(self, key: str, spans: _Spans, cost: int) -> Found:
        if self._shared.may_be_asked():
            args = (spans.limit, spans.span_ms, spans.most, spans.most_span_ms, cost)
            try:
                found: Found = self._line.run(_TAKE, (key, f"fleet-limit:{EVERYBODY}"), *args)
            except (redis.RedisError, StorageError, OSError) as error:
                self._shared.is_away(error)
            else:
                self._shared.is_there()
                return found
        return self._local.take(key, spans, cost)


class _Shared:
    """Whether Redis is asked. Every request that waited for a dead one would hold a thread: after a failure it rests for a
    second, then one request at a time tries it again.

    No breaker of fleet.breakers: that one weighs failures over a window, at a price near that of the call it would guard, and
    one failure is enough here, where a count of our own stands ready (docs/decisions/0005).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._again_at: float | None = None
        metrics.BREAKERS.labels(_BREAKER).set(0)

    def may_be_asked(self) -> bool:
        if self._again_at is None:
            return True
        with self._lock:
            now = time.monotonic()
            if self._again_at is not None and now < self._again_at:
                return False
            if self._again_at is not None:
                self._again_at = now + _AWAY_S
            return True

    def is_away(self, error: Exception) -> None:
        with self._lock:
            first, self._again_at = self._again_at is None, time.monotonic() + _AWAY_S
        if first:
            log.warning("limits are counted in the process", extra={"cause": type(error).__name__})
            _tell("open", 2)

    def is_there(self) -> None:
        if self._again_at is not None:
            self._again_at = None
            log.info("limits are shared again")
            _tell("closed", 0)


class _Local:
    """The same count in the process, for the while that Redis is away; of the callers heard last, if there are too many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: OrderedDict[str, list[float]] = OrderedDict()
        self._remembered = 0
        self._all, self._all_until = 0, 0.0

    def take(self, key: str, spans: _Spans, cost: int) -> Found:
        """As the script does it."""
        now = time.monotonic() * 1000
        with self._lock:
            times = self._times.pop(key, [])
            self._remembered -= len(times)
            del times[: bisect_right(times, now - spans.span_ms)]
            found = self._decide(times, spans, cost, now)
            if times:
                self._times[key] = times
                self._remembered += len(times)
            while self._remembered > _REMEMBERED_CALLS and len(self._times) > 1:
                self._remembered -= len(self._times.popitem(last=False)[1])
            return found

    def _decide(self, times: list[float], spans: _Spans, cost: int, now: float) -> Found:
        left = spans.limit - len(times)
        if left < cost:
            return 0, left, times[cost - left - 1] + spans.span_ms - now
        if now >= self._all_until:
            self._all, self._all_until = 0, now + spans.most_span_ms
        if self._all + cost > spans.most:
            return -1, spans.most - self._all, self._all_until - now
        self._all += cost
        times += [now] * cost
        return 1, left - cost, times[0] + spans.span_ms - now


def refusal(standing: Standing) -> RateLimited:
    """What a caller is told who has to wait: for a program, and in words that a shop can show to its customer."""
    told = {
        "hint": _HINTS.get(standing.tier, _HINT).format(seconds=standing.reset_s),
        "retry_after_s": standing.reset_s,
        "tier": standing.tier,
        "limit": standing.limit,
        "cost": standing.cost,
    }
    return RateLimited(
        f"This call counts as {standing.cost} and {standing.remaining} of {standing.limit} are left; "
        f"try again in {standing.reset_s} s",
        extra=told,
        headers={"Retry-After": f"{standing.reset_s}"},
    )


def _spans(caller: RateLimitItem, everybody: RateLimitItem) -> _Spans:
    return _Spans(caller.amount, caller.get_expiry() * 1000, everybody.amount, everybody.get_expiry() * 1000)


def _whole_seconds(wait_ms: float) -> int:
    return max(1, int(wait_ms / 1000 + 0.999))


def _tell(state: str, figure: int) -> None:
    metrics.BREAKERS.labels(_BREAKER).set(figure)
    metrics.BREAKER_CHANGES.labels(_BREAKER, state).inc()
