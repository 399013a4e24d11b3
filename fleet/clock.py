"""The one clock, and the identifiers that carry its time."""

from datetime import UTC, datetime
from uuid import UUID

from uuid_utils.compat import uuid7


def now() -> datetime:
    """The current instant, aware, in UTC."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A fresh time-ordered identifier (UUID version 7, RFC 9562): newer rows sort after older ones."""
    return uuid7()
