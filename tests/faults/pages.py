"""`python -m tests.faults.pages`: writes into docs/failure-modes.md what drills, modes and the last full run say.

A full run of `make faults` writes last_run.json first. Only what stands between the markers is written; the rest is prose.
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


def last_run() -> dict[str, Any]:
    """The last full run, as `keep` wrote it."""
    told: dict[str, Any] = json.loads(LAST_RUN.read_text())
    return told


def keep(commit: str, seed: int, drills: Sequence[Figures], *, note: str = "") -> None:
    """Keep a full run, and write the page anew. `note` is what a reader of its figures has to know."""
    LAST_RUN.write_text(json.dumps({"commit": commit, "seed": seed, "note": note, "drills": list(drills)}, indent=1) + "\n")
    PAGE.write_text(written(PAGE.read_text()))


def written(page: str) -> str:
    """The page with its parts as they should be."""
    for name, part in {"matrix": _matrix(), "drills": _drills(), "last run": _table()}.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{part}\n{end}", page, flags=re.DOTALL)  # noqa: B023
    return page


def _matrix() -> str:
    ran = {one["drill"]: one for one in last_run()["drills"]}
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
    run = last_run()
    lines = [
        f"Seed {run['seed']}, at {run['commit']}. {run['note']}".strip(),
        "",
        "| drill | faults | requests | 503 | cut | 5xx | lost | doubled | letters twice | slowest | web | all | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    counts = ("faults", "requests", "unavailable", "cut", "failed_badly", "lost", "duplicated", "letters_twice")
    for one in run["drills"]:
        seconds = [f"{one[name]:.1f} s" for name in ("slowest_s", "web_s", "settled_s")]
        verdict = "held" if not one["findings"] else "FAILED"
        lines.append(f"| {' | '.join([one['drill'], *(str(one[name]) for name in counts), *seconds, verdict])} |")
    return "\n".join(lines)


def main() -> int:
    """Write the page from the modes, the drills and the last full run."""
    PAGE.write_text(written(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
