"""One drill from its first client to the verdict."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.checker import check, letters_twice
from tests.faults.clients import Crowd, Wishes
from tests.faults.drills import Drill
from tests.faults.evidence import Evidence, Finding, Kind, Reading
from tests.faults.scene import Scene
from tests.faults.stage import Stage, StageBroken

CLIENTS = 4
WARM_UP_S = (0.3, 0.8)
AFTERWARDS_S = 1.0
PATIENCE_S = 40
LEASES_PASS_S = (4, 10, 20)  # few enough that no promise uses up its deliveries


@dataclass
class Outcome:
    """What a drill did, what its clients saw, and what is wrong."""

    drill: str
    faults: int = 0
    requests: int = 0
    unavailable: int = 0
    cut: int = 0
    failed_badly: int = 0
    letters_twice: int = 0
    slowest_s: float = 0
    web_s: float = 0
    settled_s: float = 0
    took_s: float = 0
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        return not self.findings

    def count(self, kind: Kind) -> int:
        return sum(finding.kind == kind for finding in self.findings)

    def figures(self) -> dict[str, Any]:
        """For the history of runs."""
        numbers = {name: round(value, 2) for name, value in vars(self).items() if isinstance(value, int | float)}
        numbers |= {"lost": self.count("lost"), "duplicated": self.count("duplicated")}
        return {"drill": self.drill, **numbers, "findings": [f"{one}" for one in self.findings], "remarks": self.remarks}


class Performer:
    """Performs drills on one stage; what earlier ones left behind stays under proof."""

    def __init__(self, stage: Stage, seed: int, *, full: bool) -> None:
        self._stage, self._seed, self._full = stage, seed, full
        self._wishes = Wishes()
        self._poison: set[str] = set()
        self._letters_twice = 0
        self._readings: list[Reading] = []

    def perform(self, drill: Drill) -> Outcome:
        """Clients at work, fault, healing, rest, proof."""
        started = time.monotonic()
        rng = random.Random(f"{self._seed}/{drill.name}")
        scene = Scene(self._stage, self._wishes, drill.name, rng, self._full)
        self._stage.assemble()
        crowd = Crowd([scene.client(number, drops=drill.drops, pays=drill.pays) for number in range(CLIENTS)], rng)
        with crowd.at_work(patience_s=PATIENCE_S):
            scene.pause(*WARM_UP_S)
            try:
                drill.inject(scene)
            except StageBroken as problem:
                scene.wrong.append(f"{problem}")
            healed_at = time.monotonic()
            time.sleep(AFTERWARDS_S)
        self._stage.revive()
        with scene.time_lapse(scene.hurry):
            settled_s = self._settled(scene, healed_at, drill.settled_s)
        self._poison |= scene.poison
        self._readings += [reader.finish() for reader in scene.readers]
        self._stage.switch_hooks_off()
        outcome = self._judged(drill, scene, healed_at, settled_s)
        outcome.took_s = time.monotonic() - started
        return outcome

    def _settled(self, scene: Scene, healed_at: float, bound_s: float) -> float:
        """Wait until every promise has ended; returns how long after the healing that was."""
        passes = [healed_at + seconds for seconds in LEASES_PASS_S if scene.leases_pass]
        while self._stage.unfinished() and time.monotonic() < healed_at + bound_s:
            if passes and time.monotonic() > passes[0]:
                # Who was still on its feet when they passed before may have been in the middle of a claim.
                passes.pop(0)
                scene.let_leases_pass()
            time.sleep(0.1)
        return time.monotonic() - healed_at

    def _judged(self, drill: Drill, scene: Scene, healed_at: float, settled_s: float) -> Outcome:
        seen = self._stage.history.of_drill(drill.name)
        successes_s = [one.sent_at + one.seconds - healed_at for one in seen if one.acknowledged]
        evidence = Evidence(
            exchanges=self._stage.history.exchanges,
            sql=self._stage.sql,
            poison=frozenset(self._poison),
            letters=self._stage.post.letters,
            books=self._stage.prove(),
            hooks=list(self._stage.hooks.heard.values()),
            readings=self._readings,
            cards=self._stage.cards,
        )
        twice = letters_twice(evidence)
        outcome = Outcome(
            drill=drill.name,
            faults=scene.faults,
            requests=len(seen),
            unavailable=sum(one.unavailable for one in seen),
            cut=sum(one.cut for one in seen),
            failed_badly=sum(one.failed_badly for one in seen),
            letters_twice=twice - self._letters_twice,
            slowest_s=max((one.seconds for one in seen), default=0),
            web_s=min((at_s for at_s in successes_s if at_s > 0), default=float("inf")),
            settled_s=settled_s,
            findings=[*check(evidence), *(Finding("wrong", text) for text in scene.wrong)],
            remarks=scene.remarks,
        )
        self._letters_twice = twice
        outcome.findings += [Finding("wrong", text) for text in out_of_bounds(drill, outcome, self._stage.boot_s)]
        return outcome


def out_of_bounds(drill: Drill, outcome: Outcome, boot_s: float) -> Sequence[str]:
    """What took longer, or cost the clients more, than the drill allows."""
    said = []
    web_s, slowest_s = (bound_s + drill.boots * boot_s for bound_s in (drill.web_s, drill.slowest_s))
    if outcome.web_s > web_s:
        said.append(f"not recovered: the first success came after {outcome.web_s:.1f} s, allowed are {web_s:.0f} s")
    if outcome.settled_s > drill.settled_s:
        said.append(f"not recovered: promises were open for more than {drill.settled_s:.0f} s")
    if outcome.slowest_s > slowest_s:
        said.append(f"an answer took {outcome.slowest_s:.1f} s, allowed are {slowest_s:.0f} s")
    if drill.calm and outcome.unavailable + outcome.cut:
        said.append(f"clients noticed: {outcome.unavailable} × 503, {outcome.cut} connections cut")
    return said
