"""What is kept of a changed thing in the audit log: enough to see what was done, nothing of a person and no secret."""

import re
from collections.abc import Mapping
from typing import Any

from fleet.rules.privacy import PRIVATE, TABLES

MASK = "***"
MAX_TEXT = 500
# A field is masked when one of these is a word of its name: `billing_email`, `password_hash`, `driver_license_number`.
MASKED_WORDS = frozenset(
    {
        "address", "authorization", "birth", "card", "cookie", "credential", "email", "fingerprint", "hash", "iban",
        "licence", "license", "password", "phone", "secret", "signature", "surname", "token",
    }
)  # fmt: skip
MASKED_NAMES = PRIVATE | {"full_name", "contact_name", "key", "api_key", "private_key"}
# What people type: names of persons cannot be told from other words there, addresses and numbers can.
FREE_TEXT = frozenset({"reason", "description", "comment", "message", "detail", "title"})

# What such names point at may be personal; they are not.
_POINTERS = frozenset({"id", "at"})
_EMAIL = re.compile(r"[^\s@<>()\"',;]+@[^\s@<>()\"',;]+\.[^\s@<>()\"',;]+")
_LONG_NUMBER = re.compile(r"\+?\d(?:[\s().-]?\d){6,}")


def masked(state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with what is personal or secret replaced, at any depth; identifiers, numbers and times stay."""
    return {name: _masked(name, value) for name, value in state.items()}


def _masked(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool) or (name not in PRIVATE and name.lower().split("_")[-1] in _POINTERS):
        return value
    if hides(name):
        return MASK
    if isinstance(value, Mapping):
        return masked(value)
    if isinstance(value, list | tuple):
        return [_masked(name, item) for item in value]
    return text(value, free=name in FREE_TEXT) if isinstance(value, str) else value


def hides(name: str) -> bool:
    """Whether a field of this name is masked, whatever it holds."""
    return name.lower() in MASKED_NAMES or not MASKED_WORDS.isdisjoint(name.lower().split("_"))


def text(raw: str, *, free: bool) -> str:
    """A text without e-mail addresses and, where people may have typed it, without long numbers; cut at MAX_TEXT."""
    spared = _EMAIL.sub(MASK, raw[:MAX_TEXT])
    return _LONG_NUMBER.sub(MASK, spared) if free else spared


COLUMNS_MASKED = frozenset(name for table in TABLES.values() for name, _ in table.kinds() if hides(name))
"""Names of columns that are masked wherever they turn up, such as in the fields of a line of the log."""
