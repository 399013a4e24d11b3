"""What breaks or ends in the middle of a webhook's attempt is noted, and keeps nothing of its batch."""

from collections.abc import Iterator
from typing import Any

import pytest

from fleet.db import db
from fleet.gateways.webhooks import Sender
from fleet.rules import webhooks as rules
from tasks import webhooks as tasks_webhooks
from tests.cast import Cast
from tests.endpoints import claimed, deliveries, endpoint, happen, let_time_pass, states
from tests.receiver import Receiver, receiver


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    sender = Sender(allow_private=True, total_s=2.0)
    monkeypatch.setattr(tasks_webhooks, "webhook_sender", lambda: sender)
    with receiver() as told:
        yield told


def test_what_breaks_in_an_attempt_is_noted_and_keeps_nothing(cast: Cast, told: Receiver, monkeypatch: Any) -> None:
    def broken(*_: Any) -> None:
        raise OverflowError

    endpoint(cast, told)
    happen(3)
    [batch] = claimed()
    with monkeypatch.context() as patch:
        patch.setattr(rules, "signed", broken)
        assert tasks_webhooks.deliver(batch) == 0
    first = deliveries()[0]
    assert (first.status, first.last_error, first.attempts) == ("retrying", "internal", 1)
    assert [one.leased_until for one in deliveries()] == [None] * 3
    assert db.rows("SELECT failing_since IS NOT NULL, failures, rest_until > now() FROM webhook_health") == [(True, 1, True)]
    let_time_pass(minutes=10)
    for _ in range(3):
        for ready in claimed():
            tasks_webhooks.deliver(ready)
    assert states() == ["delivered"] * 3


def test_what_ends_a_task_gives_back_the_rest(cast: Cast, told: Receiver, monkeypatch: Any) -> None:
    def ended(*_: Any) -> None:
        raise KeyboardInterrupt

    endpoint(cast, told)
    happen(3)
    [batch] = claimed()
    monkeypatch.setattr(rules, "signed", ended)
    with pytest.raises(KeyboardInterrupt):
        tasks_webhooks.deliver(batch)
    assert [one.leased_until is None for one in deliveries()] == [False, True, True]
