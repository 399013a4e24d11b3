"""The second factor of those who work here: codes by the clock, from an app on their telephone (RFC 6238)."""

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from fleet import clock
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Forbidden, InvalidState, NotFound
from fleet.models.access import User, end_sessions, user_for_update
from fleet.models.accounts import (
    SecondFactor,
    confirm_factor,
    factor_of,
    keep_secret,
    recovery_codes_left,
    remove_factor,
    replace_recovery_codes,
)
from fleet.rules import totp
from fleet.services import audit, credentials, outbox

ISSUER = "Fleet"
# Or who finds an open session could try the codes of an enrolment that was forgotten.
ENROLMENT_LIVES = timedelta(minutes=15)
RECOVERY_CODES, _RECOVERY_BYTES, _GROUP = 10, 10, 4


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether a user is asked for a code, since when, and how many recovery codes are left."""

    enabled: bool
    confirmed_at: datetime | None
    recovery_codes_left: int


def shown(actor: Actor) -> Standing:
    """How the actor's second factor stands. Raises Forbidden for an API key."""
    actor.must_have_session()
    factor = factor_of(actor.user_id)
    if factor is None or factor.confirmed_at is None:
        return Standing(False, None, 0)
    return Standing(True, factor.confirmed_at, recovery_codes_left(actor.user_id))


def enrol(actor: Actor, *, current_password: str) -> tuple[str, str]:
    """Begin: the secret and its otpauth URI, which nobody can read again. It is asked for once a code has confirmed it.

    The password is asked for, or who finds an open session could lock its user out. Raises Forbidden for an API key,
    Unauthenticated `invalid_credentials`, InvalidState while a factor is in force, Unavailable.
    """
    user = _proven(actor, current_password)
    secret = totp.new_secret()
    if not keep_secret(user.id, credentials.sealed_secret(user.id, secret)):
        raise _in_force()
    return totp.as_text(secret), totp.uri(secret, account=user.email, issuer=ISSUER)


def confirm(actor: Actor, *, code: str) -> list[str]:
    """Put the factor in force with a code of its own; returns the recovery codes, which nobody can read again.

    The actor's other sessions end: they were opened without a code, and one of them may be whom the factor is to keep out.
    Wrong codes count as failed sign-ins. Raises Forbidden for an API key, InvalidState when nothing is to be confirmed,
    Unauthenticated `invalid_credentials`, Unavailable.
    """
    session_id = actor.must_have_session()
    factor = factor_of(actor.user_id)
    if factor is None or factor.confirmed_at is not None or clock.now() - factor.created_at > ENROLMENT_LIVES:
        raise InvalidState("There is no second factor to be confirmed")
    email = User.get_by_id(actor.user_id).email
    step = credentials.counted(email, lambda rests: None if rests else credentials.step_of_code(factor, code))
    return _put_in_force(actor, factor, step, spare=session_id)


def renew_recovery_codes(actor: Actor, *, current_password: str, code: str) -> list[str]:
    """New recovery codes instead of those that there were. Raises as `disable`."""
    user = _proven_with_factor(actor, current_password, code)
    return _replace_codes(actor, user.id)


def disable(actor: Actor, *, current_password: str, code: str) -> None:
    """Do without the factor from now on.

    Raises Forbidden for an API key, InvalidState when none is in force, Unauthenticated `invalid_credentials`, Unavailable.
    """
    user = _proven_with_factor(actor, current_password, code)
    _remove(actor, user.id)


def remove(actor: Actor, user_id: UUID) -> None:
    """Take another user's factor away, as an admin: their telephone is lost, and so are the codes.

    One's own goes by password and code alone, or an open session would be enough. Raises Forbidden, NotFound.
    """
    if actor.user_id == user_id:
        raise Forbidden("Your own second factor goes with your password and a code")
    _remove(actor, user_id)


def remove_by_operator(operator: str, *, email: str) -> None:
    """The same from the command line, where whoever runs it owns the machine: the last admin's telephone may be lost.

    `operator` is a name for the audit log. Raises NotFound.
    """
    user = User.get_or_none(User.email == email)
    if user is None:
        raise NotFound("There is no such user")
    _remove(operator, user.id)


@atomic
def _put_in_force(actor: Actor, factor: SecondFactor, step: int, *, spare: UUID) -> list[str]:
    user_for_update(actor.user_id)  # a sign-in that proved the password alone waits and finds the factor, or its session ends
    # Of two confirmations at once one puts it in force; an enrolment in between has another secret.
    if not confirm_factor(factor, step):
        raise _in_force()
    ended = end_sessions(actor.user_id, "second_factor_enabled", spare=spare)
    audit.record(actor, "second_factor.enabled", "user", actor.user_id, after={"sessions_ended": ended})
    outbox.promise("notifications.second_factor_enabled", "user", actor.user_id)
    return _fresh_codes(actor.user_id)


@atomic
def _replace_codes(actor: Actor, user_id: UUID) -> list[str]:
    # Of two who renew at once the second waits, and replaces what the first one made.
    user_for_update(user_id)
    if factor_of(user_id) is None:
        raise _not_in_force()
    audit.record(actor, "second_factor.recovery_codes_renewed", "user", user_id)
    return _fresh_codes(user_id)


@atomic
def _remove(actor: Actor | str, user_id: UUID) -> None:
    user_for_update(user_id)  # whoever renews the codes of the factor holds it too
    if not remove_factor(user_id):
        raise NotFound("There is no second factor")
    audit.record(actor, "second_factor.removed", "user", user_id)
    outbox.promise("notifications.second_factor_removed", "user", user_id)


def _fresh_codes(user_id: UUID) -> list[str]:
    codes = [base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode() for _ in range(RECOVERY_CODES)]
    replace_recovery_codes(user_id, [credentials.recovery_code_hash(code) for code in codes])
    return ["-".join(code[at : at + _GROUP] for at in range(0, len(code), _GROUP)) for code in codes]


def _proven(actor: Actor, password: str) -> User:
    actor.must_have_session()
    return credentials.by_password(User.get_by_id(actor.user_id).email, password)


def _proven_with_factor(actor: Actor, password: str, code: str) -> User:
    if not shown(actor).enabled:
        raise _not_in_force()
    user, _ = credentials.by_password_and_code(User.get_by_id(actor.user_id).email, password, code)
    return user


def _in_force() -> InvalidState:
    return InvalidState("A second factor is in force; disable it first")


def _not_in_force() -> InvalidState:
    return InvalidState("No second factor is in force")
