"""Giving up on customers who did not come: the sweep of reservations that nobody has handed over or cancelled."""

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from fleet import clock, config
from fleet.auth import Actor
from fleet.db import atomic, db
from fleet.errors import FleetError
from fleet.outages import database_is_away
from fleet.services import rentals

log = logging.getLogger("fleet.no_shows")

BATCH, BUDGET_S = 1000, 2.0
"""How long one run may take: others wait for its worker."""

_SWEEP = Actor(user_id=UUID(int=0), roles=(), permissions=frozenset({"rentals.read_all", "rentals.no_show"}))

_DUE = "status = 'reserved' AND start_at <= %(now)s AND (start_at <= %(given_up)s OR end_at <= %(now)s)"
DUE = f"""SELECT start_at, id, vehicle_id FROM rental WHERE {_DUE} AND (start_at, id) > (%(after)s, %(after_id)s)
ORDER BY start_at, id LIMIT %(limit)s"""  # noqa: S608 - our own text
STILL_DUE = f"SELECT 1 FROM rental WHERE id = %(id)s AND vehicle_id = %(vehicle_id)s AND {_DUE}"  # noqa: S608 - as above
# Whoever hands over, cancels or moves a rental holds its vehicle. Then somebody is dealing with it: not for the sweep to wait.
VEHICLE_TO_GIVE_UP_FOR_UPDATE = "SELECT 1 FROM vehicle WHERE id = %(vehicle_id)s FOR UPDATE SKIP LOCKED"


def give_up() -> int:
    """Make no-shows of the reservations whose start passed by NO_SHOW_AFTER_HOURS, or whose end passed; returns how many.

    Each by the same use case as by hand, with the fee of its terms, in a transaction of its own. Two sweeps share the work.
    One that is refused or breaks is logged and left to a person; it holds up no other. Raises peewee's errors when the database
    is away.
    """
    now = clock.now()
    times = {"now": now, "given_up": now - timedelta(hours=config.current().no_show_after_hours)}
    done, deadline = 0, time.monotonic() + BUDGET_S
    for rental_id, vehicle_id in _due(times):
        if time.monotonic() > deadline:
            break
        try:
            done += _give_up(rental_id, {**times, "id": rental_id, "vehicle_id": vehicle_id})
        except Exception as error:
            if database_is_away(error):
                raise
            cause = error.code if isinstance(error, FleetError) else type(error).__name__
            log.error("no-show refused", extra={"rental_id": str(rental_id), "cause": cause})
    return done


def _due(times: dict[str, datetime]) -> Iterator[tuple[UUID, UUID]]:
    """Rental and vehicle of each that is due, oldest start first. Those that are refused stay due: they are passed over."""
    after, after_id = datetime.min.replace(tzinfo=UTC), UUID(int=0)
    while True:
        batch = db.rows(DUE, {**times, "after": after, "after_id": after_id, "limit": BATCH})
        yield from ((rental_id, vehicle_id) for _, rental_id, vehicle_id in batch)
        if len(batch) < BATCH:
            return
        after, after_id, _ = batch[-1]


@atomic
def _give_up(rental_id: UUID, due: dict[str, object]) -> bool:
    if not db.rows(VEHICLE_TO_GIVE_UP_FOR_UPDATE, due) or not db.rows(STILL_DUE, due):
        return False
    rentals.no_show(_SWEEP, rental_id)
    return True
