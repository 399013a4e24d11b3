"""/v1/webhook-endpoints and /v1/webhook-deliveries"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.blueprints.events import EventType
from fleet.http import Answer, answer, if_match, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Input, Line, PageQuery, View
from fleet.rules.events import TYPES
from fleet.rules.targets import MAX_LENGTH
from fleet.services import webhook_deliveries, webhooks

bp = Blueprint("webhooks", __name__)

ENDPOINTS, DELIVERIES = "/v1/webhook-endpoints", "/v1/webhook-deliveries"

Url = Annotated[str, StringConstraints(min_length=1, max_length=MAX_LENGTH), Field(json_schema_extra={"format": "uri"})]
EventTypes = Annotated[
    list[EventType],
    Field(min_length=1, max_length=len(TYPES), description="The types of events to send; null for all of them"),
]
Status = Literal["queued", "retrying", "delivered", "dead"]


class WebhookEndpointView(View):
    id: UUID
    url: str
    event_types: list[str] | None
    description: str | None
    enabled: bool
    disabled_reason: Literal["by_hand", "gone", "failing"] | None
    disabled_at: datetime | None
    previous_secret_until: datetime | None = Field(description="Until when messages are signed with the secret before, too")
    created_by: UUID | None
    version: int
    created_at: datetime
    updated_at: datetime


class NewWebhookEndpointView(WebhookEndpointView):
    secret: str = Field(description="Shown this once; keep it, to verify signatures with")


class CreateWebhookEndpoint(Input):
    url: Url
    event_types: EventTypes | None = None
    description: Line | None = None
    enabled: bool = True


class ChangeWebhookEndpoint(Input):
    url: Url = ""
    event_types: EventTypes | None = None
    description: Line | None = None
    enabled: bool = True


class WebhookTestView(View):
    event_id: UUID


class WebhookDeliveryView(View):
    """The telling of one event to one endpoint. `last_error` is why the last attempt failed, in one word of ours."""

    id: UUID
    endpoint_id: UUID
    event_id: UUID
    event_type: str
    sequence: int
    status: Status
    attempts: int
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    delivered_at: datetime | None
    dead_at: datetime | None
    response_status: int | None
    last_error: str | None
    duration_ms: int | None
    created_at: datetime


class WebhookDeliveryQuery(PageQuery):
    status: Status | None = None


@bp.get(ENDPOINTS)
@operation("webhooks.manage", query=PageQuery, answer=WebhookEndpointView, listed=True)
def index(query: PageQuery) -> Answer:
    """List webhook endpoints."""
    return page_answer(page(query, webhooks.listed, lambda row: shape(WebhookEndpointView, row), actor=g.actor))


@bp.post(ENDPOINTS)
@operation(
    "webhooks.manage", body=CreateWebhookEndpoint, answer=NewWebhookEndpointView, status=201, cost=5, problems=("conflict",)
)
def create(body: CreateWebhookEndpoint) -> Answer:
    """Have events sent to an address; `secret` is shown this once.

    The address is https, on port 443 or 8443, and its name leads to public addresses only. An Idempotency-Key is ignored,
    because the answer, which carries the secret, is stored nowhere.
    """
    endpoint, secret = webhooks.create(g.actor, **body.model_dump())
    shown = {**shape(WebhookEndpointView, endpoint), "secret": secret}
    return answer(shown, 201, version=endpoint.version, location=f"{ENDPOINTS}/{endpoint.id}")


@bp.get(f"{ENDPOINTS}/<uuid:endpoint_id>")
@operation("webhooks.manage", answer=WebhookEndpointView)
def show(endpoint_id: UUID) -> Answer:
    """Show a webhook endpoint."""
    endpoint = webhooks.shown(g.actor, endpoint_id)
    return answer(shape(WebhookEndpointView, endpoint), version=endpoint["version"])


@bp.patch(f"{ENDPOINTS}/<uuid:endpoint_id>")
@operation("webhooks.manage", body=ChangeWebhookEndpoint, answer=WebhookEndpointView, if_match=True, idempotent=True)
def change(endpoint_id: UUID, body: ChangeWebhookEndpoint) -> Answer:
    """Change where an endpoint is, what it is told, or whether it is told anything.

    What happens while it is disabled is not sent later; what was queued before waits, for 30 days at most.
    """
    endpoint = webhooks.change(g.actor, endpoint_id, expected_version=if_match(), changes=body.changes())
    return answer(shape(WebhookEndpointView, endpoint), version=endpoint.version)


@bp.delete(f"{ENDPOINTS}/<uuid:endpoint_id>")
@operation("webhooks.manage", status=204, if_match=True)
def remove(endpoint_id: UUID) -> Answer:
    """Remove a webhook endpoint; what waits for it is not sent."""
    webhooks.remove(g.actor, endpoint_id, expected_version=if_match())
    return answer()


@bp.post(f"{ENDPOINTS}/<uuid:endpoint_id>/rotate-secret")
@operation("webhooks.manage", answer=NewWebhookEndpointView, if_match=True)
def rotate_secret(endpoint_id: UUID) -> Answer:
    """Make a new secret, shown this once; for 24 hours messages are signed with both.

    A second rotation within that time ends the older one. An Idempotency-Key is ignored, as at the creation.
    """
    endpoint, secret = webhooks.rotate_secret(g.actor, endpoint_id, expected_version=if_match(required=False))
    return answer({**shape(WebhookEndpointView, endpoint), "secret": secret}, version=endpoint.version)


@bp.post(f"{ENDPOINTS}/<uuid:endpoint_id>/test")
@operation("webhooks.manage", answer=WebhookTestView, status=202, idempotent=True, problems=("invalid_state",))
def test(endpoint_id: UUID) -> Answer:
    """Send the endpoint an event `webhook_endpoint.tested`; what became of it is among its deliveries."""
    return answer({"event_id": webhooks.test(g.actor, endpoint_id)}, 202)


@bp.get(f"{ENDPOINTS}/<uuid:endpoint_id>/deliveries")
@operation("webhooks.manage", query=WebhookDeliveryQuery, answer=WebhookDeliveryView, listed=True)
def deliveries(endpoint_id: UUID, query: WebhookDeliveryQuery) -> Answer:
    """List what was sent to an endpoint in the last 30 days, and what waits to be."""
    shaped = page(
        query,
        webhook_deliveries.listed,
        lambda row: shape(WebhookDeliveryView, row),
        actor=g.actor,
        endpoint_id=endpoint_id,
        status=query.status,
    )
    return page_answer(shaped)


@bp.get(f"{DELIVERIES}/<uuid:delivery_id>")
@operation("webhooks.manage", answer=WebhookDeliveryView)
def show_delivery(delivery_id: UUID) -> Answer:
    """Show a delivery."""
    return answer(shape(WebhookDeliveryView, webhook_deliveries.shown(g.actor, delivery_id)))


@bp.post(f"{DELIVERIES}/<uuid:delivery_id>/redeliver")
@operation("webhooks.manage", answer=WebhookDeliveryView, idempotent=True, problems=("invalid_state",))
def redeliver(delivery_id: UUID) -> Answer:
    """Queue a dead delivery again, with the same message id."""
    return answer(shape(WebhookDeliveryView, webhook_deliveries.redeliver(g.actor, delivery_id)))
