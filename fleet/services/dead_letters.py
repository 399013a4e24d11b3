"""What operators do with promises that were given up: look, replay, discard. Every act is in the audit log.

A replay keeps the promise's id, so that its consumer's inbox still knows what was done: however many replays, workers and late
confirmations meet, there is one effect.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Invalid, InvalidState, NotFound
from fleet.models import dead_letters
from fleet.models.base import Condition
from fleet.models.dead_letters import DEAD_LETTERS, EVER_DEAD, Chosen, count, letter_for_update, letters_for_update
from fleet.rules import masking
from fleet.services import audit
from fleet.services.audit import Act

Letter = dict[str, Any]

OBJECT = "dead_letter"
# Of one call and one transaction; whoever has more calls again.
MOST_AT_ONCE = 500
_TOLD = ("status", "topic", "deliveries", "last_error", "dead_at", "replays")


class Handled(NamedTuple):
    """How many letters one call replayed or discarded, and whether there are more of the choice."""

    letters: int
    more: bool


def counted(chosen: Chosen) -> int:
    """How many dead letters a choice means."""
    return count(chosen)


def listed(actor: Actor | str, *, chosen: Chosen, after: UUID | None, limit: int) -> list[Letter]:
    """A page of dead letters, those promised last first. A choice without a status shows the discarded ones too."""
    return DEAD_LETTERS.page(chosen.conditions(), after=after, limit=limit)


def shown(actor: Actor | str, letter_id: UUID) -> Letter:
    """One letter, also after its replay. Raises NotFound."""
    found = DEAD_LETTERS.first([Condition("outbox.id = %s", (letter_id,)), EVER_DEAD])
    if found is None:
        raise NotFound()
    return found


@atomic
def replay(actor: Actor | str, letter_id: UUID, *, address: str | None = None) -> Letter:
    """Let a dead or discarded letter be tried again, with all its deliveries before it. Raises NotFound, InvalidState."""
    letter = letter_for_update(letter_id)
    _must_be(letter, "dead", "discarded")
    _replay(actor, [letter], address)
    return shown(actor, letter_id)


@atomic
def discard(actor: Actor | str, letter_id: UUID, *, reason: str, address: str | None = None) -> Letter:
    """Close a dead letter without its work. It stays readable, and can be replayed. Raises NotFound, InvalidState."""
    letter = letter_for_update(letter_id)
    _must_be(letter, "dead")
    _discard(actor, [letter], reason, address)
    return shown(actor, letter_id)


@atomic
def replay_chosen(
    actor: Actor | str, *, chosen: Chosen, everything: bool = False, limit: int = MOST_AT_ONCE, address: str | None = None
) -> Handled:
    """Replay the dead letters of a choice, oldest first, at most `limit`. Raises Invalid for a choice that narrows nothing.

    Two such calls at once share the work; each letter is replayed once.
    """
    letters = _chosen(chosen, everything, limit)
    _replay(actor, letters[:limit], address)
    return Handled(len(letters[:limit]), len(letters) > limit)


@atomic
def discard_chosen(
    actor: Actor | str,
    *,
    chosen: Chosen,
    reason: str,
    everything: bool = False,
    limit: int = MOST_AT_ONCE,
    address: str | None = None,
) -> Handled:
    """Discard the dead letters of a choice, as `replay_chosen` replays them."""
    letters = _chosen(chosen, everything, limit)
    _discard(actor, letters[:limit], reason, address)
    return Handled(len(letters[:limit]), len(letters) > limit)


def _chosen(chosen: Chosen, everything: bool, limit: int) -> list[Letter]:
    if not (chosen.narrows or everything):
        raise Invalid.field("all", "filter_required", "name what is meant, or say all: true")
    return letters_for_update(chosen, limit=limit + 1)


def _must_be(letter: Letter, *statuses: str) -> None:
    if letter["status"] not in statuses:
        raise InvalidState(f"The letter is {letter['status']}")


def _replay(actor: Actor | str, letters: Sequence[Letter], address: str | None) -> None:
    dead_letters.replay([letter["id"] for letter in letters])
    acts = [
        Act(letter["id"], _told(letter), {"status": "waiting", "deliveries": 0, "replays": letter["replays"] + 1})
        for letter in letters
    ]
    audit.record_each(actor, "dead_letters.replay", OBJECT, acts, address=address)


def _discard(actor: Actor | str, letters: Sequence[Letter], reason: str, address: str | None) -> None:
    by, reason = audit.name_of(actor), masking.text(reason, free=True)
    dead_letters.discard([letter["id"] for letter in letters], by=by, reason=reason)
    acts = [Act(letter["id"], _told(letter), {"status": "discarded", "reason": reason}) for letter in letters]
    audit.record_each(actor, "dead_letters.discard", OBJECT, acts, address=address)


def _told(letter: Letter) -> dict[str, Any]:
    discarded = {"discarded_by": letter["discarded_by"], "reason": letter["discard_reason"]} if letter["discarded_at"] else {}
    return {**{name: letter[name] for name in _TOLD}, **discarded}
