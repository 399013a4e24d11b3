"""/v1/notifications, /v1/customers/{id}/notification-preferences and /v1/unsubscribe"""

from datetime import datetime
from html import escape
from typing import Annotated, Literal
from uuid import UUID

from flask import Blueprint, g
from pydantic import Field, StringConstraints

from fleet.http import PUBLIC, Answer, answer, if_match, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Id, Input, PageQuery, Query, View
from fleet.rules import unsubscribing
from fleet.rules.languages import Language
from fleet.services import notifications, preferences
from fleet.services.preferences import UNSUBSCRIBE_PATH, Preferences

bp = Blueprint("notifications", __name__, url_prefix="/v1")

Channel = Literal["email", "sms"]
Status = Literal["sending", "failed", "sent", "unknown", "skipped"]
Kind = Literal[
    "rental_held", "rental_reserved", "rental_changed", "rental_cancelled", "rental_expired", "rental_reminder",
    "rental_overdue", "rental_no_show", "invoice_issued", "payment_received", "payment_refunded",
]  # fmt: skip
Token = Annotated[str, StringConstraints(min_length=1, max_length=unsubscribing.MAX_LENGTH)]
# The page needs no script and no style; its one form goes back to where it came from.
_PAGE_CSP = "default-src 'none'; form-action 'self'; frame-ancestors 'none'"


class NotificationView(View):
    """What was told, not what it said. `reason` is why it was skipped; `unknown` is a text message that may have gone out."""

    id: UUID
    kind: Kind
    channel: Channel
    customer_id: UUID | None
    rental_id: UUID | None
    invoice_id: UUID | None
    payment_id: UUID | None
    refund_id: UUID | None
    status: Status
    reason: Literal["erased", "outdated", "not_wanted", "no_number"] | None
    created_at: datetime
    attempted_at: datetime
    sent_at: datetime | None


class NotificationQuery(PageQuery):
    customer_id: Id | None = None
    rental_id: Id | None = None
    kind: Kind | None = None
    channel: Channel | None = None
    status: Status | None = None


class ChannelChoice(Input):
    """Yes or no for each way; what is left out goes as it does for everybody."""

    email: bool = True
    sms: bool = False


class ChooseNotifications(Input):
    kinds: Annotated[dict[Kind, ChannelChoice], Field(description="What is left out goes as it does for everybody")]


class ChannelView(View):
    email: bool
    sms: bool


class PreferencesView(View):
    """`required` kinds go by e-mail whatever is chosen. `version` is 0 until the customer chooses."""

    customer_id: UUID
    kinds: dict[Kind, ChannelView]
    required: list[Kind]
    version: int
    updated_at: datetime | None


class UnsubscribeQuery(Query):
    token: Token


@bp.get("/notifications")
@operation("notifications.read", query=NotificationQuery, answer=NotificationView, listed=True)
def index(query: NotificationQuery) -> Answer:
    """List what was told to customers, when, and how it went; not what it said."""
    asked = {name: getattr(query, name) for name in ("customer_id", "rental_id", "kind", "channel", "status")}
    return page_answer(page(query, notifications.listed, lambda row: shape(NotificationView, row), actor=g.actor, **asked))


@bp.get("/customers/<uuid:customer_id>/notification-preferences")
@operation("customers.read", answer=PreferencesView)
def show(customer_id: UUID) -> Answer:
    """Show which letters and text messages a customer gets."""
    return _answer(preferences.shown(g.actor, customer_id))


@bp.put("/customers/<uuid:customer_id>/notification-preferences")
@operation(
    "customers.update",
    body=ChooseNotifications,
    answer=PreferencesView,
    if_match=True,
    idempotent=True,
    problems=("invalid_state",),
)
def choose(customer_id: UUID, body: ChooseNotifications) -> Answer:
    """Choose which letters and text messages a customer gets.

    What the law or the contract asks for in writing cannot be switched off by e-mail (`required_kind`).
    """
    choices = {f"{kind}": choice.changes() for kind, choice in body.kinds.items()}
    return _answer(preferences.choose(g.actor, customer_id, expected_version=if_match(), choices=choices))


@bp.get("/unsubscribe")
@operation(PUBLIC, query=UnsubscribeQuery, media=("text/html",), problems=("not_found",))
def ask_to_unsubscribe(query: UnsubscribeQuery) -> Answer:
    """Ask whether the bearer of the link wants no more letters of its kind; changes nothing."""
    language = preferences.language_of_bearer(query.token)
    question, button = (escape(language.phrase("unsubscribe", name)) for name in ("question", "button"))
    action = f"{UNSUBSCRIBE_PATH}?token={escape(query.token)}"
    form = f'<form method="post" action="{action}"><p>{question}</p><button>{button}</button></form>'
    return _page(language, form)


@bp.post("/unsubscribe")
@operation(PUBLIC, query=UnsubscribeQuery, any_body=True, media=("text/html",), problems=("not_found",))
def unsubscribe(query: UnsubscribeQuery) -> Answer:
    """End the letters of the link's kind with one click (RFC 8058).

    The token says all; the body (`List-Unsubscribe=One-Click` from mail programs, nothing from our page) is not read.
    """
    language = preferences.unsubscribe(query.token)
    return _page(language, f"<p>{escape(language.phrase('unsubscribe', 'done'))}</p>")


def _answer(chosen: Preferences) -> Answer:
    shown = {
        "customer_id": chosen.customer_id,
        "kinds": chosen.choices(),
        "required": sorted(preferences.REQUIRED),
        "version": chosen.version,
        "updated_at": chosen.updated_at,
    }
    return answer(shown, version=chosen.version)


def _page(language: Language, body: str) -> Answer:
    title = escape(language.phrase("unsubscribe", "title"))
    document = (
        f'<!doctype html>\n<html lang="{language.tag}"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"></head>\n<body>{body}</body></html>\n'
    )
    headers = {"Content-Security-Policy": _PAGE_CSP, "Cache-Control": "no-store"}
    return Answer(document, mimetype="text/html", headers=headers)
