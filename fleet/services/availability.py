"""What can be rented in a period, and what it costs."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fleet import clock, config
from fleet.auth import Actor
from fleet.models.availability import AVAILABLE, rentable
from fleet.models.base import Condition
from fleet.rules import pricing
from fleet.rules.periods import Period, rental_period
from fleet.services.calendar import OVERDUE_MARGIN


def listed(
    actor: Actor,
    *,
    start_at: datetime,
    end_at: datetime,
    class_id: UUID | None,
    branch_id: UUID | None,
    after: UUID | None,
    limit: int,
) -> list[dict[str, Any]]:
    """A page of the vehicles that are free, newest first, each with the price that a reservation would get.

    A vehicle that is late is offered again from OVERDUE_MARGIN on: next month's customer need not wait for it to come back.
    Raises PeriodError for a period that could not be reserved.
    """
    now = clock.now()
    period = rental_period(start_at, end_at, now=now, may_backdate=actor.can("rentals.backdate"))
    wanted = rentable(period, now=now, late_until=now + OVERDUE_MARGIN)
    for column, value in (("class_id", class_id), ("branch_id", branch_id)):
        if value is not None:
            wanted.append(Condition(f"vehicle.{column} = %s", (value,)))
    return [_priced(row, period) for row in AVAILABLE.page(wanted, after=after, limit=limit)]


def _priced(row: dict[str, Any], period: Period) -> dict[str, Any]:
    terms = pricing.Terms(
        daily_rate=row["daily_rate"],
        currency=row["currency"],
        timezone=row["timezone"],
        grace_minutes=config.current().billing_grace_minutes,
    )
    line = pricing.base(terms, period)
    return {**row, "days": line.quantity, "base_amount": line.net_amount, "total_amount": line.net_amount}
