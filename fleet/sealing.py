"""Keeping what has to be read again encrypted, or found again by a digest, with keys that the database does not hold."""

import hashlib
import hmac
import os
from collections.abc import Sequence
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION, _KEY_ID, _NONCE = 1, 8, 12
_NAME = 1 + _KEY_ID
_HEAD = _NAME + _NONCE
_SEALS, _INDEX = b"fleet sealed secrets", b"fleet blind index"


class SealBroken(Exception):
    """It was sealed under another SECRET_KEY, for another thing, or it was changed."""


def seal(plain: bytes, *, about: bytes, secret_key: str) -> bytes:
    """Encrypt (AES-256-GCM) what belongs to `about`, such as a row's id: moved to another row it cannot be opened.

    The result begins with the name of its key, so that keys can be changed while sealed things lie about.
    """
    head, nonce = name_of_key(secret_key), os.urandom(_NONCE)
    return head + nonce + AESGCM(_key(secret_key)[1]).encrypt(nonce, plain, head + about)


def unseal(sealed: bytes, *, about: bytes, secret_key: str, previous: Sequence[str] = ()) -> bytes:
    """What was sealed under the key or, while keys are changed, under one of the previous ones. Raises SealBroken."""
    head, nonce = sealed[:_NAME], sealed[_NAME:_HEAD]
    for candidate in (secret_key, *previous):
        if head == name_of_key(candidate):
            try:
                return AESGCM(_key(candidate)[1]).decrypt(nonce, sealed[_HEAD:], head + about)
            except (InvalidTag, ValueError):
                raise SealBroken("changed, or of another thing") from None
    raise SealBroken("another key")


def is_sealed(stored: bytes) -> bool:
    """Whether these bytes are a seal of ours rather than text, which has no control character in front."""
    return stored[:1] == bytes([_VERSION])


def name_of_key(secret_key: str) -> bytes:
    """What everything that is sealed under this key begins with."""
    return bytes([_VERSION]) + _key(secret_key)[0]


def blind_index(plain: bytes, *, key: str) -> bytes:
    """A digest by which something is found, and is unique, that can be guessed: only who has the key can try (HMAC-SHA256).

    It begins with the name of its key, as a seal does.
    """
    return name_of_index_key(key) + hmac.digest(_key(key, _INDEX)[1], plain, hashlib.sha256)


def name_of_index_key(key: str) -> bytes:
    """What every blind index under this key begins with."""
    return bytes([_VERSION]) + _key(key, _INDEX)[0]


@lru_cache(maxsize=16)
def _key(secret: str, use: bytes = _SEALS) -> tuple[bytes, bytes]:
    """The key's name and the key (HKDF, RFC 5869). The name is a digest of the key, so it tells nothing of it."""
    key = HKDF(hashes.SHA256(), 32, salt=None, info=use).derive(secret.encode())
    return hashlib.sha256(b"fleet key id" + key).digest()[:_KEY_ID], key
