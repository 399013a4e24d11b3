"""Webhook endpoints of the tests: receivers on this machine, what waits for them, and the clock of their deliveries."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleet import clock, config
from fleet.db import db
from fleet.models.webhooks import WebhookDelivery
from fleet.services import events, webhook_deliveries
from tests.cast import Cast
from tests.receiver import Receiver

ENDPOINTS = "/v1/webhook-endpoints"


@contextmanager
def private_targets() -> Iterator[None]:
    """Let webhooks go to this machine, as WEBHOOK_ALLOW_PRIVATE does."""
    usual = config.current()
    config.use(dataclasses.replace(usual, webhook_allow_private=True))
    try:
        yield
    finally:
        config.use(usual)


def endpoint(cast: Cast, receiver: Receiver | str, **body: Any) -> dict[str, Any]:
    """An endpoint at the receiver, as it was answered at its creation, secret included."""
    url = receiver if isinstance(receiver, str) else receiver.url
    with private_targets():
        made = cast.admin.post(ENDPOINTS, {"url": url, **body})
    assert made.status_code == 201, made.json
    answer: dict[str, Any] = made.json
    return answer


def happen(count: int = 1, type_: str = "rental.reserved") -> list[str]:
    """So many events of this type, in their places and queued; returns their ids."""
    made = [events.record(type_, "rental", clock.new_id(), {"nth": nth}) for nth in range(count)]
    while events.put_in_order():
        pass
    return [str(event_id) for event_id in made]


def claimed() -> list[list[str]]:
    return webhook_deliveries.claim_due(limit=500)


def deliveries(**values: Any) -> list[WebhookDelivery]:
    """The deliveries in the order of their events, only those with these values."""
    query = WebhookDelivery.select().order_by(WebhookDelivery.id)
    return list(query.filter(**values) if values else query)


def states() -> list[str]:
    return [found.status for found in deliveries()]


def let_time_pass(**by: float) -> None:
    """Move everything that waits so much (hours=...) nearer: what was to come then comes now."""
    [(unit, amount)] = by.items()
    step = f"interval '{amount} {unit}'"
    db.execute_sql(
        f"""UPDATE webhook_delivery SET next_attempt_at = next_attempt_at - {step}, leased_until = leased_until - {step},
        last_attempt_at = last_attempt_at - {step}"""
    )
    db.execute_sql(
        f"""UPDATE webhook_health SET rest_until = rest_until - {step}, failing_since = failing_since - {step},
        last_success_at = last_success_at - {step}, last_failure_at = last_failure_at - {step}"""
    )
