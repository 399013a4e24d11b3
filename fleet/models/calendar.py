"""The one calendar: everything that occupies a vehicle is a block, and no two live blocks of one vehicle overlap."""

from datetime import datetime
from typing import Any
from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import clock
from fleet.db import db
from fleet.models.base import Model


class TimeRangeField(peewee.Field):
    """A tstzrange, read and written as psycopg2's DateTimeTZRange, half open: `[start, end)`."""

    field_type = "TSTZRANGE"

    def db_value(self, value: Any) -> Any:
        return value


class Block(Model):
    """A time in which a vehicle is not free.

    `start_at` and `end_at` are what was agreed; `occupied` adds the turnaround times and is what must not overlap.
    """

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    vehicle_id = peewee.UUIDField()
    kind = peewee.TextField()
    rental_id = peewee.UUIDField(null=True)
    start_at = DateTimeTZField()
    end_at = DateTimeTZField()
    occupied = TimeRangeField()
    live = peewee.BooleanField(default=True)
    reason = peewee.TextField(null=True)
    created_by = peewee.UUIDField(null=True)
    created_at = DateTimeTZField(default=clock.now)

    class Meta:
        table_name = "vehicle_block"


BLOCK_COLUMNS = ("id", "kind", "start_at", "end_at", "live", "rental_id", "reason", "created_at")
_SELECT = f"SELECT {', '.join(BLOCK_COLUMNS)} FROM vehicle_block"

# Parameters: vehicle, end, start, last block of the page before or null twice, limit.
CALENDAR = f"""{_SELECT} WHERE vehicle_id = %s AND start_at < %s AND end_at > %s
AND (%s::uuid IS NULL OR (start_at, id) > (SELECT start_at, id FROM vehicle_block WHERE id = %s))
ORDER BY start_at, id LIMIT %s"""

# Parameters: vehicle, end, start.
LIVE_CALENDAR = f"{_SELECT} WHERE vehicle_id = %s AND start_at < %s AND end_at > %s AND live ORDER BY start_at"

# Parameters: vehicle, block.
BLOCK_OF_VEHICLE = f"{_SELECT} WHERE vehicle_id = %s AND id = %s"

_STANDING = """SELECT EXISTS (
  SELECT 1 FROM vehicle_block WHERE vehicle_id = %s AND live AND (rental_id IS NOT NULL OR end_at > %s)
)"""


def has_standing_blocks(vehicle_id: UUID, *, at: datetime) -> bool:
    """Whether something is still to come of the vehicle's calendar: a rental that is not settled, or time not over yet."""
    rows = db.rows(_STANDING, (vehicle_id, at))
    return bool(rows[0][0])


# The row is kept as it is until the block is written: whoever sells the vehicle locks it FOR UPDATE and waits, or made us
# wait here and is seen. Parameters: now, vehicle.
VEHICLE_TO_BLOCK_FOR_SHARE = """SELECT status, retired_at, EXISTS (
  SELECT 1 FROM rental WHERE rental.vehicle_id = vehicle.id AND rental.status = 'active' AND rental.end_at <= %s
) FROM vehicle WHERE id = %s FOR SHARE"""

# An overlap is an expected answer: no row instead of an exception, and no deadlock between two that exclude each other.
INSERT_MANUAL_BLOCK = f"""INSERT INTO vehicle_block
  (id, vehicle_id, kind, start_at, end_at, occupied, reason, created_by, created_at)
VALUES (%s, %s, 'manual', %s, %s, tstzrange(%s, %s), %s, %s, %s)
ON CONFLICT ON CONSTRAINT vehicle_block_no_overlap DO NOTHING RETURNING {", ".join(BLOCK_COLUMNS)}"""

# Parameter: now.
OVERDUE_VEHICLES_FOR_UPDATE = """SELECT vehicle.id FROM rental JOIN vehicle ON vehicle.id = rental.vehicle_id
WHERE rental.status = 'active' AND rental.end_at <= %s
ORDER BY vehicle.id FOR UPDATE OF vehicle SKIP LOCKED"""

# A block grows with its turnaround behind it, up to the next block: the next customer's booking is not ours to shorten.
# Parameters: until when, now, vehicles.
EXTEND_OVERDUE = """UPDATE vehicle_block
SET end_at = wanted.end_at, occupied = tstzrange(lower(occupied), wanted.occupied_until)
FROM (
  SELECT block.id, least(late.until, room.up_to) AS end_at,
    least(late.until + (upper(block.occupied) - block.end_at), room.up_to) AS occupied_until
  FROM (SELECT %s::timestamptz AS until) late
  JOIN vehicle_block block ON block.live AND block.kind = 'rental' AND block.end_at < late.until
  JOIN rental ON rental.id = block.rental_id AND rental.status = 'active' AND rental.end_at <= %s
  CROSS JOIN LATERAL (
    SELECT coalesce(min(lower(following.occupied)), 'infinity') AS up_to FROM vehicle_block following
    WHERE following.vehicle_id = block.vehicle_id AND following.live AND following.occupied >> block.occupied
  ) room
  WHERE block.vehicle_id = ANY(%s::uuid[])
) wanted
WHERE vehicle_block.id = wanted.id
  AND (wanted.end_at > vehicle_block.end_at OR wanted.occupied_until > upper(vehicle_block.occupied))"""
