"""What a vehicle is offered at: the rates of its class, the clock and tax of the branch, and its turnaround time."""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fleet import config
from fleet.db import db
from fleet.errors import InvalidState
from fleet.models.rentals import OFFER_OF_VEHICLE
from fleet.rules.periods import Period
from fleet.rules.pricing import NO_TAX, Terms


@dataclass(frozen=True, slots=True)
class Offer:
    """A vehicle with the terms that a rental booked now would get."""

    vehicle_id: UUID
    status: str
    plate_number: str
    make: str
    model: str
    class_id: UUID | None
    branch_id: UUID | None
    turnaround_before_minutes: int
    turnaround_after_minutes: int
    terms: Terms

    def padded(self, period: Period) -> Period:
        """The period as it stands in the calendar."""
        return period.padded(self.turnaround_before_minutes, self.turnaround_after_minutes)

    def check_rentable(self) -> None:
        """Raises InvalidState unless the vehicle is in service."""
        if self.status != "in_service":
            raise InvalidState("The vehicle is not in service")


def offer_for(vehicle_id: UUID, *, pickup_branch_id: UUID | None) -> Offer | None:
    """What the vehicle is offered at now; None when there is no such vehicle."""
    rows = db.run(OFFER_OF_VEHICLE, (vehicle_id, pickup_branch_id))
    return offer_of(rows[0]) if rows else None


def offer_of(row: tuple[Any, ...]) -> Offer | None:
    """The offer that a row of OFFER_OF_VEHICLE, or of the statements that reserve, makes; None where it is of no vehicle."""
    (
        vehicle_id, status, retired_at, plate_number, make, model, class_id, daily_rate, currency, vehicle_branch_id,
        before, after, late_fee, fuel_fee, cancellation_fee, free_hours, no_show_fee, branch_id, timezone, tax_code, tax_bps,
    ) = row  # fmt: skip
    if vehicle_id is None:
        return None
    return Offer(
        vehicle_id=vehicle_id,
        status="out_of_service" if retired_at else status,
        plate_number=plate_number,
        make=make,
        model=model,
        class_id=class_id,
        branch_id=branch_id or vehicle_branch_id,
        turnaround_before_minutes=before or 0,
        turnaround_after_minutes=after or 0,
        terms=Terms(
            daily_rate=daily_rate,
            currency=currency,
            timezone=timezone or "UTC",
            grace_minutes=config.current().billing_grace_minutes,
            late_fee_per_hour=late_fee or 0,
            fuel_fee_per_percent=fuel_fee or 0,
            cancellation_fee=cancellation_fee or 0,
            free_cancellation_hours=free_hours or 0,
            no_show_fee=no_show_fee or 0,
            tax_code=tax_code or NO_TAX,
            tax_bps=tax_bps or 0,
        ),
    )
