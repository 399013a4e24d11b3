"""The board in Redis by which the processes tell each other of their circuit breakers. It may be wiped at any time.

`fleet-breakers:controls` is what operators said, from PostgreSQL; `fleet-breakers:report:<process>` how a process's breakers
stand, and `fleet-breakers:processes` which processes report. Every key ends by itself.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import orjson
import redis

from fleet import breakers
from fleet.breakers import Control, Reading
from fleet.outages import redis_breaker

TIMEOUT_S = 0.2
CONTROLS, REPORT, PROCESSES = "fleet-breakers:controls", "fleet-breakers:report:", "fleet-breakers:processes"
# A word that was overtaken on its way here is corrected when the record is read again.
CONTROLS_LAST_S = 15
REPORTS_LAST_S = 6
MOST_PROCESSES = 200
_WHOLE = ""  # the field that says that every word is there


class Away(Exception):
    """Redis does not answer, or takes nothing."""


class Board:
    """One small pool of connections; no call takes longer than connecting and an answer, TIMEOUT_S each. Raises Away.

    Behind the breaker of Redis: the thread that looks here twice a second finds out for all others that Redis is away, or back.
    """

    def __init__(self, url: str) -> None:
        self._redis: Any = redis.Redis.from_url(
            url, socket_connect_timeout=TIMEOUT_S, socket_timeout=TIMEOUT_S, decode_responses=False
        )

    def controls(self) -> dict[str, Control] | None:
        """Every operator's word; None when the board does not have them all."""
        found = self._asked(lambda: self._redis.hgetall(CONTROLS))
        if found.pop(_WHOLE.encode(), None) is None:
            return None
        return {name.decode(): _word(text) for name, text in found.items()}

    def fill(self, controls: Mapping[str, Control]) -> None:
        """Put up every word. One that is there already may be a later one: it stays."""
        pipeline = self._redis.pipeline(transaction=True)
        for name, word in controls.items():
            pipeline.hsetnx(CONTROLS, name, orjson.dumps(asdict(word)))
        pipeline.hset(CONTROLS, _WHOLE, b"1")
        pipeline.expire(CONTROLS, CONTROLS_LAST_S)
        self._asked(pipeline.execute)

    def tell(self, name: str, word: Control) -> None:
        """Put up a new word."""
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hset(CONTROLS, name, orjson.dumps(asdict(word)))
        pipeline.expire(CONTROLS, CONTROLS_LAST_S)
        self._asked(pipeline.execute)

    def report(self, process: str, kind: str, readings: Sequence[Reading]) -> None:
        """Say how this process's breakers stand; after REPORTS_LAST_S without a word it is taken for gone."""
        now = time.time()
        told = {"process": process, "kind": kind, "at": now, "breakers": [asdict(reading) for reading in readings]}
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.set(REPORT + process, orjson.dumps(told), ex=REPORTS_LAST_S)
        pipeline.zadd(PROCESSES, {process: now})
        pipeline.zremrangebyscore(PROCESSES, "-inf", now - 60)
        pipeline.expire(PROCESSES, 60)
        self._asked(pipeline.execute)

    def reports(self) -> list[dict[str, Any]]:
        """The last reports of all processes that live, at most MOST_PROCESSES."""
        names = self._asked(lambda: self._redis.zrevrange(PROCESSES, 0, MOST_PROCESSES - 1))
        if not names:
            return []
        texts = self._asked(lambda: self._redis.mget([REPORT.encode() + name for name in names]))
        return [orjson.loads(text) for text in texts if text is not None]

    def _asked(self, question: Callable[[], Any]) -> Any:
        try:
            return redis_breaker().call(question)
        except (breakers.Open, redis.RedisError) as error:
            raise Away(type(error).__name__) from None


def _word(text: bytes) -> Control:
    told = orjson.loads(text)
    return Control(**{**told, "at": datetime.fromisoformat(told["at"])})
