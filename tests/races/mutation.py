"""Taking locks and constraints away, to see that the races then show."""

import ast
import functools
import importlib
import re
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest

from fleet.db import Statement, db
from fleet.embedded import Databases
from tests import source

ROW_LOCK = re.compile(
    r"\s\bFOR\s+(?:NO\s+KEY\s+UPDATE|UPDATE|KEY\s+SHARE|SHARE)\b(?:\s+OF\s+\w+)?(?:\s+(?:SKIP\s+LOCKED|NOWAIT))?"
)
KEY_LOCK = re.compile(r"pg_try_advisory_xact_lock\((\$1|%s)\)")
IN_THE_NAME = ("_for_update", "_for_share", "_FOR_UPDATE", "_FOR_SHARE")
_FUNCTION_OF_DATABASE = re.compile(r"CREATE FUNCTION (\w+)\(.*?\$\$;", re.DOTALL)


# --- where the locks are ----------------------------------------------------------------------------------------------


@functools.cache
def locks_of_source() -> dict[str, str]:
    """Every lock that the service takes, by the name of its function or statement, and the module where it is."""
    found = {lock: module for module, tree in source.files().items() for lock in _locks_of_module(tree)}
    return found | dict.fromkeys(_locks_of_database(), "the database")


def _locks_of_module(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield from _locks_of_function(node)
        elif isinstance(node, ast.ClassDef):
            yield from (lock for item in node.body if isinstance(item, ast.FunctionDef) for lock in _locks_of_function(item))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _takes_a_lock(_text(node.value)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            yield ast.unparse(target)


def _locks_of_function(function: ast.FunctionDef) -> Iterator[str]:
    said = function.body[1:] if ast.get_docstring(function) else function.body
    nodes = [node for part in said for node in ast.walk(part)]
    calls = {ast.unparse(node.func).rpartition(".")[2] for node in nodes if isinstance(node, ast.Call)}
    locks = "for_update" in calls or any(_takes_a_lock(_text(part)) for part in said)
    if locks or function.name.endswith(IN_THE_NAME):
        yield function.name


def _text(node: ast.AST) -> str:
    constants = (item.value for item in ast.walk(node) if isinstance(item, ast.Constant))
    return " ".join(value for value in constants if isinstance(value, str))


def _takes_a_lock(text: str) -> bool:
    return bool(("SELECT" in text and ROW_LOCK.search(text)) or KEY_LOCK.search(text))


def _locks_of_database() -> set[str]:
    """The functions of triggers that lock: they stand in the migrations."""
    text = "\n".join(path.read_text() for path in (source.ROOT / "fleet" / "migrations").glob("0*.py"))
    commentless = re.sub(r"--.*", "", text)
    return {made[1] for made in _FUNCTION_OF_DATABASE.finditer(commentless) if ROW_LOCK.search(made[0])}


def _module_of(name: str) -> str:
    """Where a statement stands that is made of a lock's piece."""
    homes = (module for module, tree in source.files().items() for node in tree.body if name in _names_given_by(node))
    return next(homes)


def _names_given_by(node: ast.stmt) -> list[str]:
    return [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []


# --- taking them away -------------------------------------------------------------------------------------------------


@contextmanager
def without(patch: pytest.MonkeyPatch, lock: str, *, replace: tuple[str, str] | None = None) -> Iterator[None]:
    """Run without the lock of this name, or with one part of it replaced, such as ("SKIP LOCKED", "")."""
    remove = functools.partial(_unlocked, replace=replace)
    module = locks_of_source().get(lock) or _module_of(lock)
    if module == "the database":
        with _function_of_database_without(lock, remove):
            yield
        return
    with patch.context() as patched:
        original = getattr(importlib.import_module(module), lock)
        replacement = _replaced(original, remove, patched)
        for place, name in _places_of(original):
            patched.setattr(place, name, replacement)
        yield


def _unlocked(sql: str, *, replace: tuple[str, str] | None) -> str:
    return sql.replace(*replace) if replace else KEY_LOCK.sub(r"(\1 IS NOT NULL)", ROW_LOCK.sub("", sql))


def _replaced(original: Any, remove: Callable[[str], str], patched: pytest.MonkeyPatch) -> Any:
    if isinstance(original, Statement):
        sql = remove(original.sql)
        # A name of its own: a connection keeps what was prepared on it under the usual one.
        return Statement(f"{original.name}_{zlib.crc32(sql.encode())}", original.types, sql)
    if isinstance(original, str):
        return remove(original)
    inside = threading.local()
    execute = db._execute

    def executed(sql: str, params: Any) -> Any:
        return execute(remove(sql) if getattr(inside, "it", False) else sql, params)

    @functools.wraps(original)
    def unlocked(*args: Any, **kwargs: Any) -> Any:
        inside.it = True
        try:
            return original(*args, **kwargs)
        finally:
            inside.it = False

    patched.setattr(db, "_execute", executed)
    return unlocked


def _places_of(original: Any) -> list[tuple[Any, str]]:
    """Every name under which a loaded module of the service knows the object."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in {"fleet", "tasks", "tests"}]
    return [(module, name) for module in modules for name, value in vars(module).items() if value is original]


@contextmanager
def _function_of_database_without(function: str, remove: Callable[[str], str]) -> Iterator[None]:
    definition = db.rows("SELECT pg_get_functiondef(%s::regproc)", (function,))[0][0]
    unlocked = remove(re.sub(r"--.*", "", definition))
    assert unlocked != definition
    _define(unlocked)
    try:
        yield
    finally:
        _define(definition)


def _define(sql: str) -> None:
    db.execute_sql(sql.replace("%", "%%"))


@contextmanager
def weakened(databases: Databases, table: str, constraint: str, definition: str) -> Iterator[None]:
    """Give a constraint another definition under its own name, so that statements that name it still run."""
    usual = db.rows("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", (constraint,))[0][0]
    _constrain(table, constraint, definition)
    try:
        yield
    finally:
        # Nothing may be left that the constraint would refuse when it comes back.
        empty(databases, table)
        _constrain(table, constraint, usual)


def _constrain(table: str, constraint: str, definition: str) -> None:
    db.execute_sql(f"ALTER TABLE {table} DROP CONSTRAINT {constraint}, ADD CONSTRAINT {constraint} {definition}")


def empty(databases: Databases, *tables: str) -> None:
    """Delete every row of these, past the guards that keep them."""
    connection = psycopg2.connect(databases.superuser_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("; ".join(f"DELETE FROM {table}" for table in tables))
    connection.close()
