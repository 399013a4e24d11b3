"""Users, their sessions and refresh tokens, and machine keys."""

from uuid import UUID

import peewee
from playhouse.postgres_ext import ArrayField, DateTimeTZField

from fleet import clock
from fleet.auth import Actor
from fleet.db import Statement, db
from fleet.errors import NotFound
from fleet.models.base import Condition, Listing, Model, Versioned


class User(Versioned):
    """Somebody who signs in."""

    email = peewee.TextField()
    password_hash = peewee.TextField()
    first_name = peewee.TextField()
    last_name = peewee.TextField()
    phone = peewee.TextField(null=True)
    roles = ArrayField(peewee.TextField, index=False)
    deactivated_at = DateTimeTZField(null=True)
    email_verified_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "user_account"

    @property
    def active(self) -> bool:
        """Whether the user may sign in."""
        return self.deactivated_at is None


class Session(Model):
    """One sign-in, on one device: a family of refresh tokens that lives and dies together."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    user = peewee.ForeignKeyField(User, backref="sessions")
    created_at = DateTimeTZField(default=clock.now)
    last_used_at = DateTimeTZField(default=clock.now)
    expires_at = DateTimeTZField()
    ended_at = DateTimeTZField(null=True)
    end_reason = peewee.TextField(null=True)

    class Meta:
        table_name = "user_session"


class RefreshToken(Model):
    """A refresh token that was handed out once and may be used once."""

    token_hash = peewee.BlobField(primary_key=True)
    session = peewee.ForeignKeyField(Session, backref="refresh_tokens")
    issued_at = DateTimeTZField(default=clock.now)
    used_at = DateTimeTZField(null=True)


class LoginThrottle(Model):
    """Failed sign-ins of one account name, whether or not there is such an account."""

    account_hash = peewee.BlobField(primary_key=True)
    failures = peewee.IntegerField()
    last_failure_at = DateTimeTZField()


class ApiKey(Model):
    """A machine's credential, stored as its digest."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    user = peewee.ForeignKeyField(User, backref="api_keys")
    name = peewee.TextField()
    prefix = peewee.TextField()
    key_hash = peewee.BlobField()
    permissions = ArrayField(peewee.TextField, index=False)
    created_at = DateTimeTZField(default=clock.now)
    expires_at = DateTimeTZField()
    last_used_at = DateTimeTZField(null=True)
    revoked_at = DateTimeTZField(null=True)


USERS = Listing(
    columns={
        "active": "user_account.deactivated_at IS NULL",
        **{
            name: f"user_account.{name}"
            for name in (
                "id", "email", "first_name", "last_name", "phone", "roles", "deactivated_at",
                "email_verified_at", "version", "created_at", "updated_at",
            )
        },
    },
    source="user_account",
    key="user_account.id",
)  # fmt: skip

API_KEYS = Listing(
    columns={
        name: f"api_key.{name}"
        for name in ("id", "name", "prefix", "permissions", "created_at", "expires_at", "last_used_at")
    },
    source="api_key",
    key="api_key.id",
)


def keys_seen_by(actor: Actor) -> Condition:
    """One's own keys, as long as they are not revoked. Nobody manages another one's: an admin deactivates the owner."""
    return Condition("api_key.user_id = %s AND api_key.revoked_at IS NULL", (actor.user_id,))


def active_admins_for_update() -> set[UUID]:
    """Every admin who may sign in, locked in the order of their ids until the transaction ends.

    Whoever takes an admin away asks here first, so that two who do it at once stand in a line, and the second sees what
    the first one left.
    """
    admins = User.roles.contains(["admin"]) & User.deactivated_at.is_null()
    return {user.id for user in User.select(User.id).where(admins).order_by(User.id).for_update()}


def user_for_update(user_id: UUID) -> User:
    """The user, locked until the transaction ends. Raises NotFound."""
    user: User | None = User.select().where(User.id == user_id).for_update().first()
    if user is None:
        raise NotFound()
    return user


