"""Relays, workers and operators reach for the same webhook at the same time."""

from collections.abc import Iterator

import pytest

from fleet.db import db
from fleet.gateways.webhooks import NotDelivered, Reply
from fleet.models.webhooks import WebhookDelivery
from fleet.rules.webhooks import MOST_ATTEMPTS
from fleet.services import webhook_deliveries
from tests.cast import Cast
from tests.endpoints import claimed, deliveries, endpoint, happen, let_time_pass, states
from tests.races.meeting import Meeting, in_one_transaction
from tests.races.scenes import count


class Answering:
    """Sends nothing, and answers this."""

    def __init__(self, status: int | None) -> None:
        self.status = status
        self.posted = 0

    def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        self.posted += 1
        if self.status is None:
            raise NotDelivered("not_connected")
        return Reply(self.status, None)


@pytest.fixture(autouse=True)
def waiting(cast: Cast) -> Iterator[None]:
    """An endpoint for which two events wait."""
    endpoint(cast, "http://127.0.0.1:1/")
    happen(2)
    yield


def failing() -> None:
    db.execute_sql("UPDATE webhook_health SET failing_since = now(), failures = 1")


def test_an_endpoint_that_fails_is_tried_by_one_relay_alone(cast: Cast, meet: Meeting) -> None:
    failing()
    claim = in_one_transaction(claimed)
    one, other = meet(claim, claim)
    assert (sum(map(len, one.result)), other.result) == (1, []), "two at once"
    assert not other.waited, "waited for the other"


def test_two_relays_claim_no_delivery_twice(cast: Cast, meet: Meeting) -> None:
    claim = in_one_transaction(claimed)
    one, other = meet(claim, claim)
    assert [len(batch) for batch in one.result] == [2]
    assert other.result == []


def test_of_two_workers_with_one_ticket_one_sends(cast: Cast, meet: Meeting) -> None:
    [[ticket, _]] = claimed()
    begin = in_one_transaction(lambda: webhook_deliveries._begin(webhook_deliveries.Ticket.read(ticket)))
    one, other = meet(begin, begin)
    assert (one.result.attempts, other.result) == (1, None)
    assert other.waited, "the second must have seen the first's count, not its absence"


def test_a_late_failure_does_not_undo_a_success(cast: Cast) -> None:
    """A worker that was frozen for longer than its lease wakes up and finds that another one got through."""
    [[ticket, _]] = claimed()
    late = webhook_deliveries._begin(webhook_deliveries.Ticket.read(ticket))
    assert late is not None
    let_time_pass(minutes=3)
    for again in claimed()[0]:
        webhook_deliveries.attempt(again, Answering(204))
    webhook_deliveries._note_failure(late, "timed_out", None, None, 1)
    assert states() == ["delivered", "delivered"]
    assert deliveries()[0].last_error is None


def test_a_late_success_counts(cast: Cast) -> None:
    [[ticket, _]] = claimed()
    late = webhook_deliveries._begin(webhook_deliveries.Ticket.read(ticket))
    assert late is not None
    let_time_pass(minutes=3)
    for again in claimed()[0]:
        webhook_deliveries.attempt(again, Answering(None))
    webhook_deliveries._note_success(late, Reply(200, None), 1)
    assert deliveries()[0].status == "delivered"


def test_of_two_that_queue_a_dead_delivery_again_one_does(cast: Cast, meet: Meeting) -> None:
    [first, _] = deliveries()
    WebhookDelivery.update(status="dead", dead_at=first.created_at, attempts=MOST_ATTEMPTS).where(
        WebhookDelivery.id == first.id
    ).execute()
    again = lambda: cast.admin.post(f"/v1/webhook-deliveries/{first.id}/redeliver")  # noqa: E731 - the same call twice
    one, other = meet(again, again)
    assert [one.said, other.said] == [(200, None), (409, "invalid_state")]


def test_an_endpoint_is_switched_off_once_and_told_of_once(cast: Cast, meet: Meeting) -> None:
    [[ticket, second]] = claimed()
    one, other = meet(
        lambda: webhook_deliveries.attempt(ticket, Answering(410)), lambda: webhook_deliveries.attempt(second, Answering(410)),
        before="UPDATE webhook_endpoint",
    )  # fmt: skip
    assert [one.result.disabled, other.result and other.result.disabled].count("gone") == 1
    assert count("event WHERE type = 'webhook_endpoint.disabled'") == 1


def test_an_endpoint_that_is_switched_off_by_hand_meanwhile_gets_the_message_that_was_on_its_way(
    cast: Cast, meet: Meeting
) -> None:
    [[ticket, second]] = claimed()
    path = f"/v1/webhook-endpoints/{deliveries()[0].endpoint_id}"
    sending, switching = meet(
        lambda: webhook_deliveries.attempt(ticket, Answering(204)),
        lambda: cast.admin.patch(path, {"enabled": False}, version="1"),
    )
    assert (sending.result.status, switching.said) == ("delivered", (200, None))
    assert webhook_deliveries.attempt(second, Answering(204)) is None
