"""Tokens of the links that end one kind of letter for one customer. Whoever holds one can do that and nothing else.

`v1.<kind>.<customer>.<expiry>.<signature>`: signed with HMAC-SHA-256, good until its time and for its kind only. Nothing is
stored, so a link works from every letter that was ever sent within its time.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

LIFETIME = timedelta(days=60)
MAX_LENGTH = 200
_VERSION = "v1"
_FORM = re.compile(r"(v1\.([a-z_]{1,40})\.([0-9a-f]{32})\.([0-9]{10}))\.([A-Za-z0-9_-]{43})", re.ASCII)


class BadToken(ValueError):
    """Not a token of ours, or one whose time is over."""


def token(key: bytes, *, customer_id: UUID, kind: str, now: datetime) -> str:
    """A token that ends this kind of letter for this customer, for LIFETIME from `now`."""
    said = f"{_VERSION}.{kind}.{customer_id.hex}.{int((now + LIFETIME).timestamp())}"
    return f"{said}.{_signature(key, said)}"


def read(keys: Sequence[bytes], raw: str, *, now: datetime) -> tuple[UUID, str]:
    """The customer and the kind that a token signed by one of the keys is about. Raises BadToken."""
    form = _FORM.fullmatch(raw)
    if form is None or not any(hmac.compare_digest(form[5], _signature(key, form[1])) for key in keys):
        raise BadToken("not signed by us")
    if datetime.fromtimestamp(int(form[4]), UTC) <= now:
        raise BadToken("its time is over")
    return UUID(form[3]), form[2]


def _signature(key: bytes, said: str) -> str:
    return base64.urlsafe_b64encode(hmac.digest(key, said.encode(), hashlib.sha256)).decode().rstrip("=")