def proven_user_for_share(user: User) -> bool:
    """Whether `user` still has the password that was compared and may sign in, held so until the transaction ends.

    A change of the password or a deactivation waits for the lock and then ends the session that was opened under it.
    """
    still = "SELECT 1 FROM user_account WHERE id = %s AND password_hash = %s AND deactivated_at IS NULL FOR SHARE"
    return db.one(still, (user.id, user.password_hash)) is not None


def live_sessions_of(user_id: UUID) -> Condition:
    """The sessions of the user that one can act in."""
    live = "user_session.user_id = %s AND user_session.ended_at IS NULL AND user_session.expires_at > now()"
    return Condition(live, (user_id,))


def end_sessions(user_id: UUID, reason: str, *, spare: UUID | None = None) -> int:
    """End all live sessions of the user, but for the one to `spare`; returns how many."""
    live = (Session.user == user_id) & Session.ended_at.is_null()
    if spare is not None:
        live &= Session.id != spare
    return int(Session.update(ended_at=clock.now(), end_reason=reason).where(live).execute())


def end_session(user_id: UUID, session_id: UUID, reason: str) -> bool:
    """End one session of the user; False when it is none of theirs, or over already."""
    live = (Session.id == session_id) & (Session.user == user_id) & Session.ended_at.is_null()
    live &= Session.expires_at > clock.now()
    return bool(Session.update(ended_at=clock.now(), end_reason=reason).where(live).execute())


def end_session_of_token(token_hash: bytes, reason: str) -> tuple[UUID, UUID] | None:
    """End the session that this refresh token was ever handed out in; its id and its user's, if it was live until now."""
    family = RefreshToken.select(RefreshToken.session).where(RefreshToken.token_hash == token_hash)
    ended = (
        Session.update(ended_at=clock.now(), end_reason=reason)
        .where(Session.id.in_(family) & Session.ended_at.is_null())
        .returning(Session.id, Session.user)
        .tuples()
        .execute()
    )
    return next(iter(ended), None)


ACTOR_OF_SESSION = Statement(
    "actor_of_session",
    ("uuid", "uuid"),
    """SELECT u.roles, c.id
    FROM user_session s
    JOIN user_account u ON u.id = s.user_id
    LEFT JOIN customer c ON c.user_id = u.id
    WHERE s.id = $1 AND s.user_id = $2 AND s.ended_at IS NULL AND s.expires_at > now() AND u.deactivated_at IS NULL""",
)

# Whether all that ACTOR_OF_SESSION answered at some time is so at this moment.
ACTOR_STANDS = Statement(
    "actor_stands",
    ("uuid", "uuid", "text[]", "uuid"),
    """SELECT CASE WHEN EXISTS (SELECT 1
        FROM user_session s
        JOIN user_account u ON u.id = s.user_id
        LEFT JOIN customer c ON c.user_id = u.id
        WHERE s.id = $1 AND s.user_id = $2 AND s.ended_at IS NULL AND s.expires_at > now() AND u.deactivated_at IS NULL
            AND u.roles = $3 AND c.id IS NOT DISTINCT FROM $4)
        THEN true ELSE refuse_actor() END""",
)

ACTOR_OF_API_KEY = Statement(
    "actor_of_api_key",
    ("bytea",),
    """SELECT k.id, k.user_id, k.permissions, u.roles, c.id, k.last_used_at
    FROM api_key k
    JOIN user_account u ON u.id = k.user_id
    LEFT JOIN customer c ON c.user_id = u.id
    WHERE k.key_hash = $1 AND k.revoked_at IS NULL AND k.expires_at > now() AND u.deactivated_at IS NULL""",
)

FORGET_SESSIONS = """
DELETE FROM user_session WHERE id = ANY (ARRAY(
    SELECT id FROM user_session WHERE least(ended_at, expires_at) < %(before)s
    ORDER BY least(ended_at, expires_at) LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
FORGET_TOKENS = """
DELETE FROM refresh_token WHERE token_hash = ANY (ARRAY(
    SELECT token_hash FROM refresh_token WHERE issued_at < %(before)s
    ORDER BY issued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
FORGET_FAILURES = """
DELETE FROM login_throttle WHERE account_hash = ANY (ARRAY(
    SELECT account_hash FROM login_throttle WHERE last_failure_at < %(before)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
