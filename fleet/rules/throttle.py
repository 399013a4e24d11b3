"""How long an account has to rest after failed sign-ins: hardly at all for a typing error, long for a guesser.

The rest doubles with each failure and is bounded, so that nobody can lock another one out for good: after
HEALS_AFTER without a failure that counted, everything is forgotten.
"""

from datetime import datetime, timedelta

FREE_FAILURES = 5
FIRST_REST = timedelta(seconds=5)
HEALS_AFTER = timedelta(minutes=15)
_DOUBLINGS = 10  # more would pass HEALS_AFTER anyway


def rest_after(failures: int) -> timedelta:
    """How long the account rests after that many failures in a row."""
    if failures < FREE_FAILURES:
        return timedelta(0)
    return min(FIRST_REST * 2 ** min(failures - FREE_FAILURES, _DOUBLINGS), HEALS_AFTER)


def rests(failures: int, last_failure_at: datetime, *, at: datetime) -> bool:
    """Whether the account takes no sign-in at that instant, not even with the right password."""
    return at < last_failure_at + rest_after(failures)
