"""/v1/auth and the keys that its tokens are verified with."""

from typing import Annotated, Any

from flask import Blueprint, current_app, g
from pydantic import StringConstraints

from fleet import clock
from fleet.auth import ACCESS_LIFETIME, MAX_PASSWORD_BYTES
from fleet.http import PUBLIC, Answer, answer, operation
from fleet.limits import AUTH_STRICT
from fleet.parsing import Email, Input, View
from fleet.passwords import NewPassword
from fleet.services import access
from fleet.services.access import SignedIn

bp = Blueprint("access", __name__)

CurrentPassword = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PASSWORD_BYTES)]
CodeOrRecoveryCode = Annotated[str, StringConstraints(min_length=6, max_length=32)]
RefreshToken = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class TokensView(View):
    access_token: str
    token_type: str
    expires_in: int
    refresh_token: str


class KeysView(View):
    keys: list[dict[str, str]]


class Login(Input):
    email: Email
    password: CurrentPassword
    totp: CodeOrRecoveryCode | None = None


class HeldToken(Input):
    refresh_token: RefreshToken


class ChangePassword(Input):
    current_password: CurrentPassword
    new_password: NewPassword


@bp.post("/v1/auth/login")
@operation(PUBLIC, body=Login, answer=TokensView, tier=AUTH_STRICT, problems=("invalid_credentials", "totp_required"))
def login(body: Login) -> Answer:
    """Sign in; who has a second factor sends its code, or a recovery code, as `totp`.

    An unknown e-mail, a wrong password, a deactivated account and one that rests after too many failures (at most
    15 minutes) get the same answer, and so does a wrong or used code. `totp_required` means that only a code is missing.
    """
    return _tokens(access.login(email=body.email, password=body.password, totp=body.totp))


@bp.post("/v1/auth/refresh")
@operation(PUBLIC, body=HeldToken, answer=TokensView, problems=("unauthenticated",))
def refresh(body: HeldToken) -> Answer:
    """Exchange a refresh token for a new pair.

    A refresh token works once. One that comes a second time ends its whole session.
    """
    return _tokens(access.refresh(body.refresh_token))


@bp.post("/v1/auth/logout")
@operation(PUBLIC, body=HeldToken, status=204)
def logout(body: HeldToken) -> Answer:
    """End the session of a refresh token, its access tokens included."""
    access.logout(body.refresh_token)
    return answer()


@bp.post("/v1/auth/password")
@operation(
    "auth.session",
    body=ChangePassword,
    status=204,
    tier=AUTH_STRICT,
    problems=("invalid_credentials", "weak_password"),
)
def change_password(body: ChangePassword) -> Answer:
    """Change your password; all your other sessions end."""
    access.change_password(g.actor, current_password=body.current_password, new_password=body.new_password)
    return answer()


@bp.get("/.well-known/jwks.json")
@operation(PUBLIC, answer=KeysView)
def jwks() -> Answer:
    """The public keys that access tokens are verified with (RFC 7517)."""
    response = answer({"keys": current_app.extensions["fleet"].tokens.jwks()})
    response.headers["Cache-Control"] = "public, max-age=300"
    return response


def _tokens(signed_in: SignedIn) -> Answer:
    tokens: Any = current_app.extensions["fleet"].tokens
    access_token = tokens.issue(user_id=signed_in.user_id, session_id=signed_in.session_id, at=clock.now())
    response = answer(
        {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": int(ACCESS_LIFETIME.total_seconds()),
            "refresh_token": signed_in.refresh_token,
        }
    )
    response.headers["Cache-Control"] = "no-store"
    return response
