"""A small FastAPI and asyncpg service that runs the service's own reservation statements, and does nothing else.

No authentication, no limits, no replay, no log. It is what a quick asynchronous stack makes of the same SQL.
"""

import re
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
from fleet.db import Statement
from fleet.idempotency import Claim
from fleet.models.rentals import READ_TO_RESERVE, WRITE_RESERVATION
from fleet.services.terms import offer_of
from tests.load.http_load import HOST

CLERK = UUID("00000000-0000-7000-8005-000000000000")
FIRST_OFFER_COLUMN = 11
settings = config.Settings.load()
config.use(settings)


def typed(statement: Statement) -> str:
    """The statement with the types of its parameters written beside them, as asyncpg has no other place for them."""
    return re.sub(r"\$(\d+)", lambda found: f"{found[0]}::{statement.types[int(found[1]) - 1]}", statement.sql)


READ, WRITE = typed(READ_TO_RESERVE), typed(WRITE_RESERVATION)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(settings.database_url, min_size=16, max_size=16) as app.state.pool:
        yield


app = FastAPI(lifespan=lifespan)


class Sent(BaseModel):
    vehicle_id: UUID
    customer_id: UUID
    start_at: datetime
    end_at: datetime


@app.get("/health")
async def health() -> dict[str, str]:
    return {"at": HOST}


@app.post("/reserve")
async def reserve(sent: Sent, idempotency_key: Annotated[str, Header()]) -> Response:
    """Read what deciding needs, decide, write all or nothing, commit."""
    claim = Claim(f"user:{CLERK}", "POST", "/reserve", idempotency_key, b"0" * 32)
    now = clock.now()
    async with app.state.pool.acquire() as connection, connection.transaction():
        row = await connection.fetchrow(READ, claim.lock, *claim.names, sent.customer_id, sent.vehicle_id, None, now)
        offer = offer_of(tuple(row.values())[FIRST_OFFER_COLUMN:])
        if offer is None or offer.status != "in_service":
            return Response(status_code=422)
        rental = _rental(sent, offer, number=row["nextval"], now=now)
        body = orjson.dumps(rental, default=str)  # asyncpg has a UUID class of its own
        written = await connection.fetch(WRITE, *_values(sent, offer, rental, now), *claim.names, b"0" * 32, 201, "{}", body)
    return Response(body, 201 if written else 409, media_type="application/json")


def _rental(sent: Sent, offer: Any, *, number: int, now: datetime) -> dict[str, Any]:
    days = max(1, -((sent.start_at - sent.end_at) // timedelta(days=1)))
    amount = days * offer.terms.daily_rate
    return {
        "id": clock.new_id(),
        "number": f"RNT-{now.year}-{number:06d}",
        "status": "reserved",
        "vehicle_id": offer.vehicle_id,
        "class_id": offer.class_id,
        "customer_id": sent.customer_id,
        "start_at": sent.start_at,
        "end_at": sent.end_at,
        "pickup_branch_id": offer.branch_id,
        "daily_rate": offer.terms.daily_rate,
        "currency": offer.terms.currency,
        "total_amount": amount,
        "plate_number": offer.plate_number,
        "make": offer.make,
        "model": offer.model,
        "version": 1,
        "created_at": now,
    }


def _values(sent: Sent, offer: Any, rental: dict[str, Any], now: datetime) -> tuple[Any, ...]:
    """The parameters of WRITE_RESERVATION up to those of the idempotency record."""
    free_at = sent.end_at + timedelta(minutes=offer.turnaround_after_minutes)
    block = (clock.new_id(), sent.vehicle_id, "reservation", sent.start_at, sent.end_at, sent.start_at, free_at, CLERK)
    booked = (rental["id"], rental["number"], "reserved", offer.class_id, sent.customer_id, None)
    branches = (offer.branch_id, offer.branch_id)
    money = (offer.terms.daily_rate, offer.terms.currency, rental["total_amount"], 0)
    message = (clock.new_id(), "notifications.rental_reserved", "notifications", "{}", None, None)
    return (*block, *booked, *branches, *money, orjson.dumps(offer.terms.as_json()).decode(), None, now, *message)
