"""`make bench`: the service beside what limits it and what others would make of it, as ratios, in one run.

ARGS="--quick" takes a look in less than a minute; ARGS="--only reservation reads" measures a part. The exit code is 1 when a
bar is missed, 2 when something could not be measured. Every run is appended to var/bench-history.jsonl.
"""

import argparse
import os
import signal
import sys
import time

import psutil

from fleet.embedded import InUse, StartFailed
from tests.load.arena import ROOT, ArenaBroken, arena
from tests.load.bars import Report
from tests.load.parts import FULL, PARTS, QUICK, Bench

HISTORY = ROOT / "var" / "bench-history.jsonl"
QUIET_PERCENT = 10


def run(bench: Bench, parts: list[str]) -> Report:
    """Measure the parts, one after the other."""
    for part in parts:
        started = time.monotonic()
        PARTS[part](bench)
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return bench.report


class Others:
    """How much of the machine everybody but us uses: what spoils a measurement."""

    def __init__(self) -> None:
        self._started, self._busy, self._ours = time.monotonic(), _busy_s(), _ours_s()

    def busy_percent(self) -> float:
        """Since the start, when all that we started has ended."""
        theirs = _busy_s() - self._busy - (_ours_s() - self._ours)
        return max(0.0, 100 * theirs / (time.monotonic() - self._started) / (os.cpu_count() or 1))


def _busy_s() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0)


def _ours_s() -> float:
    """Processor time of this process and of all its descendants that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main() -> int:
    """Run from the command line; returns the exit code."""
    chosen = _arguments()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    report, others, broken = Report(), Others(), False
    try:
        with arena() as place:
            run(Bench(place, QUICK if chosen.quick else FULL, report), chosen.only)
    except (InUse, StartFailed, ArenaBroken) as problem:
        # What was measured before is told all the same.
        print(problem, file=sys.stderr)
        broken = True
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    noise = others.busy_percent()
    advice = "." if noise < QUIET_PERCENT else ": measure again when it is quiet."
    report.notes += ["", f"Others used {noise:.0f} % of this machine meanwhile{advice}"]
    print(report.table())
    report.keep(HISTORY, quick=chosen.quick, parts=chosen.only, others_busy_percent=round(noise), broken=broken)
    return 2 if broken else int(report.missed)


def _stop(*_: object) -> None:
    """Stop, once: a second Ctrl-C must not keep us from ending what we started."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: a look, not a measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
