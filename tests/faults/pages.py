"""`python -m tests.faults.pages`: writes into docs/failure-modes.md what drills, modes and the last run of each drill say.

`make faults` writes last_run.json first. Only what stands between the markers is written; the rest is prose.
"""

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.modes import MODES
from tests.faults.repertoire import DRILLS
from tests.source import ROOT

PAGE = ROOT / "docs" / "failure-modes.md"
LAST_RUN = Path(__file__).with_name("last_run.json")

Figures = dict[str, Any]


def last_run() -> dict[str, Figures]:
    """The last run of each drill at full length, by its name, in the order of the drills."""
    told = {figures["drill"]: figures for figures in json.loads(LAST_RUN.read_text())}
    return {name: told[name] for name in DRILLS if name in told}


def keep(commit: str, seed: int, drills: Sequence[Figures]) -> None:
    """Keep what was performed at full length, each with where it ran, and write the page anew. The other drills stay as they
    were: a single one that is repeated says so by its commit.
    """
    told = last_run() | {one["drill"]: {**one, "commit": commit, "seed": seed} for one in drills}
    LAST_RUN.write_text(json.dumps(list(told.values()), indent=1) + "\n")
    PAGE.write_text(written(PAGE.read_text()))


def written(page: str) -> str:
    """The page with its parts as they should be."""
    for name, part in {"matrix": _matrix(), "drills": _drills(), "last runs": _table()}.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{part}\n{end}", page, flags=re.DOTALL)  # noqa: B023
    return page


def _matrix() -> str:
    ran = last_run()
    lines = ["| what | fails how | clients see | is lost | heals | proven by |", "|---|---|---|---|---|---|"]
    for mode in MODES:
        proofs = "; ".join(_proof(proof, ran.get(proof)) for proof in mode.proofs)
        lines.append(f"| {mode.dependency} | {mode.failure} | {mode.clients} | {mode.lost} | {mode.heals} | {proofs} |")
    return "\n".join(lines)


def _proof(name: str, figures: Figures | None) -> str:
    if name not in DRILLS:
        path, _, test = name.partition("::")
        return f"[{test.replace('_', ' ') or Path(path).name}](../{path})"
    if figures is None:
        return f"`{name}`"
    return f"`{name}`: {figures['unavailable']} × 503, lost {figures['lost']}, doubled {figures['duplicated']}"


def _drills() -> str:
    lines = ["| drill | what it proves |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {drill.proves} |" for name, drill in DRILLS.items())])


def _table() -> str:
    ran = last_run()
    lines = [
        "| drill | faults | requests | 503 | cut | 5xx | lost | doubled | letters twice | slowest "
        "| web | all | verdict | at | seed |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    counts = ("faults", "requests", "unavailable", "cut", "failed_badly", "lost", "duplicated", "letters_twice")
    for name, one in ran.items():
        seconds = [f"{one[measure]:.1f} s" for measure in ("slowest_s", "web_s", "settled_s")]
        verdict = "held" if not one["findings"] else "FAILED"
        cells = [name, *(str(one[count]) for count in counts), *seconds, verdict, one["commit"], str(one["seed"])]
        lines.append(f"| {' | '.join(cells)} |")
    missing = [f"`{name}`" for name in DRILLS if name not in ran]
    return "\n".join([*lines, *(["", f"No full-length run is kept of {', '.join(missing)}."] if missing else [])])


def main() -> int:
    """Write the page from the modes, the drills and their last runs."""
    PAGE.write_text(written(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
