"""Counting failed sign-ins of one account name, whether or not there is such an account."""

from datetime import datetime

from fleet.auth import secret_hash
from fleet.db import db
from fleet.models.access import LoginThrottle
from fleet.rules import throttle


def rests(email: str, *, at: datetime) -> bool:
    """Whether the account has failed so often that it takes no sign-in at that instant."""
    row = LoginThrottle.get_or_none(LoginThrottle.account_hash == secret_hash(email))
    return row is not None and throttle.rests(row.failures, row.last_failure_at, at=at)


def record_failure(email: str, *, at: datetime, counts: bool) -> None:
    """Write a failed sign-in down. One that came while the account rested does not count, or the rest would never end.

    It is written all the same, changing nothing, so that the answer takes equally long.
    """
    forgotten = at - throttle.HEALS_AFTER
    db.execute_sql(_RECORD, (secret_hash(email), at, counts, forgotten, counts))


def forget(email: str) -> None:
    """The right password was given: start again from nothing."""
    LoginThrottle.delete().where(LoginThrottle.account_hash == secret_hash(email)).execute()


_RECORD = """
INSERT INTO login_throttle AS t (account_hash, failures, last_failure_at) VALUES (%s, 1, %s)
ON CONFLICT (account_hash) DO UPDATE SET
  failures = CASE WHEN NOT %s THEN t.failures WHEN t.last_failure_at < %s THEN 1 ELSE least(t.failures + 1, 1000) END,
  last_failure_at = CASE WHEN %s THEN excluded.last_failure_at ELSE t.last_failure_at END
"""
