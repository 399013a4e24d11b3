"""Doing things at once: every thread has its own connection, and all start at the same moment."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from fleet.db import db


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What work(0), work(1), ... gave when all ran at once: the result of each, or the exception that ended it."""
    start = Barrier(count)

    def one(number: int) -> Any:
        start.wait()
        try:
            return work(number)
        except Exception as failure:
            return failure
        finally:
            db.close()

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))
