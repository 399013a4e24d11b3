"""Users, their sessions and refresh tokens, and machine keys."""

import peewee
from playhouse.postgres_ext import ArrayField, DateTimeTZField

from fleet import clock
from fleet.db import Statement
from fleet.models.base import Model, Versioned


class User(Versioned):
    """Somebody who signs in."""

    email = peewee.TextField()
    password_hash = peewee.TextField()
    first_name = peewee.TextField()
    last_name = peewee.TextField()
    phone = peewee.TextField(null=True)
    roles = ArrayField(peewee.TextField, index=False)
    deactivated_at = DateTimeTZField(null=True)

    class Meta:
        table_name = "user_account"


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


ACTOR_OF_SESSION = Statement(
    "actor_of_session",
    ("uuid", "uuid"),
    """SELECT u.roles, c.id
    FROM user_session s
    JOIN user_account u ON u.id = s.user_id
    LEFT JOIN customer c ON c.user_id = u.id
    WHERE s.id = $1 AND s.user_id = $2 AND s.ended_at IS NULL AND s.expires_at > now() AND u.deactivated_at IS NULL""",
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
