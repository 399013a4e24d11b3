"""/v1/auth/second-factor, and taking away another user's"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Blueprint, g
from pydantic import StringConstraints

from fleet.blueprints.access import CodeOrRecoveryCode, CurrentPassword
from fleet.http import Answer, answer, operation
from fleet.limits import AUTH_STRICT
from fleet.parsing import Input, View
from fleet.services import second_factors

bp = Blueprint("second_factors", __name__, url_prefix="/v1")

Code = Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")]


class SecondFactorView(View):
    enabled: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


class NewSecondFactorView(View):
    secret: str
    otpauth_uri: str


class RecoveryCodesView(View):
    recovery_codes: list[str]


class Enrol(Input):
    current_password: CurrentPassword


class ConfirmFactor(Input):
    totp: Code


class PasswordAndCode(Input):
    current_password: CurrentPassword
    totp: CodeOrRecoveryCode


@bp.get("/auth/second-factor")
@operation("auth.session", answer=SecondFactorView)
def show() -> Answer:
    """Show whether you are asked for a code when you sign in, and how many recovery codes are left."""
    standing = second_factors.shown(g.actor)
    return answer({name: getattr(standing, name) for name in SecondFactorView.model_fields})


@bp.post("/auth/second-factor")
@operation(
    "second_factor.enrol",
    body=Enrol,
    answer=NewSecondFactorView,
    status=201,
    tier=AUTH_STRICT,
    problems=("invalid_credentials", "invalid_state"),
)
def enrol(body: Enrol) -> Answer:
    """Begin with a second factor: put `otpauth_uri`, shown this once, into an authenticator app, and confirm it with a code.

    Until then nothing changes, and another enrolment replaces this one. An Idempotency-Key is ignored, because the answer,
    which carries the secret, is stored nowhere.
    """
    secret, uri = second_factors.enrol(g.actor, current_password=body.current_password)
    return answer({"secret": secret, "otpauth_uri": uri}, 201)


@bp.post("/auth/second-factor/confirm")
@operation(
    "second_factor.enrol",
    body=ConfirmFactor,
    answer=RecoveryCodesView,
    tier=AUTH_STRICT,
    problems=("invalid_credentials", "invalid_state"),
)
def confirm(body: ConfirmFactor) -> Answer:
    """Put your second factor in force with a code of the app; the recovery codes are shown this once.

    Your other sessions end, as they were opened without a code; API keys live on. A letter tells you.
    """
    return answer({"recovery_codes": second_factors.confirm(g.actor, code=body.totp)})


@bp.post("/auth/second-factor/recovery-codes")
@operation(
    "auth.session",
    body=PasswordAndCode,
    answer=RecoveryCodesView,
    tier=AUTH_STRICT,
    problems=("invalid_credentials", "invalid_state"),
)
def renew_recovery_codes(body: PasswordAndCode) -> Answer:
    """Get new recovery codes, shown this once; those that you had are worthless then."""
    codes = second_factors.renew_recovery_codes(g.actor, current_password=body.current_password, code=body.totp)
    return answer({"recovery_codes": codes})


@bp.post("/auth/second-factor/disable")
@operation(
    "auth.session",
    body=PasswordAndCode,
    status=204,
    tier=AUTH_STRICT,
    problems=("invalid_credentials", "invalid_state"),
)
def disable(body: PasswordAndCode) -> Answer:
    """Do without your second factor: it takes your password and a code, or a recovery code."""
    second_factors.disable(g.actor, current_password=body.current_password, code=body.totp)
    return answer()


@bp.delete("/users/<uuid:user_id>/second-factor")
@operation("users.manage", status=204)
def remove(user_id: UUID) -> Answer:
    """Take another user's second factor away, who has lost telephone and recovery codes; a letter tells them.

    It has no version, so that If-Match is not needed. Your own goes with your password and a code alone (403).
    """
    second_factors.remove(g.actor, user_id)
    return answer()
