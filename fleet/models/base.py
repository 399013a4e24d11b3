"""What every table shares: the database, aware timestamps, identifiers made by the service, keyset pages."""

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, ClassVar
from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import cache, clock
from fleet.db import Row, db
from fleet.errors import VersionConflict


class Model(peewee.Model):
    """Tables are made by migrations; the models say what the code reads and writes of them."""

    class Meta:
        database = db
        legacy_table_names = False


class Versioned(Model):
    """A row that people edit. The database counts `version` at every update; what is cached of it is invalidated."""

    cached_in: ClassVar[cache.Namespace | None] = None
    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    version = peewee.IntegerField(default=1)
    created_at = DateTimeTZField(default=clock.now)
    updated_at = DateTimeTZField(default=clock.now)

    def change(self, *, expected_version: int | None = None, **values: Any) -> None:
        """Write `values` where the version is still the expected one (by default: the one that was read).

        Two edits of one version cannot both match, so the later one raises VersionConflict instead of burying the first.
        No values at all write nothing.
        """
        expected = self.version if expected_version is None else expected_version
        if not values:
            if expected != self.version:
                raise VersionConflict()
            return
        model = type(self)
        changed = (
            model.update(**values)
            .where((model.id == self.id) & (model.version == expected))
            .returning(model.version, model.updated_at)
            .tuples()
            .execute()
        )
        written = next(iter(changed), None)
        if written is None:
            raise VersionConflict()
        for name, value in values.items():
            setattr(self, name, value)
        self.version, self.updated_at = written
        self.changed()

    def delete_instance(self, *args: Any, **kwargs: Any) -> int:
        deleted: int = super().delete_instance(*args, **kwargs)
        self.changed()
        return deleted

    def changed(self) -> None:
        """Whoever reads the row when this transaction has committed reads it as it is then."""
        if self.cached_in is not None:
            cache.forget_after_commit(self.cached_in, f"{self.id}")


@dataclass(frozen=True)
class Condition:
    """A piece of a WHERE clause with its parameters."""

    sql: str
    params: tuple[Any, ...] = ()


def in_state(column: str, state: str) -> Condition:
    """Rows in one of a few states. As a parameter it would soon be planned for any state, as if each had its even share of the
    rows: a page of a rare one would then walk through the whole table to find few or none. So it stands in the text.
    """
    if not state.isidentifier():
        raise ValueError(f"{state!r} is no state")
    return Condition(f"{column} = '{state}'")


NOTHING, EVERYTHING = Condition("false"), Condition("true")
MAX_PAGE = 200
A_FEW = 5
"""As many as are offered instead of what is taken."""
_USUAL_LIMITS = {0, A_FEW, 50, 100, MAX_PAGE}


@dataclass(frozen=True)
class Listing:
    """A list that is read a page at a time, newest first, by one statement whatever its length.

    `columns` maps the names that clients see to SQL; `source` is what follows FROM. The key is the time-ordered id, so the
    page after a row starts right below it at any depth.
    """

    columns: dict[str, str]
    source: str
    key: str = "id"
    shown: bool = False
    """Nothing looks at the rows before clients do: instants are text at once."""

    def page(self, conditions: list[Condition], *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
        """At most `limit` + 1 rows: one more than asked for tells that there is a next page."""
        return [self.named(row) for row in self._rows(conditions, after=after, limit=limit)]

    def first_column(self, conditions: list[Condition], *, after: UUID | None, limit: int) -> list[Any]:
        """Of a page's rows only what stands in the first column."""
        return [row[0] for row in self._rows(conditions, after=after, limit=limit)]

    def first(self, conditions: list[Condition]) -> dict[str, Any] | None:
        """The newest row that meets all conditions."""
        rows = self.page(conditions, after=None, limit=0)
        return rows[0] if rows else None

    def statement(self, conditions: list[Condition], *, after: UUID | None, limit: int) -> tuple[str, list[Any]]:
        """What asks for a page, and its parameters. The limit stands in the text, so that the plan is made for it."""
        if after is not None:
            conditions = [*conditions, Condition(f"{self.key} < %s", (after,))]
        where = " AND ".join(f"({condition.sql})" for condition in conditions) or "true"
        params = [value for condition in conditions for value in condition.params]
        return f"{self._select} WHERE {where} ORDER BY {self.key} DESC LIMIT {limit + 1:d}", params

    def _rows(self, conditions: list[Condition], *, after: UUID | None, limit: int) -> list[Row]:
        sql, params = self.statement(conditions, after=after, limit=limit)
        # A text for each limit: only those of the usual ones are worth keeping prepared.
        return db.recurring(sql, params, shown=self.shown) if limit in _USUAL_LIMITS else db.rows(sql, params)

    def named(self, row: Row) -> dict[str, Any]:
        return dict(zip(self.columns, row, strict=True))

    @cached_property
    def shape(self) -> str:
        """Changes when the rows do: what a release before put into the cache is not taken for ours."""
        return sha256(self._select.encode()).hexdigest()[:12]

    @cached_property
    def _select(self) -> str:
        columns = ", ".join(self.columns.values())
        return f"SELECT {columns} FROM {self.source}"
