"""The table of controls, the tests that it names and the page that shows it stand for each other."""

import ast
import re
from functools import cache

import pytest
from flask import Flask

from fleet import openapi
from fleet.db import db
from tests.security.checklist import PAGE, page
from tests.security.controls import CONTROLS
from tests.source import FUNCTIONS, ROOT

NAMED = sorted({test for controls in CONTROLS.values() for control in controls for test in control.tests})
# How many cases a test has comes and goes; that all of them passed stays.
PASSED = re.compile(r"\| passed \(\d+\) \|$", re.M)


@cache
def names_in(path: str) -> set[str]:
    """Every class and test of a file, as pytest names them."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    inside = {f"{kind.name}::{node.name}" for kind in classes for node in kind.body if isinstance(node, FUNCTIONS)}
    return {kind.name for kind in classes} | inside | {node.name for node in tree.body if isinstance(node, FUNCTIONS)}


@pytest.mark.parametrize("test", NAMED)
def test_every_test_of_the_table_exists(test: str) -> None:
    path, _, name = test.partition("::")
    assert (ROOT / "tests" / path).exists(), path
    assert not name or name in names_in(path), test


def test_every_control_has_a_test() -> None:
    assert [control.what for controls in CONTROLS.values() for control in controls if not control.tests] == []


def test_every_file_of_a_control_exists() -> None:
    files = {control.file for controls in CONTROLS.values() for control in controls}
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_item_of_the_top_ten_has_its_controls() -> None:
    numbers = [item.split()[0] for item, controls in CONTROLS.items() if item.startswith("API") and controls]
    assert numbers == [f"API{number}" for number in range(1, 11)]


def test_every_file_of_security_tests_is_in_the_table() -> None:
    """A control that nobody finds is one that somebody removes."""
    files = {path.name for path in (ROOT / "tests" / "security").glob("test_*.py")}
    assert files == {test.partition("::")[0].removeprefix("security/") for test in NAMED if test.startswith("security/")}


def test_the_page_shows_the_table_and_that_all_of_it_passed() -> None:
    """`make checklist` writes it. A row without a result, or with another one, is not what this page promises."""
    shown = PAGE.read_text()
    assert PASSED.sub("|  |", shown) == page(None), "run `make checklist`"
    assert len(PASSED.findall(shown)) == sum(len(item.tests) for controls in CONTROLS.values() for item in controls)


def test_no_operation_answers_what_a_spreadsheet_runs(app: Flask) -> None:
    """Whoever adds a CSV neutralises cells that begin with = + - @ or a control character, and says so in the table."""
    media = {media for _, _, declared, _ in openapi.operations(app) for media in declared.media}
    assert "application/json" in media and "application/pdf" in media
    assert not {kind for kind in media if "csv" in kind or "excel" in kind or "spreadsheet" in kind or "tab-sep" in kind}


def test_no_column_holds_what_is_no_number(app: Flask) -> None:
    """NaN is greater than every number of a `numeric` or a float, so that a CHECK on it would let it through."""
    loose = db.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND data_type IN ('numeric', 'real', 'double precision')"
    )
    assert loose == []
