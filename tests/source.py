"""The code as text: what each file of the service imports, defines and says. Nothing is run."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def files() -> dict[str, ast.Module]:
    """Every file that a deploy runs, by the dotted name it is imported as; migrations begin with digits and are left out."""
    paths = [ROOT / "app.py", ROOT / "wsgi.py", *(ROOT / "fleet").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]
    return {_module(path): ast.parse(path.read_text()) for path in sorted(paths) if not path.stem[0].isdigit()}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(name: str) -> set[str]:
    """The modules that a file imports: `from fleet import db` is fleet.db where there is such a module, else fleet."""
    found: set[str] = set()
    for node in ast.walk(files()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{name} imports relatively"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {item if item in files() else node.module for item in inner}
    return found


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method of a file."""
    for node in ast.walk(files()[name]):
        if isinstance(node, FUNCTIONS):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """A function's lines, without its decorators."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def strings(name: str) -> set[str]:
    """Every piece of text that a file holds; the fixed beginning of an f-string is one."""
    return {node.value for node in ast.walk(files()[name]) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def of_room(room: str) -> list[str]:
    """The modules of one room, such as fleet.services."""
    return [name for name in files() if name == room or name.startswith(f"{room}.")]


def is_standard(module: str) -> bool:
    """Whether a module comes with Python."""
    return module.partition(".")[0] in sys.stdlib_module_names
