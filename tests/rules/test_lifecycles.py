"""States and transitions."""

from itertools import product

import pytest

from fleet.rules import lifecycles
from fleet.rules.lifecycles import IllegalTransition, Lifecycle
from tests.rules.pages import drawings

ALL = [
    lifecycles.vehicle,
    lifecycles.rental,
    lifecycles.invoice,
    lifecycles.webhook_delivery,
    lifecycles.payment,
    lifecycles.refund,
    lifecycles.dispute,
]
each = pytest.mark.parametrize("lifecycle", ALL, ids=lambda lifecycle: lifecycle.thing)

LEGAL = {
    "vehicle": "onboarding>in_service in_service>out_of_service out_of_service>in_service in_service>sold "
    "in_service>written_off out_of_service>sold out_of_service>written_off",
    "rental": "held>reserved held>expired held>cancelled reserved>active reserved>cancelled reserved>no_show active>completed",
    "invoice": "draft>open open>paid open>void open>written_off",
    "webhook_delivery": "queued>delivered queued>retrying queued>dead retrying>delivered retrying>dead dead>queued",
    "payment": "pending>captured pending>failed captured>disputed disputed>captured disputed>lost",
    "refund": "requested>approved requested>rejected approved>sent sent>settled sent>failed",
    "dispute": "open>won open>lost",
}
"""The transitions as the domain names them, written down a second time on purpose."""


@each
def test_exactly_the_transitions_of_the_domain_are_allowed(lifecycle: Lifecycle) -> None:
    legal = {tuple(step.split(">")) for step in LEGAL[lifecycle.thing].split()}
    states = lifecycle.states
    assert {pair for pair in product(states, states) if lifecycle.allows(*pair)} == legal


@each
def test_every_target_is_a_state(lifecycle: Lifecycle) -> None:
    for following in lifecycle.transitions.values():
        assert following <= lifecycle.states


@each
def test_every_state_can_be_reached_from_where_things_begin(lifecycle: Lifecycle) -> None:
    reached: set[str] = set()
    waiting = list(lifecycle.initial)
    while waiting:
        state = waiting.pop()
        if state not in reached:
            reached.add(state)
            waiting += lifecycle.transitions[state]
    assert reached == lifecycle.states


@each
def test_final_states_have_no_exits_and_every_live_state_has_a_way_to_an_end(lifecycle: Lifecycle) -> None:
    assert lifecycle.final
    assert lifecycle.live | lifecycle.final == lifecycle.states
    assert not lifecycle.live & lifecycle.final
    assert not any(lifecycle.allows(old, new) for old in lifecycle.final for new in lifecycle.states)


@each
def test_no_state_follows_itself(lifecycle: Lifecycle) -> None:
    assert not any(lifecycle.allows(state, state) for state in lifecycle.states)


def test_an_active_rental_is_never_cancelled() -> None:
    with pytest.raises(IllegalTransition, match="rental cannot go from active to cancelled") as refused:
        lifecycles.rental.check("active", "cancelled")
    assert (refused.value.thing, refused.value.old, refused.value.new) == ("rental", "active", "cancelled")


def test_a_legal_transition_passes_in_silence() -> None:
    lifecycles.rental.check("reserved", "active")


@pytest.mark.parametrize(("old", "new"), [("rented", "sold"), ("in_service", "rented")])
def test_an_unknown_state_goes_nowhere(old: str, new: str) -> None:
    with pytest.raises(IllegalTransition):
        lifecycles.vehicle.check(old, new)


def test_the_rentals_that_keep_a_vehicles_time_are_the_live_ones() -> None:
    assert lifecycles.OCCUPYING == lifecycles.rental.live == {"held", "reserved", "active"}


def test_the_page_draws_exactly_what_the_data_says() -> None:
    assert drawings("states.md") == [lifecycles.as_mermaid(lifecycle) for lifecycle in ALL]


def test_a_drawing_has_an_arrow_for_each_beginning_transition_and_end() -> None:
    door = Lifecycle("door", {"open": frozenset({"shut"}), "shut": frozenset()}, initial=("open",))
    assert lifecycles.as_mermaid(door).splitlines() == [
        "stateDiagram-v2",
        "    [*] --> open",
        "    open --> shut",
        "    shut --> [*]",
    ]
