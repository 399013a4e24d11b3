"""The documentation says what the code says: a setting, an error code or a permission that it leaves out fails here."""

import re
from pathlib import Path

import pytest

from fleet import auth, config, openapi
from tests.source import ROOT

NOT_READ_YET = "not read yet"
API, RUNNING, EXAMPLE = ROOT / "docs" / "api.md", ROOT / "docs" / "running.md", ROOT / ".env.example"
# Read by what starts the service, not by the service.
READ_ELSEWHERE = (ROOT / "deploy" / "gunicorn.conf.py", ROOT / "Procfile", ROOT / "Makefile", ROOT / "fleet" / "cli.py")


def text_of(path: Path) -> str:
    assert path.exists(), f"{path.relative_to(ROOT)} is missing"
    return path.read_text()


def roles_table() -> str:
    """Who may do what, as docs/api.md shows it."""
    lines = [
        "| permission | " + " | ".join(f"`{role}`" for role in auth.ROLES) + " |",
        "|---" * (len(auth.ROLES) + 1) + "|",
    ]
    for permission in sorted(auth.PERMISSIONS):
        cells = ("yes" if permission in allowed else " " for allowed in auth.ROLES.values())
        lines.append(f"| `{permission}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def example(part: str) -> dict[str, str]:
    """The variables of .env.example with their values; those that are commented out show their defaults."""
    return dict(re.findall(r"^#? ?([A-Z][A-Z0-9_]*)=(.*)$", part, re.M))


def example_parts() -> tuple[str, str]:
    """What the service reads, and what belongs to the contract and is not read yet."""
    read, _, promised = text_of(EXAMPLE).partition(NOT_READ_YET)
    return read, promised


def test_every_error_code_is_in_the_docs_with_its_status() -> None:
    documented = text_of(API)
    lines = documented.splitlines()
    left_out = {
        code: status
        for code, status in openapi.codes().items()
        if not any(f"`{code}`" in line and re.search(rf"\b{status}\b", line) for line in lines)
    }
    assert left_out == {}


def test_the_docs_show_the_table_of_roles() -> None:
    assert roles_table() in text_of(API), f"docs/api.md must hold this table:\n{roles_table()}"


@pytest.mark.parametrize("name", config.names())
def test_every_setting_is_in_the_docs(name: str) -> None:
    assert f"`{name}`" in text_of(RUNNING)


def test_every_setting_is_in_the_example() -> None:
    assert set(config.names()) - set(example(example_parts()[0])) == set()


def test_the_example_names_nothing_that_nobody_reads() -> None:
    elsewhere = "".join(text_of(path) for path in READ_ELSEWHERE)
    assert [name for name in set(example(example_parts()[0])) - set(config.names()) if name not in elsewhere] == []


def test_what_the_example_calls_unread_is_unread() -> None:
    assert set(example(example_parts()[1])) & set(config.names()) == set()


def test_every_default_in_the_example_is_the_one_of_the_code() -> None:
    optional = dict(re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", example_parts()[0], re.M))
    shown = {name: value for name, value in optional.items() if name in config.names()}
    assert shown == {name: as_shown(config.names()[name]) for name in shown}


def test_every_default_in_the_docs_is_the_one_of_the_code() -> None:
    """A row such as `| `WEB_THREADS` | 8 | ...` names the default in its second cell."""
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", text_of(RUNNING), re.M))
    shown = {name: cell.strip(" `") for name, cell in rows.items() if name in config.names()}
    assert shown == {name: as_shown(config.names()[name]) for name in shown}


def as_shown(default: object) -> str:
    """A default as a person writes it: nothing for an empty one."""
    if isinstance(default, bool):
        return "true" if default else "false"
    return ",".join(default) if isinstance(default, tuple) else f"{default}"


def test_every_promise_of_security_names_a_test_that_exists() -> None:
    promises = re.findall(r"^\| (?!promise|-)(.+?) \| `(tests/[^`]+)` \|$", text_of(ROOT / "SECURITY.md"), re.M)
    assert len(promises) >= 15
    for promise, name in promises:
        path, *inside, test = name.split("::")
        code = text_of(ROOT / path)
        assert re.search(rf"^ *def {test}\(", code, re.M), f"no test shows that {promise!r}: {name}"
        assert all(f"class {group}" in code for group in inside), name
