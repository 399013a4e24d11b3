"""Rows of a busy list, kept as the JSON that they were shown as: of the newest fifty nearly all were shown a moment ago.

A row is looked up by its stamp, which every page reads anew from the database: the versions of all that is shown of it. What
has changed has another stamp, so nothing old is shown and nothing needs invalidating.
"""

import threading
from collections.abc import Callable
from typing import Any

import orjson

from fleet.http import render

Row = dict[str, Any]

_MOST_KEPT = 4_000  # some 5 MB


class Rendered:
    """The rows of one list. A stamp is a text: the row's id, a blank, and what changes with the row."""

    def __init__(self, shape: Callable[[Row], Row]) -> None:
        self._shape = shape
        self._kept: dict[str, Row] = {}
        self._lock = threading.Lock()

    def rows(self, stamps: list[str], read: Callable[[list[str]], list[Row]]) -> list[Row]:
        """`{"id", "shown"}` of the rows whose stamps these are, in their order.

        `read` gives whole rows with their `stamp`, which is not shown, for the ids of those that are not kept.
        """
        rows = [self._kept.get(stamp) for stamp in stamps]
        if None in rows:
            by_id = dict(zip([stamp.partition(" ")[0] for stamp in stamps], rows, strict=True))
            # By the stamp that a row itself carries: it may be newer than the one that was missed.
            by_id.update({row["id"]: self._keep(row) for row in read([row_id for row_id, row in by_id.items() if row is None])})
            rows = list(by_id.values())
        return [row for row in rows if row is not None]

    def _keep(self, row: Row) -> Row:
        stamp = row.pop("stamp")
        kept = {"id": row["id"], "shown": orjson.Fragment(render(self._shape(row)))}
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[stamp] = kept
        return kept
