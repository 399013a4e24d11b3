"""How an event of the audit log is sealed: by a keyed hash over its place, the hash before it and all that it says.

Without the key nobody makes a seal, who owns the database included; what was sealed cannot be changed, moved or taken out
without a trace, for every later seal depends on it.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

START = bytes(32)
"""What the first seal takes for the hash before it."""


class Key(NamedTuple):
    """A key with its name, which tells nothing of it."""

    key_id: bytes
    secret: bytes


class Told(NamedTuple):
    """All that an event says, each part as the database writes it; None where it says nothing."""

    id: str
    at: str
    actor: str
    action: str
    object_type: str
    object_id: str
    before: str | None
    after: str | None
    request_id: str | None
    address: str | None


def key_of(secret_key: str) -> Key:
    """The chain's own key of a SECRET_KEY (HMAC-SHA256 as a derivation, RFC 2104)."""
    secret = hmac.digest(secret_key.encode(), b"fleet audit chain", hashlib.sha256)
    return Key(hashlib.sha256(b"fleet audit key id" + secret).digest()[:8], secret)


def keys_of(secret_keys: Iterable[str]) -> Mapping[bytes, Key]:
    """The keys by their names."""
    return {key.key_id: key for key in map(key_of, secret_keys)}


def seal(key: Key, position: int, previous: bytes, told: Told) -> bytes:
    """The hash of an event at a place of the chain."""
    return _mac(key, "event", position, previous.hex(), *told)


def anchor(key: Key, position: int, last: bytes) -> bytes:
    """What proves that retention, and nobody else, removed everything up to this place, whose hash was `last`."""
    return _mac(key, "anchor", position, last.hex())


def _mac(key: Key, *parts: object) -> bytes:
    # JSON keeps the parts apart: no text of one can pass for the beginning of the next.
    return hmac.digest(key.secret, json.dumps(parts, ensure_ascii=False).encode("utf-8", "surrogatepass"), hashlib.sha256)
