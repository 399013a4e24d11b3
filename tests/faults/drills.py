"""All drills by name, and what one is."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.faults.scene import Scene

# How long it takes until what a lost message rang for is rung for again: the lease, its jitter, and the work itself.
LEASE_S = 45
# A letter in the hands of who died is left alone for a minute and a half, a webhook that was claimed and never tried for two
# minutes, and a message that nobody acknowledged comes back after as long.
LETTER_S = 150

Inject = Callable[[Scene], None]


@dataclass(frozen=True)
class Drill:
    """A fault, and what may come of it.

    `inject` brings the fault about and heals it. From then on the web has `web_s` to answer with success again and every
    promise `settled_s` to end. A `calm` drill costs no client as much as a 503. `slowest_s` bounds every single answer; where
    clients have to wait until web workers have booted, `boots` times what that takes here and now comes on top of both. Where
    it `pays`, most rentals are driven, paid by card and now and then given back in part.
    """

    name: str
    inject: Inject
    web_s: float
    settled_s: float
    calm: bool
    slowest_s: float
    boots: int
    drops: float
    pays: bool = False

    @property
    def proves(self) -> str:
        return " ".join((self.inject.__doc__ or "").split())


DRILLS: dict[str, Drill] = {}


def drill(
    name: str,
    *,
    web_s: float = 5,
    settled_s: float = 120,
    calm: bool = False,
    slowest_s: float = 6,
    boots: int = 0,
    drops: float = 0,
    pays: bool = False,
) -> Callable[[Inject], Inject]:
    """Make a function a drill; its docstring says what it proves."""

    def enter(inject: Inject) -> Inject:
        DRILLS[name] = Drill(name, inject, web_s, settled_s, calm, slowest_s, boots, drops, pays)
        return inject

    return enter
