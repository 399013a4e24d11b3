"""/v1/auth/password-reset and /v1/auth/email-verification, and the pages behind the links in their letters"""

import base64
import hashlib
from html import escape
from pathlib import Path
from string import Template
from typing import Annotated, Literal

from flask import Blueprint, g
from pydantic import StringConstraints

from fleet import config
from fleet.http import PUBLIC, Answer, answer, operation
from fleet.limits import AUTH_STRICT
from fleet.parsing import Email, Input, Query, View
from fleet.passwords import NewPassword
from fleet.rules.languages import offered
from fleet.services import recovery

bp = Blueprint("recovery", __name__, url_prefix="/v1/auth")

Token = Annotated[str, StringConstraints(min_length=1, max_length=256)]

_PAGES = Path(__file__).parents[1] / "templates" / "pages"
_PAGE = Template((_PAGES / "account.html").read_text("utf-8"))
_SCRIPT = (_PAGES / "account.js").read_text("utf-8")
_SCRIPT_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# The one script that may run is the page's own, and it may talk to nobody but us.
_PAGE_CSP = (
    f"default-src 'none'; script-src 'sha256-{_SCRIPT_DIGEST}'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_NEW_FIELD = '<input name="new_password" type="password" autocomplete="new-password" required minlength="12">'


class AskForReset(Input):
    email: Email


class ResetPassword(Input):
    token: Token
    new_password: NewPassword


class VerifyEmail(Input):
    token: Token


class LetterView(View):
    message: str


class LinkQuery(Query):
    lang: Literal["en", "de", "fr", "es"] | None = None


@bp.post("/password-reset")
@operation(PUBLIC, body=AskForReset, answer=LetterView, status=202, tier=AUTH_STRICT, idempotent=True)
def ask_for_reset(body: AskForReset) -> Answer:
    """Ask for a letter with which a new password can be set.

    The answer is the same whether or not somebody has the address. An account gets at most 5 such letters an hour.
    """
    recovery.ask_for_password_reset(body.email)
    return answer({"message": "If somebody has this address, a letter is on its way to it"}, 202)


@bp.post("/password-reset/confirm")
@operation(PUBLIC, body=ResetPassword, status=204, tier=AUTH_STRICT, problems=("invalid_token", "weak_password"))
def reset(body: ResetPassword) -> Answer:
    """Set a new password with the token of the letter; all sessions end, a second factor and API keys stay.

    The token works once, for 30 minutes, and until another one is asked for.
    """
    recovery.reset_password(body.token, new_password=body.new_password)
    return answer()


@bp.post("/email-verification")
@operation("auth.session", answer=LetterView, status=202, tier=AUTH_STRICT, idempotent=True, problems=("invalid_state",))
def ask_for_verification() -> Answer:
    """Ask again for the letter with which you show that your address is yours; the first one came with your registration."""
    recovery.ask_for_verification(g.actor)
    return answer({"message": "A letter is on its way to your address"}, 202)


@bp.post("/email-verification/confirm")
@operation(PUBLIC, body=VerifyEmail, status=204, tier=AUTH_STRICT, problems=("invalid_token",))
def verify(body: VerifyEmail) -> Answer:
    """Show with the token of the letter that the address is yours. It works once, for a day."""
    recovery.verify_email(body.token)
    return answer()


@bp.get("/password-reset")
@operation(PUBLIC, query=LinkQuery, media=("text/html",))
def reset_page(query: LinkQuery) -> Answer:
    """The page behind the link in the letter. The token stands in the link's fragment, which is sent nobody."""
    return _page(query, "password", f"{bp.url_prefix}/password-reset/confirm", _NEW_FIELD)


@bp.get("/email-verification")
@operation(PUBLIC, query=LinkQuery, media=("text/html",))
def verification_page(query: LinkQuery) -> Answer:
    """The page behind the link in the letter; it changes nothing until its button is pressed."""
    return _page(query, "email", f"{bp.url_prefix}/email-verification/confirm", "")


def _page(query: LinkQuery, about: str, to: str, field: str) -> Answer:
    default = config.current().default_language
    language = offered(query.lang or default, default)
    names = {name: f"{about}_{name}" for name in ("title", "label", "button", "done")}
    said = {name: escape(language.phrase("account_page", phrase)) for name, phrase in names.items()}
    failed = escape(language.phrase("account_page", "failed"))
    document = _PAGE.substitute(said, language=language.tag, to=to, field=field, failed=failed, script=_SCRIPT)
    headers = {"Content-Security-Policy": _PAGE_CSP, "Cache-Control": "no-store"}
    return Answer(document, mimetype="text/html", headers=headers)
