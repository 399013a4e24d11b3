"""Rows of a busy list, kept as the JSON that they were shown as: of the newest fifty nearly all were shown a moment ago.

A row is looked up by its stamp, which every page reads anew from the database: the versions of all that is shown of it. What
has changed has another stamp, so nothing old is shown and nothing needs invalidating.
"""

import threading
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from fleet.http import render

Row = dict[str, Any]
Stamp = tuple[Any, ...]

_MOST_KEPT = 4_000  # some 5 MB


class Rendered:
    """The rows of one list. `stamp` names the columns that change with the row; those of them in `hidden` are not shown."""

    def __init__(self, shape: Callable[[Row], Row], *, stamp: Iterable[str], hidden: Iterable[str]) -> None:
        self._shape, self._stamp, self._hidden = shape, tuple(stamp), tuple(hidden)
        self._kept: dict[Stamp, orjson.Fragment] = {}
        self._lock = threading.Lock()

    def rows(self, stamped: list[Row], read: Callable[[list[str]], list[Row]]) -> list[Row]:
        """`{"id", "shown"}` of the rows whose stamps these are, in their order.

        `read` gives whole rows, stamp included, for the ids of those that are not kept.
        """
        shown = {row["id"]: self._kept.get(self._stamp_of(row)) for row in stamped}
        missing = [row_id for row_id, fragment in shown.items() if fragment is None]
        if missing:
            # By the stamp that a row itself carries: it may be newer than the one that was missed.
            shown.update({row["id"]: self._keep(row) for row in read(missing)})
        return [{"id": row_id, "shown": fragment} for row_id, fragment in shown.items() if fragment is not None]

    def _stamp_of(self, row: Row) -> Stamp:
        return tuple([row[name] for name in self._stamp])

    def _keep(self, row: Row) -> orjson.Fragment:
        stamp = self._stamp_of(row)
        for name in self._hidden:
            del row[name]
        fragment = orjson.Fragment(render(self._shape(row)))
        with self._lock:
            if len(self._kept) >= _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[stamp] = fragment
        return fragment
