"""What keeps accounts safe beside the password: tokens that letters bring, second factors and their recovery codes."""

from datetime import datetime
from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import clock
from fleet.db import db
from fleet.models.access import User
from fleet.models.base import Listing, Model


class AccountToken(Model):
    """A token that a letter brought, stored as its digest. It is good until it ends or expires, and its use ends it."""

    token_hash = peewee.BlobField(primary_key=True)
    user = peewee.ForeignKeyField(User, backref="account_tokens")
    purpose = peewee.TextField()
    promise_id = peewee.UUIDField()
    created_at = DateTimeTZField(default=clock.now)
    expires_at = DateTimeTZField()
    ended_at = DateTimeTZField(null=True)


class SecondFactor(Model):
    """The secret that a user's codes are made with, sealed. It is asked for as soon as a code has confirmed it.

    `last_step` is that of the last code that was taken, `failures` how many wrong ones were given since.
    """

    user_id = peewee.UUIDField(primary_key=True)
    secret = peewee.BlobField()
    created_at = DateTimeTZField(default=clock.now)
    confirmed_at = DateTimeTZField(null=True)
    last_step = peewee.BigIntegerField(null=True)
    failures = peewee.IntegerField(default=0)


def about_factor(user_id: UUID) -> bytes:
    """What the seal of a user's secret is bound to: in another's row it cannot be opened."""
    return b"second factor" + user_id.bytes


class RecoveryCode(Model):
    """A code that stands once for a telephone that was lost, stored as its digest."""

    code_hash = peewee.BlobField(primary_key=True)
    user_id = peewee.UUIDField()
    used_at = DateTimeTZField(null=True)


SESSIONS = Listing(
    columns={name: f"user_session.{name}" for name in ("id", "created_at", "last_used_at", "expires_at")},
    source="user_session",
    key="user_session.id",
)

# --- tokens -----------------------------------------------------------------------------------------------------------


def bearer_of(token_hash: bytes, purpose: str, *, at: datetime) -> User | None:
    """The active user whose token this is, while it is good. Nothing is locked: whoever uses it looks again."""
    user: User | None = (
        User.select().join(AccountToken).where(_good(purpose, at) & (AccountToken.token_hash == token_hash) & _ACTIVE).first()
    )
    return user


def use_token(token_hash: bytes, purpose: str, *, at: datetime) -> bool:
    """End the token by its use; False when it is good no more. Of any number of simultaneous uses one is the first."""
    mine = _good(purpose, at) & (AccountToken.token_hash == token_hash)
    return bool(AccountToken.update(ended_at=at).where(mine).execute())


def end_tokens(user_id: UUID, purpose: str, *, at: datetime) -> None:
    """End all tokens of the user for this purpose. Whoever calls holds the user's row, as everybody who ends several does."""
    live = (AccountToken.user == user_id) & (AccountToken.purpose == purpose) & AccountToken.ended_at.is_null()
    AccountToken.update(ended_at=at).where(live).execute()


def replace_tokens(token_hash: bytes, user_id: UUID, purpose: str, promise_id: UUID, *, at: datetime, until: datetime) -> None:
    """Keep a new token and end those of earlier promises. Whoever calls holds the user's row."""
    earlier = (AccountToken.user == user_id) & (AccountToken.purpose == purpose) & (AccountToken.promise_id < promise_id)
    AccountToken.update(ended_at=at).where(earlier & AccountToken.ended_at.is_null()).execute()
    AccountToken.create(
        token_hash=token_hash, user=user_id, purpose=purpose, promise_id=promise_id, created_at=at, expires_at=until
    )


def token_promises_since(user_id: UUID, purpose: str, since: datetime) -> set[UUID]:
    """The promises of which the user had tokens for this purpose since then."""
    return {promise_id for (promise_id,) in db.rows(_PROMISES_SINCE, (user_id, purpose, since))}


_PROMISES_SINCE = "SELECT promise_id FROM account_token WHERE user_id = %s AND purpose = %s AND created_at > %s"


def _good(purpose: str, at: datetime) -> peewee.Expression:
    return (AccountToken.purpose == purpose) & AccountToken.ended_at.is_null() & (AccountToken.expires_at > at)


_ACTIVE = User.deactivated_at.is_null()

# --- second factors ---------------------------------------------------------------------------------------------------

