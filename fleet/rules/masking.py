"""What is kept of a changed thing in the audit log: enough to see what was done, nothing of a person and no secret."""

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
MAX_TEXT = 500
# A field is masked when one of these is a word of its name: `billing_email`, `password_hash`, `driver_license_number`.
MASKED_WORDS = frozenset(
    {
        "address", "authorization", "birth", "card", "cookie", "credential", "email", "fingerprint", "hash", "iban",
        "licence", "license", "password", "phone", "secret", "signature", "surname", "token",
    }
)  # fmt: skip
MASKED_NAMES = frozenset({"first_name", "last_name", "full_name", "contact_name", "key", "api_key", "private_key"})
# What people type: names of persons cannot be told from other words there, addresses and numbers can.
FREE_TEXT = frozenset({"reason", "notes", "memo", "description", "comment", "message", "detail", "title"})

_EMAIL = re.compile(r"[^\s@<>()\"',;]+@[^\s@<>()\"',;]+\.[^\s@<>()\"',;]+")
_LONG_NUMBER = re.compile(r"\+?\d(?:[\s().-]?\d){6,}")


def masked(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with what is personal or secret replaced, at any depth; identifiers, numbers and times stay."""
    return {name: _masked(name, value) for name, value in state.items()}


def _masked(name: str, value: Any) -> Any:
    words = name.lower().split("_")
    if value is None or isinstance(value, bool) or words[-1] in {"id", "at"}:
        return value
    if name.lower() in MASKED_NAMES or not MASKED_WORDS.isdisjoint(words):
        return MASK
    if isinstance(value, Mapping):
        return masked(value)
    if isinstance(value, list | tuple):
        return [_masked(name, item) for item in value]
    return text(value, free=name in FREE_TEXT) if isinstance(value, str) else value


def text(raw: str, *, free: bool) -> str:
    """A text without e-mail addresses and, where people may have typed it, without long numbers; cut at MAX_TEXT."""
    spared = _EMAIL.sub(MASK, raw[:MAX_TEXT])
    return _LONG_NUMBER.sub(MASK, spared) if free else spared
