"""Proving who somebody is: a password, and a code where there is a second factor. Each failure counts against the account.

A code works once: its step is used up, and so is a recovery code (RFC 6238, 5.2).
"""

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TypeVar
from uuid import UUID

from fleet import auth, clock, config, passwords, sealing
from fleet.auth import secret_hash
from fleet.db import atomic
from fleet.errors import Unauthenticated
from fleet.models.access import User
from fleet.models.accounts import (
    SecondFactor,
    about_factor,
    count_wrong_code,
    factor_of,
    take_recovery_code,
    take_step,
)
from fleet.rules import totp
from fleet.sealing import SealBroken
from fleet.services import audit, outbox, throttle

R = TypeVar("R")

# In a row, each after the right password: a chance of one in 6,700 to have guessed a code (NIST SP 800-63B: at most 100).
MOST_WRONG_CODES = 50

log = logging.getLogger("fleet.access")


def not_proven() -> Unauthenticated:
    """The one answer to whatever did not prove who somebody is."""
    return Unauthenticated("The e-mail or the password is not right", code="invalid_credentials")


def by_password(email: str, password: str) -> User:
    """The active user with that e-mail and password. Raises Unauthenticated `invalid_credentials`, Unavailable."""
    return counted(email, partial(_user_of, email, password))


def by_password_and_code(email: str, password: str, code: str | None) -> tuple[User, datetime | None]:
    """As `by_password`, and with a code where the user has a second factor; and since when the factor asked for is in force.

    Raises Unauthenticated `totp_required` when all that is missing is a code; it counts neither for nor against the account.
    """

    def proof(rests: bool) -> tuple[User, datetime | None] | None:
        user = _user_of(email, password, rests)
        factor = None if user is None else factor_of(user.id)
        if user is None or not _factor_passes(factor, code):
            return None
        return user, None if factor is None else factor.confirmed_at

    return counted(email, proof)


def counted(email: str, proof: Callable[[bool], R | None]) -> R:
    """What the proof finds; None counts as a failure. It is told whether the account rests, and then must find nothing.

    Asked and counted in one turn: who guesses in parallel is counted between two guesses like everybody else. Raises
    Unauthenticated `invalid_credentials`, Unavailable.
    """
    with passwords.desk.turn():
        at = clock.now()
        rests = throttle.rests(email, at=at)
        found = proof(rests)
        if found is not None:
            return found
        throttle.record_failure(email, at=at, counts=not rests)
    raise not_proven()


def _user_of(email: str, password: str, rests: bool) -> User | None:
    """An unknown account, a wrong password, a deactivated account and one that rests cost the same reads and the same one
    comparison, so that neither the answer nor its time tells them apart."""
    user: User | None = User.get_or_none(User.email == email)
    stored = None if user is None or rests or not user.active else user.password_hash
    return user if auth.password_matches(password, stored) else None


# --- codes ------------------------------------------------------------------------------------------------------------


def step_of_code(factor: SecondFactor, code: str) -> int | None:
    """The step whose code this is, if it is later than the last one that was taken. None too when the secret cannot be read."""
    settings, about = config.current(), about_factor(factor.user_id)
    try:
        secret = sealing.unseal(
            bytes(factor.secret), about=about, secret_key=settings.secret_key, previous=settings.secret_key_previous
        )
    except SealBroken:
        log.error("a second factor cannot be read", extra={"user_id": factor.user_id})
        return None
    return totp.step_of_code(secret, code, at=clock.now(), after=factor.last_step)


def sealed_secret(user_id: UUID, secret: bytes) -> bytes:
    """A factor's secret as it is stored: it opens for this user alone."""
    return sealing.seal(secret, about=about_factor(user_id), secret_key=config.current().secret_key)


def recovery_code_hash(code: str) -> bytes:
    """What is stored of a recovery code, however it was typed: 80 bits of its own, so a plain digest suffices."""
    return secret_hash(code.upper().replace("-", "").replace(" ", ""))

def _factor_passes(factor: SecondFactor | None, code: str | None) -> bool:
    if factor is None or factor.confirmed_at is None:
        return True
    if code is None:
        raise Unauthenticated("Send the code of your second factor too", code="totp_required")
    if len(code) != totp.DIGITS:
        return _recover(factor.user_id, code)
    # A throttle that heals would let who has the password try for ever; this ends it, and locks out nobody without it.
    if factor.failures >= MOST_WRONG_CODES:
        return False
    step = step_of_code(factor, code)
    if step is not None and take_step(factor, step):
        return True
    _count_wrong_code(factor.user_id)
    return False


@atomic
def _count_wrong_code(user_id: UUID) -> None:
    if count_wrong_code(user_id) == MOST_WRONG_CODES:
        audit.record("system:access", "second_factor.locked", "user", user_id)
        outbox.promise("notifications.second_factor_locked", "user", user_id)


@atomic
def _recover(user_id: UUID, code: str) -> bool:
    taken = take_recovery_code(user_id, recovery_code_hash(code))
    if taken:
        audit.record(f"user:{user_id}", "second_factor.recovery_code_used", "user", user_id)
    return taken
