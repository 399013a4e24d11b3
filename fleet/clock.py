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


def first_id_of(instant: datetime) -> UUID:
    """The least UUID of version 7 that this millisecond can give (RFC 9562, section 5.7): ids below it are older."""
    return UUID(int=(int(instant.timestamp() * 1000) << 80) | (7 << 76) | (2 << 62))
