"""A consumer of the tests: effects that can be counted, and messages that it cannot digest."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from fleet.db import db
from fleet.services.outbox import Message
from tasks import delivery
from tests.tasks.outboxes import TOPIC


class Poison(Exception):
    """What a consumer raises for a message that it cannot digest."""


class Killed(BaseException):
    """Stands for the end of the process: nothing after it runs, no handler sees it."""


def take_effect(messages: Sequence[Message]) -> None:
    """Leave a row for each message; a transaction that is undone leaves none."""
    for message in messages:
        db.execute_sql("INSERT INTO effect_of_test VALUES (%s)", (message.id,))


def counted_effects() -> Counter[str]:
    """How often each message took effect."""
    return Counter(f"{message_id}" for (message_id,) in db.rows("SELECT message_id FROM effect_of_test"))


def choking_on(poison: str, error: Callable[[str], BaseException] = Poison) -> Callable[[Sequence[Message]], None]:
    """An effect that raises as soon as this message is among those it gets."""

    def effect(messages: Sequence[Message]) -> None:
        take_effect(messages)
        if poison in {message.id for message in messages}:
            raise error("for Ana Silva, ana@example.com")

    return effect


def deliver(ids: Sequence[str], effect: Callable[[list[Message]], Any] = take_effect) -> None:
    """Let a worker handle one message that rings for these promises."""
    delivery.together(TOPIC, ids, effect)


def deliver_killed(ids: Sequence[str], effect: Callable[[list[Message]], Any]) -> None:
    """A delivery whose worker is killed in the middle: its transaction is undone."""
    with pytest.raises(Killed):
        deliver(ids, effect)
