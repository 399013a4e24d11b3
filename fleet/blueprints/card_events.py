"""/v1/stripe/webhook"""

from flask import Blueprint, current_app, request

from fleet.errors import Invalid, Unauthenticated
from fleet.gateways.cards import BadSignature
from fleet.http import PUBLIC, Answer, answer, body_bytes, operation
from fleet.services import card_events

bp = Blueprint("card_events", __name__)


@bp.post("/v1/stripe/webhook")
@operation(PUBLIC, status=204, any_body=True, unlimited=True, problems=("invalid_signature",))
def take() -> Answer:
    """Take an event that Stripe has signed. One that came before, or is not about payments here, changes nothing.

    Not limited by address: Stripe sends many from few, and what is not signed costs no more than its digest.
    """
    cards = current_app.extensions["fleet"].cards
    if cards is None:
        raise Unauthenticated("There is no payment gateway here", code="invalid_signature")
    try:
        event = cards.event(body_bytes(), request.headers.get("Stripe-Signature", ""))
    except BadSignature:
        raise Unauthenticated("The event is not signed, or too old", code="invalid_signature") from None
    except ValueError:
        raise Invalid("This is no event") from None
    card_events.take(event)
    return answer()
