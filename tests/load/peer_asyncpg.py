"""A small FastAPI and asyncpg service that leaves the same facts of a reservation in the same tables, and does nothing else.

No authentication, no limits, no replay, no log. It is what a quick asynchronous stack makes of two good statements.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import orjson
from fastapi import FastAPI, Header, Response
from pydantic import BaseModel

from fleet import clock, config

CLERK = UUID("00000000-0000-7000-8005-000000000000")
CONNECTIONS = 16  # as many as the service's two workers have threads
settings = config.Settings.load()

READ = """
SELECT i.key, cu.first_name, cu.last_name, v.status, v.plate_number, v.make, v.model, v.class_id, v.branch_id, v.currency,
  coalesce(v.daily_rate, c.daily_rate) AS daily_rate, c.turnaround_after_minutes, c.late_fee_per_hour, c.fuel_fee_per_percent,
  c.cancellation_fee, c.free_cancellation_hours, c.no_show_fee, b.timezone, t.code AS tax_code, t.rate_bps AS tax_bps,
  nextval('rental_number') AS number
FROM (SELECT * FROM vehicle WHERE id = $1 FOR SHARE) v
JOIN customer cu ON cu.id = $2
LEFT JOIN vehicle_class c ON c.id = v.class_id
LEFT JOIN branch b ON b.id = v.branch_id
LEFT JOIN tax_code t ON t.code = b.tax_code
LEFT JOIN idempotency_record i ON i.actor = $3 AND i.method = 'POST' AND i.path = '/reserve' AND i.key = $4"""

WRITE = """
WITH block AS (
  INSERT INTO vehicle_block (id, vehicle_id, kind, rental_id, start_at, end_at, occupied, created_by, created_at)
  VALUES ($1, $2, 'reservation', $3, $4, $5, tstzrange($4, $6), $7, $8)
  ON CONFLICT ON CONSTRAINT vehicle_block_no_overlap DO NOTHING RETURNING 1
), booked AS (
  INSERT INTO rental (id, number, status, vehicle_id, class_id, customer_id, start_at, end_at, pickup_branch_id,
    dropoff_branch_id, daily_rate, currency, base_amount, total_amount, terms, created_by, created_at, updated_at)
  SELECT $3, $9, 'reserved', $2, $10, $11, $4, $5, $12, $12, $13, $14, $15, $15, $16, $7, $8, $8 FROM block RETURNING id
), promise AS (
  INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id)
  SELECT $17, 'notifications.rental_reserved', 'notifications', 'rental', id FROM booked
), event AS (
  INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
  SELECT $22, 'rental.reserved', $8, 'rental', id, convert_from($21, 'UTF8')::jsonb - '{first_name,last_name}'::text[]
  FROM booked
)
INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body)
SELECT $18, 'POST', '/reserve', $19, $20, 201, '{}', $21 FROM booked RETURNING 1"""

TERMS = (
    "daily_rate", "currency", "timezone", "late_fee_per_hour", "fuel_fee_per_percent", "cancellation_fee",
    "free_cancellation_hours", "no_show_fee", "tax_code", "tax_bps",
)  # fmt: skip
SHOWN = ("first_name", "last_name", "plate_number", "make", "model", "class_id", "branch_id", "daily_rate", "currency")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    size = CONNECTIONS // 2
    async with asyncpg.create_pool(settings.database_url, min_size=size, max_size=size) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


class Sent(BaseModel):
    vehicle_id: UUID
    customer_id: UUID
    start_at: datetime
    end_at: datetime


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/reserve")
async def reserve(sent: Sent, idempotency_key: Annotated[str, Header()]) -> Response:
    """Read what deciding needs, decide, write all or nothing, commit."""
    now, actor = clock.now(), f"user:{CLERK}"
    async with app.state.pool.acquire() as connection, connection.transaction():
        found = await connection.fetchrow(READ, sent.vehicle_id, sent.customer_id, actor, idempotency_key)
        if found is None or found["status"] != "in_service" or found["key"] is not None:
            return Response(status_code=422)
        rental = _rental(sent, found, now)
        body = orjson.dumps(rental, default=str)  # asyncpg has a UUID class of its own
        record = (clock.new_id(), actor, idempotency_key, b"0" * 32, body, clock.new_id())
        written = await connection.fetch(WRITE, *_values(sent, found, rental, now), *record)
    return Response(body, 201 if written else 409, media_type="application/json")


def _rental(sent: Sent, found: Any, now: datetime) -> dict[str, Any]:
    days = max(1, -((sent.start_at - sent.end_at) // timedelta(days=1)))
    return {
        "id": clock.new_id(),
        "number": f"RNT-{now.year}-{found['number']:06d}",
        "status": "reserved",
        **sent.model_dump(),
        **{name: found[name] for name in SHOWN},
        "total_amount": days * found["daily_rate"],
        "version": 1,
        "created_at": now,
        "updated_at": now,
    }


def _values(sent: Sent, found: Any, rental: dict[str, Any], now: datetime) -> tuple[Any, ...]:
    """The parameters of WRITE up to the promise's."""
    free_at = sent.end_at + timedelta(minutes=found["turnaround_after_minutes"])
    block = (clock.new_id(), sent.vehicle_id, rental["id"], sent.start_at, sent.end_at, free_at, CLERK, now)
    money = (found["daily_rate"], found["currency"], rental["total_amount"])
    terms = orjson.dumps({"grace_minutes": 59, **{name: found[name] for name in TERMS}}).decode()
    return (*block, rental["number"], found["class_id"], sent.customer_id, found["branch_id"], *money, terms)
