"""What can be rented in a period, and what it costs."""

import hashlib
from datetime import datetime
from typing import Any
from uuid import UUID

from fleet import cache, clock, config
from fleet.auth import Actor
from fleet.models.availability import AVAILABLE, grouped, rentable
from fleet.models.base import Condition
from fleet.rules import pricing
from fleet.rules.periods import Period, rental_period
from fleet.services.calendar import OVERDUE_MARGIN

# Of what is kept in the cache: change it with the fields.
_SUMMARY_SHAPE = "summary-1"


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
    wanted = _wanted(period, now, class_id, branch_id)
    return [_priced(row, period) for row in AVAILABLE.page(wanted, after=after, limit=limit)]


def summary(
    actor: Actor, *, start_at: datetime, end_at: datetime, class_id: UUID | None, branch_id: UUID | None
) -> dict[str, Any]:
    """How many vehicles of each class are free, as of a moment ago: whoever wants one of them asks `listed`, or reserves.

    It counts the whole fleet, and a search page asks it of everybody who looks, so it is read once for all within seconds
    (AVAILABILITY in fleet/cache.py), and nothing is invalidated: `as_of` says how old it is. Raises PeriodError.
    """
    now = clock.now()
    period = rental_period(start_at, end_at, now=now, may_backdate=actor.can("rentals.backdate"))

    def read() -> dict[str, Any]:
        return {"as_of": clock.now(), "data": grouped(_wanted(period, now, class_id, branch_id))}

    asked = f"{period.start.isoformat()} {period.end.isoformat()} {class_id} {branch_id}"
    key = hashlib.sha256(asked.encode()).hexdigest()[:32]
    return cache.get(cache.AVAILABILITY, key, read, shape=_SUMMARY_SHAPE)


def _wanted(period: Period, now: datetime, class_id: UUID | None, branch_id: UUID | None) -> list[Condition]:
    wanted = rentable(period, now=now, late_until=now + OVERDUE_MARGIN)
    for column, value in (("class_id", class_id), ("branch_id", branch_id)):
        if value is not None:
            wanted.append(Condition(f"vehicle.{column} = %s", (value,)))
    return wanted


def _priced(row: dict[str, Any], period: Period) -> dict[str, Any]:
    terms = pricing.Terms(
        daily_rate=row["daily_rate"],
        currency=row["currency"],
        timezone=row["timezone"],
        grace_minutes=config.current().billing_grace_minutes,
    )
    line = pricing.base(terms, period)
    return {**row, "days": line.quantity, "base_amount": line.net_amount, "total_amount": line.net_amount}
