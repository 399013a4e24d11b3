"""The bars: what is asked of the service now, and what will be asked of it, with the verdict on what was measured."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Bar:
    """A bar: at least, or at most, so much. `bar` is asked now and `goal` later; None asks nothing."""

    title: str
    bar: float | None
    goal: float | None
    unit: str = "×"
    at_most: bool = False

    def reached(self, measured: float, asked: float | None) -> bool | None:
        """Whether it was reached; None where nothing is asked."""
        if asked is None:
            return None
        return measured <= asked if self.at_most else measured >= asked


BARS = {
    "reservation_8": Bar("reservations / the limit, 8 clients", 0.25, 0.33),
    "reservation_32": Bar("reservations / the limit, 32 clients", 0.35, 0.45),
    "asyncpg_8": Bar("reservations / bare FastAPI + asyncpg, 8 clients", None, 0.9),
    "asyncpg_32": Bar("reservations / bare FastAPI + asyncpg, 32 clients", None, 1.1),
    "layers_8": Bar("reservations / our own handler without layers", None, 0.80),
    "evenness": Bar("p99 / p50 of reservations, 8 clients", None, 5.0, at_most=True),
    "vehicle": Bar("single vehicle / bare Flask", None, 0.45),
    "rental": Bar("single rental / bare Flask", None, 0.45),
    "list": Bar("list of 50 rentals / bare Flask", 0.25, 0.28),
    "list_models": Bar("list of 50 rentals / the same by Peewee models", 4.0, 4.0),
    "availability": Bar("availability of a class at a branch / bare Flask", None, None),
    "crowd_seconds": Bar("500 clients for one vehicle", 2.0, None, unit="s", at_most=True),
    "crowd_answers": Bar("... of which one 201 and 499 times 409", 500, 500, unit=""),
    "crowd_ratio": Bar("... against 500 free reservations", None, 10.0, at_most=True),
    "memory": Bar("memory of the larger web worker", 120, 120, unit="MB", at_most=True),
    "lag_median": Bar("commit to ledger entry at half load, median", None, 250, unit="ms", at_most=True),
    "lag_p99": Bar("commit to ledger entry at half load, p99", None, 2000, unit="ms", at_most=True),
    "letters_median": Bar("commit to letter at half load, median", None, None, unit="ms", at_most=True),
    "letters_p99": Bar("commit to letter at half load, p99", None, None, unit="ms", at_most=True),
    "backlog_slowest": Bar("new ledger entries behind 50,000 letters, slowest", None, 5000, unit="ms", at_most=True),
    "statements_reservation": Bar("SQL statements of a reservation", None, 4, unit="", at_most=True),
    "statements_list": Bar("SQL statements of a list of 50", None, 2, unit="", at_most=True),
    "statements_read": Bar("SQL statements of a single read", None, 1, unit="", at_most=True),
    "wrong": Bar("answers that nobody should have got", 0, 0, unit="", at_most=True),
}


@dataclass(frozen=True)
class Result:
    """What was measured for a bar, and the figures behind it."""

    key: str
    measured: float
    behind: str = ""

    @property
    def bar(self) -> Bar:
        return BARS[self.key]

    @property
    def missed(self) -> bool:
        return self.bar.reached(self.measured, self.bar.bar) is False


@dataclass
class Report:
    """All results of a run, and tables that explain them."""

    results: list[Result] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, key: str, measured: float, behind: str = "") -> None:
        self.results.append(Result(key, measured, behind))

    @property
    def missed(self) -> bool:
        return any(result.missed for result in self.results)

    def table(self) -> str:
        """One line a bar."""
        head = ("bar", "measured", "asked", "verdict", "goal", "", "behind")
        rows = [head, *(_cells(result) for result in self.results)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
        lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows]
        return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *self.notes])

    def keep(self, history: Path, **about: Any) -> None:
        """Append the run to the history, one JSON object a line."""
        figures = {result.key: round(result.measured, 4) for result in self.results}
        behind = {result.key: result.behind for result in self.results if result.behind}
        line = {"at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "commit": _commit(), **about}
        history.parent.mkdir(parents=True, exist_ok=True)
        with history.open("a") as file:
            file.write(json.dumps({**line, "figures": figures, "behind": behind}, ensure_ascii=False) + "\n")


def _cells(result: Result) -> tuple[str, ...]:
    bar, measured = result.bar, result.measured
    verdict = {True: "met", False: "MISSED", None: "–"}
    return (
        bar.title,
        _figure(measured, bar),
        _asked(bar.bar, bar),
        verdict[bar.reached(measured, bar.bar)],
        _asked(bar.goal, bar),
        {True: "met", False: "not yet", None: ""}[bar.reached(measured, bar.goal)],
        result.behind,
    )


def _figure(value: float, bar: Bar) -> str:
    digits = 2 if bar.unit in {"×", "s"} else 0
    return f"{value:.{digits}f} {bar.unit}".strip()


def _asked(value: float | None, bar: Bar) -> str:
    return "" if value is None else f"{'≤' if bar.at_most else '≥'} {_figure(value, bar)}"


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip()
