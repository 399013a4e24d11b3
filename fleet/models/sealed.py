"""Columns that hold sealed secrets, and how they are sealed anew under another key."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from fleet.db import db
from fleet.models.accounts import about_factor
from fleet.models.people import about_licence


@dataclass(frozen=True)
class Sealed:
    """A column of sealed secrets. `about` is what its rows' seals are bound to, made from the row's key."""

    table: str
    column: str
    key: str
    about: Callable[[UUID], bytes]


SEALED = (
    Sealed("webhook_endpoint", "secret", key="id", about=lambda endpoint_id: endpoint_id.bytes),
    Sealed("webhook_endpoint", "previous_secret", key="id", about=lambda endpoint_id: endpoint_id.bytes),
    Sealed("second_factor", "secret", key="user_id", about=about_factor),
    Sealed("customer", "driver_license_sealed", key="id", about=about_licence),
)


def under_other_keys(place: Sealed, name: bytes, *, after: UUID, limit: int) -> list[tuple[UUID, bytes]]:
    """Row and secret of what was sealed there under another key than the one of this name, in the order of the rows' keys."""
    sql = f"""SELECT {place.key}, {place.column} FROM {place.table}
        WHERE {place.key} > %s AND substr({place.column}, 1, %s) <> %s ORDER BY 1 LIMIT %s"""
    return [(row_id, bytes(secret)) for row_id, secret in db.rows(sql, (after, len(name), name, limit))]


def replace(place: Sealed, row_id: UUID, old: bytes, new: bytes) -> bool:
    """Write a secret where the one that was read still stands. Who rotates it meanwhile wins: what they write is newer."""
    sql = f"UPDATE {place.table} SET {place.column} = %s WHERE {place.key} = %s AND {place.column} = %s"
    return bool(db.execute_sql(sql, (new, row_id, old)).rowcount)
