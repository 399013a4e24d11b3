"""`make faults`: every fault of docs/failure-modes.md against the real processes, and the proof after each.

ARGS="--seed 7 --only redis-frozen one-key-50" repeats some of them with their chances as they were; ARGS="--short" is quick.
The exit code is 1 when anything was lost, duplicated, wrong or not recovered in time. Each run is appended to
var/faults-history.jsonl, and what every client sent and saw is in var/faults-exchanges.jsonl. Drills at full length write
their figures, with the commit, into docs/failure-modes.md.
"""

import argparse
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fleet.embedded import InUse, StartFailed
from tests.faults import pages
from tests.faults.performance import Outcome, Performer
from tests.faults.repertoire import DRILLS
from tests.faults.stage import ROOT, Stage, StageBroken, stage

HISTORY = ROOT / "var" / "faults-history.jsonl"
EXCHANGES = ROOT / "var" / "faults-exchanges.jsonl"
SHOWN = 8
HEAD = (
    "drill", "faults", "requests", "503", "cut", "5xx", "lost", "doubled", "letters twice", "slowest", "web", "all", "verdict",
)  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """One line a drill."""
    rows = [HEAD, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _cells(outcome: Outcome) -> tuple[str, ...]:
    counts = (outcome.faults, outcome.requests, outcome.unavailable, outcome.cut, outcome.failed_badly)
    kinds = (outcome.count("lost"), outcome.count("duplicated"), outcome.letters_twice)
    seconds = (outcome.slowest_s, outcome.web_s, outcome.settled_s)
    verdict = "held" if outcome.held else "FAILED"
    return (outcome.drill, *map(str, counts), *map(str, kinds), *(f"{value:.1f} s" for value in seconds), verdict)


def details(outcome: Outcome) -> str:
    """What was remarkable about a drill, and the first of what is wrong."""
    lines = [f"\n  {remark}" for remark in outcome.remarks]
    lines += [f"\n  {finding}" for finding in outcome.findings[:SHOWN]]
    if len(outcome.findings) > SHOWN:
        lines.append(f"\n  ... and {len(outcome.findings) - SHOWN} more")
    return "".join(lines)


def perform(place: Stage, names: Sequence[str], outcomes: list[Outcome], *, seed: int, full: bool) -> None:
    """Perform these drills, one after the other; `outcomes` grows with each."""
    performer = Performer(place, seed, full=full)
    for name in names:
        outcome = performer.perform(DRILLS[name])
        outcomes.append(outcome)
        print(f"{name}: {'held' if outcome.held else 'FAILED'} after {outcome.took_s:.0f} s{details(outcome)}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit code."""
    chosen = _arguments(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    print(f"seed {chosen.seed}", flush=True)
    outcomes: list[Outcome] = []
    try:
        with stage(chosen.seed) as place:
            try:
                perform(place, chosen.only, outcomes, seed=chosen.seed, full=not chosen.short)
            finally:
                place.history.write(EXCHANGES)
                print(table(outcomes), flush=True)
    except (InUse, StartFailed, StageBroken) as problem:
        print(problem, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    print(f'seed {chosen.seed}: make faults ARGS="--seed {chosen.seed}" repeats this run')
    commit = _commit()
    _keep(HISTORY, commit, chosen.seed, not chosen.short, outcomes)
    if not chosen.short:
        pages.keep(commit, chosen.seed, [outcome.figures() for outcome in outcomes])
    return 0 if all(outcome.held for outcome in outcomes) else 1


def _commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()


def _keep(path: Path, commit: str, seed: int, full: bool, outcomes: Sequence[Outcome]) -> None:
    line = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": commit, "seed": seed, "full": full}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({**line, "drills": [outcome.figures() for outcome in outcomes]}) + "\n")


def _stop(*_: object) -> None:
    """Stop, once: a second Ctrl-C must not keep us from ending what we started."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description="Break things, and prove that nothing is lost.")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats the chances of a run")
    parser.add_argument("--only", nargs="+", choices=list(DRILLS), default=list(DRILLS), metavar="DRILL", help=" ".join(DRILLS))
    parser.add_argument("--short", action="store_true", help="shorter faults, smaller backlog, leases pass at once")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(main())
