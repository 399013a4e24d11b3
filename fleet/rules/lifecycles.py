"""Which states a thing can be in, and which may follow which. Drawn in docs/states.md.

What the calendar already says is never a state here: "rented", "in the workshop" and "overdue" are derived.
"""

from collections.abc import Mapping
from dataclasses import dataclass


class IllegalTransition(ValueError):
    """The thing may not go from its old state to the new one."""

    def __init__(self, thing: str, old: str, new: str) -> None:
        super().__init__(thing, old, new)
        self.thing = thing
        self.old = old
        self.new = new

    def __str__(self) -> str:
        return f"{self.thing} cannot go from {self.old} to {self.new}"


@dataclass(frozen=True)
class Lifecycle:
    """The states of one kind of thing: every state with those that may follow it, and the states it may begin in."""

    thing: str
    transitions: Mapping[str, frozenset[str]]
    initial: tuple[str, ...]

    @property
    def states(self) -> frozenset[str]:
        return frozenset(self.transitions)

    @property
    def live(self) -> frozenset[str]:
        """The states from which something can still follow."""
        return frozenset(state for state, following in self.transitions.items() if following)

    @property
    def final(self) -> frozenset[str]:
        """The states from which nothing follows."""
        return self.states - self.live

    def allows(self, old: str, new: str) -> bool:
        """Whether `new` may follow `old`. No state follows itself."""
        return new in self.transitions.get(old, frozenset())

    def check(self, old: str, new: str) -> None:
        """Raises IllegalTransition unless `new` may follow `old`."""
        if not self.allows(old, new):
            raise IllegalTransition(self.thing, old, new)


vehicle = Lifecycle(
    "vehicle",
    {
        "onboarding": frozenset({"in_service"}),
        "in_service": frozenset({"out_of_service", "sold", "written_off"}),
        "out_of_service": frozenset({"in_service", "sold", "written_off"}),
        "sold": frozenset(),
        "written_off": frozenset(),
    },
    initial=("onboarding", "in_service"),
)

rental = Lifecycle(
    "rental",
    {
        "held": frozenset({"reserved", "cancelled", "expired"}),
        "reserved": frozenset({"active", "cancelled", "no_show"}),
        "active": frozenset({"completed"}),
        "completed": frozenset(),
        "cancelled": frozenset(),
        "no_show": frozenset(),
        "expired": frozenset(),
    },
    initial=("held", "reserved"),
)

invoice = Lifecycle(
    "invoice",
    {
        "draft": frozenset({"open"}),
        "open": frozenset({"paid", "void", "written_off"}),
        "paid": frozenset(),
        "void": frozenset(),
        "written_off": frozenset(),
    },
    initial=("draft", "open"),
)

webhook_delivery = Lifecycle(
    "webhook_delivery",
    {
        "queued": frozenset({"delivered", "retrying", "dead"}),
        "retrying": frozenset({"delivered", "dead"}),
        "delivered": frozenset(),
        "dead": frozenset({"queued"}),
    },
    initial=("queued",),
)

payment = Lifecycle(
    "payment",
    {
        "pending": frozenset({"captured", "failed"}),
        "captured": frozenset({"disputed"}),
        "failed": frozenset(),
        "disputed": frozenset({"captured", "lost"}),
        "lost": frozenset(),
    },
    initial=("pending", "captured"),
)

refund = Lifecycle(
    "refund",
    {
        "requested": frozenset({"approved", "rejected"}),
        "approved": frozenset({"sent"}),
        "rejected": frozenset(),
        "sent": frozenset({"settled", "failed"}),
        "settled": frozenset(),
        "failed": frozenset(),
    },
    initial=("requested",),
)

dispute = Lifecycle(
    "dispute",
    {"open": frozenset({"won", "lost"}), "won": frozenset(), "lost": frozenset()},
    initial=("open",),
)

OCCUPYING = frozenset({"held", "reserved", "active"})
"""The rental states that keep a vehicle's time in the calendar."""


def as_mermaid(lifecycle: Lifecycle) -> str:
    """The lifecycle as a mermaid state diagram, as docs/states.md shows it."""
    arrows = [f"[*] --> {state}" for state in lifecycle.initial]
    for old, following in lifecycle.transitions.items():
        arrows += [f"{old} --> {new}" for new in sorted(following)] or [f"{old} --> [*]"]
    return "\n    ".join(["stateDiagram-v2", *arrows])
