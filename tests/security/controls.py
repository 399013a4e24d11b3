"""The security controls: what is required, where it is done, and the tests that fail when it is gone.

They stand in controls.txt: an item, its controls with their file in brackets, and below each its tests, indented: files,
classes or functions below tests/ as pytest names them. Whoever adds a control or a test adds lines there and runs `make
checklist`, which runs these tests and writes docs/security/owasp-checklist.md. tests/security/test_checklist.py holds page
and table together.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

TABLE = Path(__file__).with_name("controls.txt")
_CONTROL = re.compile(r"(\S.*) \[(\S+)\]")


@dataclass(frozen=True)
class Control:
    """One requirement, the file that keeps it, and its tests."""

    what: str
    file: str
    tests: list[str] = field(default_factory=list)


def read(table: str) -> dict[str, list[Control]]:
    """The controls by their item. Raises ValueError for a line that is none of the three kinds."""
    found: dict[str, list[Control]] = {}
    for line in filter(str.strip, table.splitlines()):
        if line.startswith("# "):
            controls = found.setdefault(line[2:], [])
        elif line.startswith("    "):
            controls[-1].tests.append(line.strip())
        elif control := _CONTROL.fullmatch(line):
            controls.append(Control(control[1], control[2]))
        else:
            raise ValueError(f"{TABLE.name}: {line}")
    return found


CONTROLS = read(TABLE.read_text())
