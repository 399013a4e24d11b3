"""Circuit breakers over all processes: what operators say reaches each of them, and how each stands can be seen.

Each process decides for itself. A thread of it looks every half second at the board in Redis for an operator's word, and
says there how its breakers stand. The record is in PostgreSQL: it fills the board again when Redis was flushed, and is asked
itself, more seldom, while Redis is away. Without both the last word that was heard holds.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import peewee

from fleet import breakers, clock
from fleet.auth import Actor
from fleet.breakers import AUTO, FORCED_CLOSED, FORCED_OPEN, POSTGRESQL, Control
from fleet.db import atomic, db
from fleet.errors import InvalidState, NotFound
from fleet.gateways.board import Away, Board
from fleet.models import breakers as models
from fleet.services import audit, processes

log = logging.getLogger("fleet.circuit_breakers")

Kind = Literal["web", "worker", "relay"]

LOOK_EVERY_S, REPORT_EVERY_S = 0.5, 2.0
# How often one process reads the record itself: while the board cannot be read, and while it is empty.
ASK_AWAY_S, ASK_EMPTY_S = 5.0, 1.0  # away, or it takes nothing, as when it is full
_WORST = {"closed": 0, "half_open": 1, "open": 2}


class Sharing:
    """One process's part in it. Make it anywhere; start it only where the process will not fork any more."""

    def __init__(self, board: Board, kind: Kind) -> None:
        self.board, self.kind = board, kind
        self.process = ""
        self._ask_at = self._reported_at = float("-inf")
        self._deaf = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Look and report from now on, in a thread beside all others."""
        self.process = processes.name_of_this(self.kind)
        threading.Thread(target=self._run, name="breakers", daemon=True).start()

    def stop(self) -> None:
        self._ended.set()

    def turn(self) -> None:
        """Look once, and report where there is something new or it is time to. Never raises."""
        try:
            new = self._hear()
            if new or time.monotonic() - self._reported_at >= REPORT_EVERY_S:
                self._report()
        except Exception as error:  # this thread must outlive whatever drivers raise
            log.error("breakers are not shared", extra={"cause": type(error).__name__})

    def tell(self, name: str, word: Control) -> None:
        """Obey a word that was just written, and pass it on. Who does not hear it from the board reads the record."""
        breakers.obey({name: word})
        with suppress(Away):
            self.board.tell(name, word)

    def reports(self) -> tuple[list[dict[str, Any]], bool]:
        """How the breakers of all processes stand, this one's as of now; and whether the others could be heard."""
        mine = {
            "process": self.process or processes.name_of_this(self.kind),
            "kind": self.kind,
            "at": time.time(),
            "breakers": [asdict(one.reading()) for one in breakers.known()],
        }
        try:
            others = [report for report in self.board.reports() if report["process"] != self.process]
        except Away:
            return [mine], False
        return [mine, *others], True

    def _run(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self.turn()

    def _hear(self) -> bool:
        try:
            words = self.board.controls()
            away = False
        except Away:
            words, away = None, True
        self._note_deafness(away)
        if words is None and time.monotonic() >= self._ask_at:
            words = _recorded()
            filled = words is not None and not away and self._fill(words)
            self._ask_at = time.monotonic() + (ASK_EMPTY_S if filled else ASK_AWAY_S)
        return breakers.obey(words or {})

    def _fill(self, words: dict[str, Control]) -> bool:
        try:
            self.board.fill(words)
        except Away:
            return False
        return True

    def _note_deafness(self, away: bool) -> None:
        if away != self._deaf:
            self._deaf = away
            log.log(logging.WARNING if away else logging.INFO, "breakers are shared" if not away else "breakers stay local")

    def _report(self) -> None:
        with suppress(Away):
            self.board.report(self.process, self.kind, [one.reading() for one in breakers.known()])
            self._reported_at = time.monotonic()


def _recorded() -> dict[str, Control] | None:
    """What the record says, by a connection that is not kept; None when PostgreSQL does not answer."""
    try:
        return models.controls()
    except peewee.PeeweeException:
        return None
    finally:
        with suppress(peewee.PeeweeException):
            db.close()


# --- what operators see and do ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessState:
    """One process's breaker. `heard`: whether it has got the operators' last word yet."""

    process: str
    kind: str
    reported_at: datetime
    state: str
    failures: int
    opened_at: datetime | None
    control: str
    heard: bool


@dataclass(frozen=True)
class BreakerState:
    """One breaker over all processes: the worst state, all failures within their windows, since when the first is open."""

    name: str
    state: str
    failures: int
    opened_at: datetime | None
    control: str
    controlled_by: str | None
    controlled_at: datetime | None
    reason: str | None
    processes: list[ProcessState]


@dataclass(frozen=True)
class Picture:
    """All breakers. `shared` is False while Redis is away: then this process's own are all that is seen."""

    as_of: datetime
    shared: bool
    breakers: list[BreakerState]


def seen(actor: Actor, sharing: Sharing) -> Picture:
    """Every breaker that a process has, an operator has spoken of, or the service may need."""
    return _picture(sharing, models.controls())


def watched(sharing: Sharing) -> Picture:
    """The same for metrics: without PostgreSQL, nobody has said anything. Never raises."""
    try:
        words = models.controls()
    except peewee.PeeweeException:
        words = {}
    return _picture(sharing, words)


def _picture(sharing: Sharing, words: dict[str, Control]) -> Picture:
    reports, shared = sharing.reports()
    by_name: dict[str, list[ProcessState]] = defaultdict(list)
    for name, state in _states(reports, words):
        by_name[name].append(state)
    names = sorted({*by_name, *words, *breakers.NAMES})
    return Picture(clock.now(), shared, [_joined(name, by_name[name], words.get(name)) for name in names])


def shown(actor: Actor, name: str, sharing: Sharing) -> BreakerState:
    """One breaker over all processes. Raises NotFound."""
    found = next((state for state in seen(actor, sharing).breakers if state.name == name), None)
    if found is None:
        raise NotFound()
    return found


def control(actor: Actor, name: str, state: str, *, reason: str | None, sharing: Sharing) -> BreakerState:
    """Hold a breaker open or closed in all processes, or let it decide again, afresh (AUTO). Raises NotFound, InvalidState."""
    before = shown(actor, name, sharing)
    if (name, state) == (POSTGRESQL, FORCED_OPEN):
        raise InvalidState("Without the database nobody could sign in to close it again")
    word = _say(actor, before, state, reason, sharing)
    return _joined(name, [replace(one, heard=False) for one in before.processes], word)


@atomic
def _say(actor: Actor, before: BreakerState, state: str, reason: str | None, sharing: Sharing) -> Control:
    word = models.say(before.name, state, by=audit.name_of(actor), reason=reason)
    changed = ({"control": before.control, "reason": before.reason}, {"control": state, "reason": reason})
    audit.record(
        actor, f"circuit_breakers.{_DEEDS[state]}", "circuit_breaker", before.name, before=changed[0], after=changed[1]
    )
    # A nudge: whoever does not hear it reads the record, which is what is promised.
    db.after_commit(lambda: sharing.tell(before.name, word))
    return word


_DEEDS = {FORCED_OPEN: "open", FORCED_CLOSED: "close", AUTO: "release"}


def _states(reports: Iterable[dict[str, Any]], words: dict[str, Control]) -> Iterable[tuple[str, ProcessState]]:
    for report in reports:
        for told in report["breakers"]:
            word = words.get(told["name"])
            yield told["name"], ProcessState(
                process=report["process"],
                kind=report["kind"],
                reported_at=datetime.fromtimestamp(report["at"], UTC),
                state=told["state"],
                failures=told["failures"],
                opened_at=_instant(told["opened_at"]),
                control=told["control"],
                heard=word is None or told["epoch"] >= word.epoch,
            )


def _joined(name: str, states: list[ProcessState], word: Control | None) -> BreakerState:
    """Who has not heard the last word yet does not count: within half a second it will have."""
    heard = [state for state in states if state.heard]
    worst = max((state.state for state in heard), key=_WORST.__getitem__, default="closed")
    forced = {FORCED_OPEN: "open", FORCED_CLOSED: "closed"}.get(word.state if word else AUTO)
    opened = [state.opened_at for state in heard if state.opened_at]
    if forced == "open" and word:
        opened = opened or [word.at]
    return BreakerState(
        name=name,
        state=forced or worst,
        failures=sum(state.failures for state in heard),
        opened_at=min(opened) if opened and (forced or worst) != "closed" else None,
        control=word.state if word else AUTO,
        controlled_by=word.by if word else None,
        controlled_at=word.at if word else None,
        reason=word.reason if word else None,
        processes=sorted(states, key=lambda state: state.process),
    )


def _instant(told: str | datetime | None) -> datetime | None:
    return datetime.fromisoformat(told) if isinstance(told, str) else told
