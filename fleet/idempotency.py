"""One effect for one key: the stored answer commits, or rolls back, with the effect itself.

The primary key (actor, method, path, key) is the truth. An advisory lock, keyed by 64 bits of the same names, only tells a
simultaneous second request that the first one still runs; it ends with the transaction, so that a crash leaves nothing
behind. Two keys that share a lock cost one needless 409 with Retry-After, never a wrong answer.
"""

import hashlib
import hmac
import logging
from dataclasses import dataclass

from fleet import config, sealing
from fleet.db import db, transaction
from fleet.errors import InProgress, Invalid

log = logging.getLogger("fleet.idempotency")

KEPT_HOURS = 24


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer as it left the service: enough to give it again to the letter."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Given:
    """What a request is answered; `replayed` when an earlier one with the same key had been answered so."""

    answer: StoredAnswer
    replayed: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A request's claim on its key."""

    actor: str
    method: str
    path: str
    key: str
    fingerprint: bytes
    also: tuple[bytes, ...] = ()
    """The fingerprints that the request has under previous keys, while keys are changed."""

    @property
    def lock(self) -> int:
        """The claim's name in 64 bits, signed as PostgreSQL's advisory locks are."""
        return int.from_bytes(hashlib.sha256(self._name).digest()[:8], "big", signed=True)

    @property
    def names(self) -> tuple[str, str, str, str]:
        return self.actor, self.method, self.path, self.key

    @property
    def _name(self) -> bytes:
        return "\n".join(self.names).encode()

    def take(self) -> StoredAnswer | None:
        """Claim the key inside the open transaction; returns the first answer when there is one already.

        Raises InProgress, Invalid `idempotency_key_reused`.
        """
        row = db.one(_TAKE, (self.lock, *self.names))
        assert row is not None  # noqa: S101 - a lock attempt always answers
        ours, fingerprint, status, headers, body = row
        return self.judge(ours=ours, fingerprint=fingerprint, status=status, headers=headers, body=body)

    def judge(
        self, *, ours: bool, fingerprint: bytes | None, status: int | None, headers: dict[str, str], body: bytes | None
    ) -> StoredAnswer | None:
        """What the claimed row means: replay, refusal, or go ahead (None)."""
        if fingerprint is not None:
            if not self.made(bytes(fingerprint)):
                raise Invalid("The key was used for another request", code="idempotency_key_reused")
            return StoredAnswer(status or 0, headers, self._opened(bytes(body or b"")))
        if not ours:
            raise InProgress()
        return None

    def made(self, known: bytes) -> bool:
        """Whether the fingerprint is that of this request."""
        return any(hmac.compare_digest(known, print_) for print_ in (self.fingerprint, *self.also))

    def keep(self, answer: StoredAnswer, *, sealed: bool = False) -> None:
        """Store the answer with the effect, its body `sealed` where it would repeat in the clear what is encrypted elsewhere.

        Raises InProgress when another request was first: its effect stands, not ours.
        """
        body = answer.body
        if sealed:
            body = sealing.seal(body, about=self._name, secret_key=config.current().secret_key)
        kept = db.one(_KEEP, (*self.names, self.fingerprint, answer.status, answer.headers, body))
        if kept is None:
            raise InProgress()

    def _opened(self, body: bytes) -> bytes:
        """The body as it was given. Where the key of its seal is gone, that of the fingerprint is too, and was missed first.

        Raises Invalid `idempotency_key_reused` for one that was written by hand or moved here: it is no answer to this.
        """
        if not sealing.is_sealed(body):
            return body
        settings = config.current()
        try:
            return sealing.unseal(body, about=self._name, secret_key=settings.secret_key, previous=settings.secret_key_previous)
        except sealing.SealBroken:
            log.error("a kept answer cannot be opened")
            raise Invalid("The key was used for another request", code="idempotency_key_reused") from None

    def keep_refusal(self, refusal: StoredAnswer) -> StoredAnswer | None:
        """Store a refusal, which has no effect to commit with; returns the first answer when another request gave one."""
        try:
            self.keep(refusal)
        except InProgress:
            with transaction():
                return self.take()
        return None


def fingerprint(body: bytes, query: bytes, content_type: str, *, key: bytes) -> bytes:
    """What makes two requests the same: their body, query and type. Keyed, as a body may hold a password."""
    return hmac.digest(key, b"\n".join((content_type.encode(), query, body)), hashlib.sha256)


_TAKE = """
SELECT pg_try_advisory_xact_lock(%s), r.fingerprint, r.status, r.headers, r.body
FROM (SELECT 1) AS always
LEFT JOIN idempotency_record r ON r.actor = %s AND r.method = %s AND r.path = %s AND r.key = %s
"""

_KEEP = """
INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT ON CONSTRAINT idempotency_record_pkey DO NOTHING
RETURNING 1
"""

FORGET_ANSWERS = """
DELETE FROM idempotency_record WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM idempotency_record WHERE created_at < %(before)s
    ORDER BY created_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
