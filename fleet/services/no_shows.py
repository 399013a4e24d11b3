"""Giving up on customers who did not come: the sweep of reservations that nobody has handed over or cancelled."""

import logging
import time
from datetime import timedelta
from uuid import UUID

import peewee

from fleet import clock, config
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import FleetError
from fleet.services import rentals

log = logging.getLogger("fleet.no_shows")

BUDGET_S = 2.0
"""How long one run may take: others wait for its worker."""

_SWEEP = Actor(user_id=UUID(int=0), roles=(), permissions=frozenset({"rentals.read_all", "rentals.no_show"}))

_DUE = "status = 'reserved' AND start_at <= %(now)s AND (start_at <= %(given_up)s OR end_at <= %(now)s)"
DUE = f"SELECT id, vehicle_id FROM rental WHERE {_DUE} ORDER BY start_at LIMIT 1000"  # noqa: S608 - our own text
STILL_DUE = f"SELECT 1 FROM rental WHERE id = %(id)s AND vehicle_id = %(vehicle_id)s AND {_DUE}"  # noqa: S608 - as above
# Whoever hands over, cancels or moves a rental holds its vehicle. Then somebody is dealing with it: not for the sweep to wait.
VEHICLE_TO_GIVE_UP_FOR_UPDATE = "SELECT 1 FROM vehicle WHERE id = %(vehicle_id)s FOR UPDATE SKIP LOCKED"


def give_up() -> int:
    """Make no-shows of the reservations whose start passed by NO_SHOW_AFTER_HOURS, or whose end passed; returns how many.

    Each by the same use case as by hand, with the fee of its terms, in a transaction of its own. Two sweeps share the work.
    One that is refused is logged and left to a person; it holds up no other.
    """
    now = clock.now()
    times = {"now": now, "given_up": now - timedelta(hours=config.current().no_show_after_hours)}
    done, deadline = 0, time.monotonic() + BUDGET_S
    for rental_id, vehicle_id in db.rows(DUE, times):
        if time.monotonic() > deadline:
            break
        try:
            done += _give_up(rental_id, {**times, "id": rental_id, "vehicle_id": vehicle_id})
        except (FleetError, peewee.IntegrityError, peewee.DataError, peewee.InternalError) as error:
            log.error("no-show refused", extra={"rental_id": str(rental_id), "cause": type(error).__name__})
    return done


@atomic
def _give_up(rental_id: UUID, due: dict[str, object]) -> bool:
    if not db.rows(VEHICLE_TO_GIVE_UP_FOR_UPDATE, due) or not db.rows(STILL_DUE, due):
        return False
    rentals.no_show(_SWEEP, rental_id)
    return True
