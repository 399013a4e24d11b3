"""/v1/api-keys"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.auth import PERMISSIONS
from fleet.http import Answer, answer, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Input, Instant, Line, PageQuery, View
from fleet.services import api_keys

bp = Blueprint("api_keys", __name__, url_prefix="/v1/api-keys")

Permission = Annotated[str, StringConstraints(min_length=1, max_length=64)]


class ApiKeyView(View):
    id: UUID
    name: str
    prefix: str
    permissions: list[str]
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None


class NewApiKeyView(ApiKeyView):
    key: str


class CreateApiKey(Input):
    name: Line
    permissions: Annotated[list[Permission], Field(min_length=1, max_length=len(PERMISSIONS))]
    expires_at: Instant | None = None


@bp.get("")
@operation("api_keys.manage", query=PageQuery, answer=ApiKeyView, listed=True)
def index(query: PageQuery) -> Answer:
    """List your API keys, each with its first characters and its last use (to the minute)."""
    return page_answer(page(query, api_keys.listed, lambda row: shape(ApiKeyView, row), actor=g.actor))


@bp.post("")
@operation("api_keys.manage", body=CreateApiKey, answer=NewApiKeyView, status=201)
def create(body: CreateApiKey) -> Answer:
    """Make an API key; `key` is shown this once.

    It holds permissions that you hold, for as long as you hold them, and expires after 90 days unless `expires_at` says
    otherwise (365 days at most). An API key cannot make another. An Idempotency-Key is ignored, because the answer, which
    carries the secret, is stored nowhere.
    """
    key, secret = api_keys.create(g.actor, **body.model_dump())
    shown = {**shape(ApiKeyView, key), "key": secret}
    return answer(shown, 201, location=f"{bp.url_prefix}/{key.id}")


@bp.get("/<uuid:key_id>")
@operation("api_keys.manage", answer=ApiKeyView)
def show(key_id: UUID) -> Answer:
    """Show one of your API keys."""
    return answer(shape(ApiKeyView, api_keys.shown(g.actor, key_id)))


@bp.delete("/<uuid:key_id>")
@operation("api_keys.manage", status=204)
def revoke(key_id: UUID) -> Answer:
    """Revoke an API key, from its next request on.

    A key is never edited and has no version, so that If-Match is not needed here.
    """
    api_keys.revoke(g.actor, key_id)
    return answer()
