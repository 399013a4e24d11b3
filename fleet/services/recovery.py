"""Password reset and e-mail verification: what is asked for, and the tokens that letters bring.

Whoever asks promises a letter and learns nothing else. The worker that writes the letter makes its token and keeps the digest:
the token is in the letter alone, neither in the promise nor in a task, a log or an answer.
"""

from datetime import datetime, timedelta
from uuid import UUID

from fleet import clock, passwords
from fleet.auth import Actor, new_secret, secret_hash
from fleet.db import atomic
from fleet.errors import BadRequest, InvalidState
from fleet.models.access import User, end_sessions, user_for_update
from fleet.models.accounts import bearer_of, end_tokens, replace_tokens, token_promises_since, use_token
from fleet.rules.notices import RESET, VERIFICATION
from fleet.services import audit, outbox, throttle

LIFETIMES = {RESET: timedelta(minutes=30), VERIFICATION: timedelta(days=1)}
# Nobody's letter-box is filled by a stranger who knows the address. Nor do they use up its owner's letters: those of no longer
# than a token lives are counted, so that whoever gets no letter has one whose token is good.
MOST_LETTERS = 5
COUNTED_OVER = {purpose: min(lifetime, timedelta(hours=1)) for purpose, lifetime in LIFETIMES.items()}


@atomic
def ask_for_password_reset(email: str) -> None:
    """Promise a letter to whoever has this address.

    An address that nobody has, or whose account is closed, costs the same statements: the promise is made all the same, about
    nobody, and the worker finds nobody to write to. So neither the answer nor its time tells the two apart.
    """
    asked = (User.email == email) & User.deactivated_at.is_null()
    user_id = User.select(User.id).where(asked).scalar()
    outbox.promise("notifications.password_reset", "user", user_id or clock.new_id())


def reset_password(token: str, *, new_password: str) -> None:
    """Set the password of the token's bearer and end all their sessions; their API keys live on.

    The letter reached them, so the address is theirs. A second factor stays. Raises BadRequest `invalid_token`, Invalid
    `weak_password`, Unavailable.
    """
    digest = secret_hash(token)
    user = _bearer(digest, RESET)
    passwords.check(new_password, email=user.email, field="new_password")
    _reset_password(user.id, digest, passwords.hashed(new_password))


@atomic
def ask_for_verification(actor: Actor) -> None:
    """Promise the letter with which the actor shows that the address is theirs.

    Raises Forbidden for an API key, InvalidState when they have shown it.
    """
    actor.must_have_session()
    if User.get_by_id(actor.user_id).email_verified_at is not None:
        raise InvalidState("The address is verified already")
    outbox.promise("notifications.email_verification", "user", actor.user_id)


@atomic
def verify_email(token: str) -> None:
    """Note that the token's bearer reads the letters to their address. Raises BadRequest `invalid_token`."""
    digest = secret_hash(token)
    user = _use(_bearer(digest, VERIFICATION).id, digest, VERIFICATION)
    if user.email_verified_at is None:
        user.change(email_verified_at=clock.now())


@atomic
def new_token(user_id: UUID, purpose: str, *, promise_id: str, asked_at: datetime) -> tuple[str, datetime] | None:
    """A token for the letter of that promise, and when it expires; those of earlier promises end.

    None where the letter should not go out any more: the account is closed by now, or it was asked for longer ago than a
    token lives, or again since then, or too often. A letter that is tried again gets a token of its own, beside the one that
    may have arrived.
    """
    now, promise = clock.now(), UUID(promise_id)
    user = user_for_update(user_id)
    others = token_promises_since(user_id, purpose, now - COUNTED_OVER[purpose]) - {promise}
    asked_again = any(other > promise for other in others)
    if not user.active or asked_again or len(others) >= MOST_LETTERS or now - asked_at > LIFETIMES[purpose]:
        return None
    token, until = new_secret(), now + LIFETIMES[purpose]
    replace_tokens(secret_hash(token), user_id, purpose, promise, at=now, until=until)
    return token, until


@atomic
def _reset_password(user_id: UUID, digest: bytes, password_hash: str) -> None:
    user, now = _use(user_id, digest, RESET), clock.now()
    user.change(password_hash=password_hash, email_verified_at=user.email_verified_at or now)
    throttle.forget(user.email)
    end_sessions(user_id, "password_reset")
    audit.record(f"user:{user_id}", "password.reset", "user", user_id)
    outbox.promise("notifications.password_changed", "user", user_id)


def _use(user_id: UUID, digest: bytes, purpose: str) -> User:
    """Use the token up, and end the others of its purpose; the user, locked. Raises BadRequest `invalid_token`.

    The user's row comes first: of two tokens of one promise that are used at once the second finds itself ended.
    """
    user = user_for_update(user_id)
    now = clock.now()
    if not user.active or not use_token(digest, purpose, at=now):
        raise _not_good()
    end_tokens(user_id, purpose, at=now)
    return user


def _bearer(digest: bytes, purpose: str) -> User:
    user = bearer_of(digest, purpose, at=clock.now())
    if user is None:
        raise _not_good()
    return user


def _not_good() -> BadRequest:
    return BadRequest("The token is not valid, was used, or its time is over", code="invalid_token")
