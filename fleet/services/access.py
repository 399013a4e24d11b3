"""Signing in and out: sessions, their refresh tokens, and the password that opens them."""

import logging
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from fleet import clock, passwords
from fleet.auth import SESSION_LIFETIME, Actor, new_secret, secret_hash
from fleet.db import atomic
from fleet.errors import Unauthenticated
from fleet.models.access import (
    RefreshToken,
    Session,
    User,
    end_session_of_token,
    end_sessions,
    proven_user_for_share,
)
from fleet.models.accounts import end_tokens, in_force_since
from fleet.rules.notices import RESET
from fleet.services import audit, credentials, outbox, throttle

log = logging.getLogger("fleet.access")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session and the refresh token that carries it on."""

    user_id: UUID
    session_id: UUID
    refresh_token: str


def login(*, email: str, password: str, totp: str | None = None) -> SignedIn:
    """Open a session. Raises Unauthenticated `invalid_credentials` or `totp_required`, Unavailable."""
    user, factor_since = credentials.by_password_and_code(email, password, totp)
    return _open_session(user, factor_since)


def refresh(refresh_token: str) -> SignedIn:
    """Carry a session on with a new refresh token; the old one is dead. Raises Unauthenticated."""
    signed_in = _exchange(secret_hash(refresh_token))
    if signed_in is None:
        raise Unauthenticated("The refresh token is not valid")
    return signed_in


@atomic
def logout(refresh_token: str) -> None:
    """End the session at once. A token that is none of ours leaves nothing to end: no failure (RFC 7009, 2.2)."""
    end_session_of_token(secret_hash(refresh_token), "logout")


def change_password(actor: Actor, *, current_password: str, new_password: str) -> None:
    """Change the actor's password and end all their other sessions; this one and the API keys live on.

    Raises Forbidden for an API key, Unauthenticated `invalid_credentials`, Invalid `weak_password`, Unavailable.
    """
    session_id = actor.must_have_session()
    user = credentials.by_password(User.get_by_id(actor.user_id).email, current_password)
    passwords.check(new_password, email=user.email, field="new_password")
    _replace_password(actor, user, passwords.hashed(new_password), spare=session_id)


@atomic
def _open_session(user: User, factor_since: datetime | None) -> SignedIn:
    # The password may have been changed, the user deactivated, or a second factor put in force, since all was compared. Each
    # ends the sessions, and waits for this lock: so this one ends too, or it is seen here. The factor is looked at by itself:
    # a statement that waits for the lock would see what was before.
    if not proven_user_for_share(user) or in_force_since(user.id) not in {None, factor_since}:
        raise credentials.not_proven()
    throttle.forget(user.email)
    session = Session.create(user=user.id, expires_at=clock.now() + SESSION_LIFETIME)
    return SignedIn(user.id, session.id, _hand_out_token(session.id))


@atomic
def _exchange(token_hash: bytes) -> SignedIn | None:
    """Use the token up and hand out the next one; None when it cannot be used, and then what it betrays is dealt with."""
    now = clock.now()
    unused = (RefreshToken.token_hash == token_hash) & RefreshToken.used_at.is_null()
    # Of any number of simultaneous uses one finds the token unused: the others wait for the row and match nothing.
    used = RefreshToken.update(used_at=now).where(unused).returning(RefreshToken.session).tuples().execute()
    session_id = next((session_id for (session_id,) in used), None)
    if session_id is None:
        _end_stolen_session(token_hash)
        return None
    live = (Session.id == session_id) & Session.ended_at.is_null() & (Session.expires_at > now)
    carried_on = Session.update(last_used_at=now, expires_at=now + SESSION_LIFETIME).where(live).returning(Session.user)
    user_id = next((user_id for (user_id,) in carried_on.tuples().execute()), None)
    return None if user_id is None else SignedIn(user_id, session_id, _hand_out_token(session_id))


def _end_stolen_session(token_hash: bytes) -> None:
    """A used token that comes back is in two hands, one of them a thief's: nobody keeps the session (RFC 9700, 4.14.2).

    Its user is told, once: of those who bring used tokens at the same time one ends the session.
    """
    ended = end_session_of_token(token_hash, "refresh_token_reused")
    if ended is None:
        return
    session_id, user_id = ended
    audit.record("system:sessions", "session.refresh_token_reused", "session", session_id, after={"user_id": user_id})
    outbox.promise("notifications.session_breached", "user", user_id)
    log.warning("a used refresh token came back; its session is ended", extra={"session_id": session_id})


def _hand_out_token(session_id: UUID) -> str:
    token = new_secret()
    RefreshToken.create(token_hash=secret_hash(token), session=session_id)
    return token


@atomic
def _replace_password(actor: Actor, user: User, password_hash: str, *, spare: UUID) -> None:
    # Of two changes that proved the same old password one matches; the other proved what is no longer true.
    same = (User.id == user.id) & (User.password_hash == user.password_hash)
    if not User.update(password_hash=password_hash).where(same).execute():
        raise credentials.not_proven()
    throttle.forget(user.email)
    end_sessions(user.id, "password_changed", spare=spare)
    end_tokens(user.id, RESET, at=clock.now())
    audit.record(actor, "password.changed", "user", user.id)
    outbox.promise("notifications.password_changed", "user", user.id)
