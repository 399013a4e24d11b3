"""Writes docs/security/owasp-checklist.md from the table of controls and the report of a run (`make checklist`)."""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from tests.security.controls import CONTROLS, Control
from tests.source import ROOT

PAGE = ROOT / "docs" / "security" / "owasp-checklist.md"
HEAD = """# OWASP checklist

The OWASP API Security Top 10 (2023), and what else a service of this kind has to keep: each control with the file that
keeps it, the tests that fail when it is gone, and how they ended when this page was made. `make checklist` makes it, from a
run of just these tests; nobody types it. To add a control: `tests/security/controls.txt`.
"""
# How often each test ended in which way, by its name below tests/.
Results = dict[str, Counter[str]]


def page(results: Results | None) -> str:
    """The page; without results, only what does not depend on a run."""
    return "\n".join([HEAD, *(line for item, controls in CONTROLS.items() for line in _section(item, controls, results))])


def _section(item: str, controls: list[Control], results: Results | None) -> Iterator[str]:
    yield f"## {item}\n"
    yield "| control | file | test | last result |\n|---|---|---|---|"
    for control in controls:
        for nth, test in enumerate(control.tests):
            what, file = (control.what, f"`{control.file}`") if nth == 0 else ("", "")
            yield f"| {what} | {file} | `tests/{test}` | {'' if results is None else result_of(test, results)} |"
    yield ""


def result_of(test: str, results: Results) -> str:
    """How all the cases of a file, class or function ended, such as `passed (12)`."""
    ended = Counter[str]()
    for name, outcomes in results.items():
        if name == test or name.startswith(f"{test}::"):
            ended += outcomes
    return ", ".join(f"{outcome} ({count})" for outcome, count in sorted(ended.items())) or "not run"


def read(*reports: Path) -> Results:
    """How the tests of these reports ended; of a test that stands in two, as the later one says."""
    found: Results = {}
    for report in reports:
        ended: Results = {}
        for case in ElementTree.parse(report).iter("testcase"):
            outcome = next((child.tag for child in case if child.tag in {"failure", "error", "skipped"}), "passed")
            ended.setdefault(_name(case.attrib["classname"], case.attrib["name"]), Counter())[outcome] += 1
        found |= ended
    return found


def _name(classname: str, name: str) -> str:
    """`tests.api.test_x.TestY` and `test_z[1]` as pytest writes them on its command line, without the case."""
    parts = classname.split(".")[1:]
    stem = next(number for number, part in enumerate(parts) if part.startswith("test_"))
    path = "/".join(parts[: stem + 1]) + ".py"
    return "::".join([path, *parts[stem + 1 :], name.partition("[")[0]])


def write(*reports: Path) -> None:
    """Write the page from what the reports say."""
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(read(*reports)))


def run(report: Path) -> int:
    """Run the tests of the table, two files at once. Returns pytest's exit code."""
    tests = sorted({f"tests/{test}" for controls in CONTROLS.values() for control in controls for test in control.tests})
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", f"--junitxml={report}", *tests]
    return subprocess.run(command, cwd=ROOT).returncode


def main() -> int:
    """Write the page from the reports that were named (of `make test ARGS=--junitxml=...`), or from a run of its own."""
    if len(sys.argv) > 1:
        write(*map(Path, sys.argv[1:]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        ended = run(report)
        write(report)
    return ended


if __name__ == "__main__":
    sys.exit(main())
