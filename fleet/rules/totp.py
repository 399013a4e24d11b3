"""One-time codes by the clock (RFC 6238), as authenticator apps make them: six digits, SHA-1, a new one each 30 seconds."""

import base64
import hmac
import secrets
from datetime import datetime
from urllib.parse import quote, urlencode

STEP_S, DIGITS = 30, 6
# RFC 6238, 5.2: the clock of a telephone may be one step off, to either side.
DRIFT_STEPS = 1
# RFC 4226, 4: 160 bits are recommended.
SECRET_BYTES = 20


def new_secret() -> bytes:
    return secrets.token_bytes(SECRET_BYTES)


def step_of(at: datetime) -> int:
    """The number of the 30 seconds in which that instant lies."""
    return int(at.timestamp()) // STEP_S


def code(secret: bytes, step: int, *, digits: int = DIGITS) -> str:
    """The code of a step (RFC 4226, 5.3)."""
    digest = hmac.digest(secret, step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**digits:0{digits}}"


def step_of_code(secret: bytes, given: str, *, at: datetime, after: int | None) -> int | None:
    """The step whose code was given, at most DRIFT_STEPS away and later than the step `after`; None when it is none of them."""
    now, sent = step_of(at), given.encode("utf-8", "surrogatepass")
    found = None
    for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1):
        if hmac.compare_digest(code(secret, step).encode(), sent) and (after is None or step > after):
            found = step
    return found


def as_text(secret: bytes) -> str:
    """The secret as people type it into an app: base32, without padding."""
    return base64.b32encode(secret).decode().rstrip("=")


def uri(secret: bytes, *, account: str, issuer: str) -> str:
    """What an app reads from a QR code (the "Key Uri Format" of Google Authenticator, which all of them understand)."""
    values = {"secret": as_text(secret), "issuer": issuer, "algorithm": "SHA1", "digits": DIGITS, "period": STEP_S}
    return f"otpauth://totp/{quote(f'{issuer}:{account}', safe='')}?{urlencode(values, quote_via=quote)}"
