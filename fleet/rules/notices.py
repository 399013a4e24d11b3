"""What customers are told of: the kinds of letters, who may do without which, and until when each is still true."""

from collections.abc import Collection
from dataclasses import dataclass

CHANNELS = ("email", "sms")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of letter.

    `required`: goes by e-mail whatever the customer prefers, because the law or the contract asks for it in writing.
    `sms`: also goes as a text message unless the customer prefers otherwise.
    `true_in`: the states of the rental in which the letter still tells the truth; None where it tells of an end, or of
    what never changes.
    """

    name: str
    required: bool
    sms: bool
    true_in: frozenset[str] | None


def _kind(name: str, *true_in: str, required: bool = False, sms: bool = False) -> Kind:
    return Kind(name, required, sms, frozenset(true_in) or None)


# A confirmation of the contract, of its change or of its end is owed on a durable medium (Directive 2011/83/EU, article 8).
KINDS = {
    kind.name: kind
    for kind in (
        _kind("rental_held", "held"),
        _kind("rental_reserved", "reserved", "active", "completed", required=True),
        _kind("rental_changed", "held", "reserved", "active", required=True),
        _kind("rental_cancelled", required=True),
        _kind("rental_expired"),
        _kind("rental_reminder", "reserved", sms=True),
        _kind("rental_overdue", "active", sms=True),
        _kind("rental_no_show", required=True),
        _kind("invoice_issued", required=True),
        _kind("payment_received", required=True),
        _kind("payment_refunded", required=True),
    )
}
# Letters about the account of whoever signs in: they protect it, so nobody can do without.
RESET, VERIFICATION = "password_reset", "email_verification"
ACCOUNT_KINDS = (
    RESET, VERIFICATION, "password_changed", "session_breached", "second_factor_enabled", "second_factor_removed",
    "second_factor_locked",
)  # fmt: skip
REQUIRED = frozenset(kind.name for kind in KINDS.values() if kind.required)
BY_DEFAULT = {"email": frozenset(KINDS), "sms": frozenset(kind.name for kind in KINDS.values() if kind.sms)}


def is_wanted(kind: str, channel: str, chosen: Collection[str] | None) -> bool:
    """Whether letters of this kind go this way; `chosen` are the kinds that the customer wants so, None before a choice."""
    if channel == "email" and kind in REQUIRED:
        return True
    return kind in (BY_DEFAULT[channel] if chosen is None else chosen)
