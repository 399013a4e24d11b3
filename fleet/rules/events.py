"""What events are called, and what they say of a thing: as the API answers it, without names and free text.

An event goes to other systems and stays there, out of reach of an erasure. So it names people by their ids only, and leaves
out whatever somebody typed in their own words.
"""

from collections.abc import Mapping
from typing import Any

Data = dict[str, Any]

TEST = "webhook_endpoint.tested"
"""Goes to the endpoint that is tested, and to no other."""

# The names are the contract's; a receiver may ask today for those that come with a later part of the service.
TYPES = (
    "vehicle.registered", "vehicle.status_changed", "vehicle.odometer_updated",
    "rental.held", "rental.reserved", "rental.changed", "rental.activated", "rental.completed", "rental.cancelled",
    "rental.no_show", "rental.expired",
    "maintenance.scheduled", "maintenance.started", "maintenance.completed", "maintenance.cancelled",
    "invoice.issued", "payment.captured", "payment.refunded", "ledger.posted",
    "webhook_endpoint.disabled", TEST,
)  # fmt: skip

_RENTED = ("plate_number", "make", "model")
PRIVATE = {
    "customer", "first_name", "last_name", "notes", "cancel_reason", "description", "memo", "reference", "reason",
    "rejection_reason",
}  # fmt: skip


def of_rental(row: Mapping[str, Any]) -> Data:
    """A rental, from the row that its list reads."""
    told = _without_private({name: value for name, value in row.items() if name not in _RENTED})
    told["vehicle"] = {name: row[name] for name in _RENTED}
    told["charges"] = [_without_private(charge) for charge in row["charges"] or ()]
    return told | {"driver_id": None}


def of_entry(row: Mapping[str, Any]) -> Data:
    """An entry of the journal with its lines, from the row that its list reads."""
    return _without_private(row)


def of_payment(row: Mapping[str, Any]) -> Data:
    """A payment, from the row that its list reads."""
    return _without_private(row)


def of_refund(row: Mapping[str, Any]) -> Data:
    """A refund with its payment's method and currency, from the row that its list reads."""
    return _without_private(row)


def of_invoice(invoice: Mapping[str, Any], lines: list[Data]) -> Data:
    """An invoice at its issue, when nothing of it is settled yet."""
    nothing = {"settled_amount": 0, "credited_amount": 0, "pending_amount": 0}
    blank = {**nothing, "balance_amount": invoice["total_amount"], "overdue": False}
    return {**invoice, **blank, "lines": [_without_private(line) for line in lines]}


def _without_private(told: Mapping[str, Any]) -> Data:
    return {name: value for name, value in told.items() if name not in PRIVATE}
