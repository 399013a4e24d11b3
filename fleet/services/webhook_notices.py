"""The mail to who made a webhook endpoint, when it was switched off by itself.

Sent at least once, with the promise's id as its Message-ID, as letters to customers are (fleet.services.notifications).
"""

from html import escape

from fleet.db import db, transaction
from fleet.gateways.mail import Mail, Session
from fleet.models.webhooks import DISABLED_TOLD
from fleet.services import outbox
from fleet.services.outbox import Message

TOPIC = "notifications.webhook_disabled"

_REASONS = {
    "gone": "its receiver answered 410 Gone, which asks us to stop",
    "failing": "nothing got through to it for five days",
}
_REMEDY = (
    "What happens now is not sent to it any more. When its receiver is back, set `enabled` to true: it gets what waited "
    "before. GET /v1/events has everything else."
)


def send(message: Message, session: Session) -> bool:
    """Send the mail that the message asks for and confirm it.

    Nobody gets one where the endpoint works again, or its maker has left. Raises what the session raises.
    """
    row = db.one(DISABLED_TOLD, (message.aggregate_id,))
    if row is not None:
        email, first_name, url, reason = row
        session.send(_mail(message.id, email, first_name, url, reason))
    with transaction():
        outbox.receive(TOPIC, [message.id])
        outbox.confirm([message.id])
    return True


def _mail(message_id: str, to: str, first_name: str, url: str, reason: str) -> Mail:
    # Its query may hold the receiver's own secret.
    address = url.partition("?")[0]
    sentences = (f"Dear {first_name},", f"the webhook endpoint {address} was switched off: {_REASONS[reason]}.", _REMEDY)
    html = "".join(f"<p>{escape(sentence)}</p>\n" for sentence in sentences)
    return Mail(
        id=message_id,
        to=to,
        subject="A webhook endpoint was switched off",
        text="\n\n".join(sentences) + "\n",
        html=f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"></head><body>\n{html}</body></html>\n',
    )
