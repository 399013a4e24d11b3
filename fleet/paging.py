"""Keyset pages behind cursors that nobody but us can make, each good for one list, one filter and one reader."""

import base64
import functools
import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

from flask import current_app, g, request
from flask.globals import request_ctx

from fleet.errors import BadRequest
from fleet.parsing import PageQuery, Query

_MAC_BYTES = 16


def _keys() -> tuple[bytes, ...]:
    keys: tuple[bytes, ...] = current_app.extensions["fleet"].cursor_keys
    return keys


def _seal(position: bytes, context: str, key: bytes) -> bytes:
    return hmac.digest(key, context.encode() + b"\n" + position, hashlib.sha256)[:_MAC_BYTES]


def _context(query: Query) -> str:
    filters = query.model_dump_json(exclude={"cursor", "limit"}, exclude_none=True)
    return f"{g.actor.name}\n{request.path}\n{filters}"


def _position(query: PageQuery) -> UUID | None:
    """The id that the cursor stands for. Raises BadRequest `invalid_cursor` for one that was tampered with or moved."""
    if query.cursor is None:
        return None
    try:
        raw = base64.b64decode(query.cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (ValueError, UnicodeEncodeError):
        raise BadRequest("The cursor is not one of this list", code="invalid_cursor") from None
    position = raw[:16]
    # Compared as it is spelled: decoders take other letters and bits for the same bytes.
    if len(position) != 16 or not any(hmac.compare_digest(query.cursor, _cursor(position, query, key)) for key in _keys()):
        raise BadRequest("The cursor is not one of this list", code="invalid_cursor")
    return UUID(bytes=position)


def _cursor(position: bytes, query: Query, key: bytes) -> str:
    return base64.urlsafe_b64encode(position + _seal(position, _context(query), key)).decode()


@functools.lru_cache(maxsize=512)
def _without_cursor(query_string: bytes) -> str:
    """The request's query string, to be followed by another cursor."""
    asked = [(name, value) for name, value in request.args.items() if name != "cursor"]
    return f"{urlencode(asked)}&" if asked else ""


def page(
    query: PageQuery, read: Callable[..., list[dict[str, Any]]], shape: Callable[[dict[str, Any]], Any], **kwargs: Any
) -> tuple[dict[str, Any], str | None]:
    """One page as `{"data", "next_cursor"}` and the address of the next.

    `read(after=, limit=, **kwargs)` returns newest-first rows with an `id`, one more than `limit` where there are more. Rows
    of a list in another order carry their `place` in it beside the id.
    """
    rows = read(after=_position(query), limit=query.limit, **kwargs)
    cursor = None
    if len(rows) > query.limit:
        rows = rows[: query.limit]
        position = UUID(str(rows[-1].get("place", rows[-1]["id"]))).bytes
        cursor = _cursor(position, query, _keys()[0])
    following = None
    if cursor:
        sent = request_ctx.request
        others = _without_cursor if query.recurs else _without_cursor.__wrapped__
        following = f"{sent.path}?{others(sent.query_string)}cursor={quote(cursor)}"
    return {"data": [shape(row) for row in rows], "next_cursor": cursor}, following
