"""When a webhook is tried again, when its endpoint is given up on, and how a message is signed (Standard Webhooks 1.0.0)."""

import base64
import hashlib
import hmac
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with
SECRET_BYTES = 32
KEPT_AFTER_ROTATION = timedelta(hours=24)

_MINUTE, _HOUR = 60, 3600
RETRIES_S = (
    5, 5 * _MINUTE, 30 * _MINUTE, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, 14 * _HOUR, 20 * _HOUR, 24 * _HOUR,
)  # fmt: skip
"""How long after each failure the next attempt comes: the last one some three days after the first."""
MOST_ATTEMPTS = len(RETRIES_S) + 1
LONGEST_RETRY_AFTER_S = 24 * _HOUR

FIRST_REST_S, LONGEST_REST_S = 5, 5 * _MINUTE
LONGEST_ASKED_REST_S = _HOUR
FAILING_TOO_LONG = timedelta(days=5)
FAILURES_TOO_MANY = 10

SLOW_S = 2.0
"""An endpoint that takes longer to answer rests as long as it took: it keeps half a worker busy, and never all of them."""

GONE = 410


def retry_in_s(tries: int, *, asked_s: float | None = None) -> float | None:
    """How long to wait after the n-th failed attempt, give or take a tenth; None when it was the last one.

    A receiver that asks for more time (`Retry-After`) gets it, up to a day.
    """
    if tries >= MOST_ATTEMPTS:
        return None
    planned = _about(RETRIES_S[tries - 1])
    return max(planned, min(asked_s or 0, LONGEST_RETRY_AFTER_S))


def rest_s(failures: int, *, asked_s: float | None = None) -> float:
    """How long an endpoint is left alone after so many failures in a row: 5 s, 10 s, 20 s, ... 5 minutes.

    Whatever else waits for it waits too: one attempt at a time finds out whether it is back.
    """
    planned = _about(min(FIRST_REST_S * 2 ** min(failures - 1, 16), LONGEST_REST_S))
    return max(planned, min(asked_s or 0, LONGEST_ASKED_REST_S))


def is_hopeless(failing_since: datetime, failures: int, *, now: datetime) -> bool:
    """Whether an endpoint has been failing for so long that it is switched off."""
    return failures >= FAILURES_TOO_MANY and failing_since <= now - FAILING_TOO_LONG


def asked_wait_s(header: str | None, *, now: datetime) -> float | None:
    """What `Retry-After` asks for, in seconds from now; None when it says nothing that can be read (RFC 9110, 10.2.3)."""
    if not header or len(header) > 64:
        return None
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, OverflowError, TypeError):  # a year of many digits overflows; others are of the library's versions
        return None
    return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())


def secret_text(secret: bytes) -> str:
    """A secret as its receiver gets it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed(message_id: str, at: datetime, body: bytes, secrets: Sequence[bytes]) -> dict[str, str]:
    """The headers of a message: its id, the time of this attempt, and a signature by each secret that is valid."""
    timestamp = str(int(at.timestamp()))
    content = f"{message_id}.{timestamp}.".encode() + body
    signatures = (base64.b64encode(hmac.digest(secret, content, hashlib.sha256)).decode() for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def _about(seconds: float) -> float:
    """Give or take a tenth, so that what failed together does not come back together."""
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, hides nothing
