"""Webhooks: ringing for the deliveries that are due, and sending those that a message rings for."""

import logging
import time
from functools import partial

from fleet import metrics
from fleet.gateways.mail import MailNotConfigured, MailRefused
from fleet.services import webhook_deliveries, webhook_notices
from fleet.services.outbox import queue_of
from fleet.services.webhook_deliveries import TOPIC, Outcome
from tasks import consumer, delivery
from tasks.broker import Broker, BrokerAway
from tasks.wiring import mailer, webhook_sender

log = logging.getLogger("tasks.webhooks")

QUEUE = queue_of(TOPIC)
HOPELESS = (MailNotConfigured, MailRefused)
# After this, what is left of a batch is given back: far enough from Celery's time limit for one slow receiver more.
BUDGET_S = 30.0


def ring(broker: Broker, *, limit: int) -> int:
    """Publish a message for each batch that is due; returns how many deliveries. Raises BrokerAway, peewee's errors."""
    batches = webhook_deliveries.claim_due(limit=limit)
    for position, batch in enumerate(batches):
        try:
            broker.publish(TOPIC, QUEUE, batch)
        except BrokerAway:
            webhook_deliveries.release([ticket for unsent in batches[position:] for ticket in unsent])
            raise
    return sum(map(len, batches))


@consumer("webhooks.deliver")
def deliver(tickets: list[str]) -> int:
    """Send events to one endpoint, one by one; at the first failure the rest is given back and waits with it.

    Answers how many were delivered.
    """
    deadline, delivered = time.monotonic() + BUDGET_S, 0
    with delivery.lease_takes_over(TOPIC):
        left = list(tickets)
        try:
            for ticket in tickets:
                outcome = webhook_deliveries.attempt(ticket, webhook_sender())
                if outcome is not None:
                    left.remove(ticket)
                    _report(outcome)
                    delivered += outcome.status == "delivered"
                if time.monotonic() > deadline or (outcome is not None and outcome.status != "delivered"):
                    break
        finally:
            # Also what could not be begun because its endpoint rests: held on to, it would fill the endpoint's room.
            webhook_deliveries.release(left)
    return delivered


@consumer("notifications.webhook_disabled")
def disabled(ids: list[str]) -> None:
    """Tell who made an endpoint that it was switched off."""
    with mailer().session() as session:
        attempt = partial(webhook_notices.send, session=session)
        delivery.one_by_one(
            ids, attempt, topic="notifications.webhook_disabled", hopeless=HOPELESS, wait_s=session.wait_s
        )


def _report(outcome: Outcome) -> None:
    """One line, without the address: it may carry a secret in its query."""
    metrics.WEBHOOK_ATTEMPTS.labels(outcome.status).inc()
    about = {
        "endpoint_id": str(outcome.attempt.endpoint_id),
        "delivery_id": outcome.attempt.id,
        "event_id": outcome.attempt.event["id"],
        "attempts": outcome.attempt.attempts,
        "outcome": outcome.status,
        "answered": outcome.answered,
        "error": outcome.error,
        "duration_ms": outcome.duration_ms,
    }
    log.log(logging.INFO if outcome.status == "delivered" else logging.WARNING, "webhook", extra=about)
    if outcome.disabled:
        metrics.WEBHOOKS_DISABLED.labels(outcome.disabled).inc()
        log.error("webhook endpoint disabled", extra={"endpoint_id": about["endpoint_id"], "reason": outcome.disabled})