# A factor that is in force is never replaced, only one that was not confirmed yet.
_ENROL = """
INSERT INTO second_factor (user_id, secret) VALUES (%s, %s)
ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, created_at = now() WHERE second_factor.confirmed_at IS NULL
RETURNING user_id
"""


def factor_of(user_id: UUID) -> SecondFactor | None:
    """The user's second factor, confirmed or not."""
    found: SecondFactor | None = SecondFactor.get_or_none(SecondFactor.user_id == user_id)
    return found


def in_force_since(user_id: UUID) -> datetime | None:
    """Since when the user is asked for codes; None when they are not."""
    factor = factor_of(user_id)
    return None if factor is None else factor.confirmed_at


def keep_secret(user_id: UUID, sealed: bytes) -> bool:
    """Keep the secret of a factor that is to be confirmed; False when the user has one in force."""
    return db.one(_ENROL, (user_id, sealed)) is not None


def confirm_factor(factor: SecondFactor, step: int) -> bool:
    """Put the factor in force by the code of that step; False when it is so already, or has another secret meanwhile."""
    same = (SecondFactor.user_id == factor.user_id) & (SecondFactor.secret == factor.secret)
    waiting = same & SecondFactor.confirmed_at.is_null()
    return bool(SecondFactor.update(confirmed_at=clock.now(), last_step=step).where(waiting).execute())


def take_step(factor: SecondFactor, step: int) -> bool:
    """Use the code of that step up; False when it, or a later one, was used. Of two simultaneous uses one is the first."""
    unused = (SecondFactor.user_id == factor.user_id) & (SecondFactor.secret == factor.secret) & (SecondFactor.last_step < step)
    return bool(SecondFactor.update(last_step=step, failures=0).where(unused).execute())


def count_wrong_code(user_id: UUID) -> int:
    """Note that a wrong code was given; returns how many there were since the last one that was taken."""
    counted = db.one("UPDATE second_factor SET failures = failures + 1 WHERE user_id = %s RETURNING failures", (user_id,))
    return counted[0] if counted else 0


def take_recovery_code(user_id: UUID, code_hash: bytes) -> bool:
    """Use a recovery code up, and forgive wrong codes; False when it is none of the user's, or was used."""
    unused = (RecoveryCode.code_hash == code_hash) & (RecoveryCode.user_id == user_id) & RecoveryCode.used_at.is_null()
    if not RecoveryCode.update(used_at=clock.now()).where(unused).execute():
        return False
    SecondFactor.update(failures=0).where(SecondFactor.user_id == user_id).execute()
    return True


def replace_recovery_codes(user_id: UUID, hashes: list[bytes]) -> None:
    """Forget the codes that there were and keep these. Whoever calls holds the user's row."""
    RecoveryCode.delete().where(RecoveryCode.user_id == user_id).execute()
    RecoveryCode.insert_many([{"code_hash": code_hash, "user_id": user_id} for code_hash in hashes]).execute()


def recovery_codes_left(user_id: UUID) -> int:
    return int(RecoveryCode.select().where((RecoveryCode.user_id == user_id) & RecoveryCode.used_at.is_null()).count())


def remove_factor(user_id: UUID) -> bool:
    """Delete the user's factor with its recovery codes; False when there is none.

    The codes come first, as in `take_recovery_code`: whoever uses one meanwhile holds it, and wants the factor next.
    """
    RecoveryCode.delete().where(RecoveryCode.user_id == user_id).execute()
    return bool(SecondFactor.delete().where(SecondFactor.user_id == user_id).execute())


def forget_account_safety(user_id: UUID) -> None:
    """Delete the tokens and the factor of somebody who is erased."""
    AccountToken.delete().where(AccountToken.user == user_id).execute()
    remove_factor(user_id)


# --- letters ----------------------------------------------------------------------------------------------------------

# Whom a letter about an account goes to: nobody once it is closed. Customers are addressed in their language.
ACCOUNT_TOLD = """
SELECT u.email, u.first_name, u.email_verified_at IS NOT NULL, c.language
FROM user_account u
LEFT JOIN customer c ON c.user_id = u.id
WHERE u.id = %s AND u.deactivated_at IS NULL
"""

FORGET_ACCOUNT_TOKENS = """
DELETE FROM account_token WHERE token_hash = ANY (ARRAY(
    SELECT token_hash FROM account_token WHERE expires_at < %(before)s
    ORDER BY expires_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
