"""Letters about an account to whoever signs in with it, customer or staff, by e-mail.

Sent at least once, with the promise's id as its Message-ID, as letters to customers are (fleet.services.notifications), and to
nobody else's eyes: no row tells staff that somebody asked for a new password.
"""

from fleet import config
from fleet.db import db, transaction
from fleet.gateways.mail import Mail, Session
from fleet.models.accounts import ACCOUNT_TOLD
from fleet.rules import letters
from fleet.rules.languages import Language, offered
from fleet.rules.letters import AccountTold, Letter
from fleet.rules.notices import RESET, VERIFICATION
from fleet.services import outbox, recovery
from fleet.services.outbox import Message

PAGES = {RESET: "/v1/auth/password-reset", VERIFICATION: "/v1/auth/email-verification"}


def send(message: Message, session: Session) -> bool:
    """Send the letter that the message asks for and confirm it.

    Nobody gets one where there is no such account or it is closed, where the address is verified already, or where
    `recovery.new_token` finds it too late or too often. Raises what the session raises.
    """
    mail = _mail(message)
    if mail is not None:
        session.send(mail)
    with transaction():
        outbox.receive(message.topic, [message.id])
        outbox.confirm([message.id])
    return True


def _mail(message: Message) -> Mail | None:
    row = db.one(ACCOUNT_TOLD, (message.aggregate_id,))
    if row is None:
        return None
    email, first_name, verified, tag = row
    kind = message.topic.partition(".")[2]
    if kind == VERIFICATION and verified:
        return None
    default = config.current().default_language
    letter = _letter(kind, message, first_name, offered(tag or default, default))
    return None if letter is None else Mail(message.id, email, letter.subject, letter.text(), letter.html())


def _letter(kind: str, message: Message, first_name: str, language: Language) -> Letter | None:
    if kind not in PAGES:
        return letters.of_account(kind, AccountTold(first_name, at=message.created_at), language)
    made = recovery.new_token(message.aggregate_id, kind, promise_id=message.id, asked_at=message.created_at)
    if made is None:
        return None
    token, until = made
    told = AccountTold(first_name, link=_link(kind, language, token), until=until)
    if told.link is None:
        told = AccountTold(first_name, code=token, until=until)
    return letters.of_account(kind, told, language)


def _link(kind: str, language: Language, token: str) -> str | None:
    """The page that takes the token; None where PUBLIC_URL does not say where we can be reached.

    The token stands in the fragment, which browsers send nobody: no log and no Referer holds it.
    """
    public_url = config.current().public_url
    return f"{public_url.rstrip('/')}{PAGES[kind]}?lang={language.tag}#{token}" if public_url else None
