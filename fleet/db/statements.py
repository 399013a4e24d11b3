"""Statements that are prepared once on each connection."""

import functools
import hashlib
import itertools
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Statement:
    """A hot statement, prepared once on each connection. Parameters are $1, $2, ... with their types named."""

    name: str
    types: tuple[str, ...]
    sql: str

    @functools.cached_property
    def prepare(self) -> str:
        """To be sent as `execute` is, with parameters, of which it has none: so a percent sign is written %%."""
        types = f" ({', '.join(self.types)})" if self.types else ""
        return f"PREPARE {self.name}{types} AS {self.sql.replace('%', '%%')}"

    @functools.cached_property
    def execute(self) -> str:
        marks = f" ({', '.join(['%s'] * len(self.types))})" if self.types else ""
        return f"EXECUTE {self.name}{marks}"


def prepared_form(sql: str, count: int) -> Statement:
    """The statement with $1, $2, ... for its %s; PostgreSQL finds out their types."""
    numbers = itertools.count(1)
    numbered = re.sub(r"%[s%]", lambda found: "%" if found[0] == "%%" else f"${next(numbers)}", sql)
    return Statement(f"recurring_{hashlib.sha256(sql.encode()).hexdigest()[:16]}", ("unknown",) * count, numbered)
