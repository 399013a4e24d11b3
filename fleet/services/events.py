"""Telling what happened: each event is written in the transaction of its fact, and put in order once that is committed."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson

from fleet import clock
from fleet.auth import Actor
from fleet.db import db, transaction
from fleet.models import events as models
from fleet.models.base import Condition
from fleet.models.ledger import ENTRIES
from fleet.models.payments import PAYMENTS, REFUNDS
from fleet.models.rentals import RENTALS
from fleet.models.vehicles import VEHICLES, Vehicle
from fleet.models.webhooks import fan_out
from fleet.rules import events as rules

Id = UUID | str

# Any fixed number does, as long as every release of the service asks for the same one.
SEQUENCER_LOCK = 7_305_418
PLACED_AT_ONCE = 200


def record(type_: str, aggregate_type: str, aggregate_id: Id, data: Mapping[str, Any]) -> UUID:
    """Tell what happened to a thing, in the caller's transaction: with it the event stands or is gone; returns its id."""
    return record_many(type_, aggregate_type, {aggregate_id: data})[0]


def record_many(type_: str, aggregate_type: str, told: Mapping[Any, Mapping[str, Any]]) -> list[UUID]:
    """Tell the same of many things at once, by one statement; `told` has the data by the id of each thing."""
    event_ids = [clock.new_id() for _ in told]
    values = {
        "type": type_,
        "occurred_at": clock.now(),
        "aggregate_type": aggregate_type,
        "ids": event_ids,
        "aggregate_ids": [str(aggregate_id) for aggregate_id in told],
        "data": [as_json(data) for data in told.values()],
    }
    db.execute_sql(models.RECORD, values)
    return event_ids


def of_vehicle(type_: str, vehicle: Vehicle) -> None:
    """Tell what happened to a vehicle, with the vehicle as it is now."""
    record(type_, "vehicle", vehicle.id, {name: getattr(vehicle, name) for name in VEHICLES.columns})


def of_rentals(type_: str, rental_ids: Sequence[Id]) -> None:
    """Tell what happened to rentals, each as it stands now within the caller's transaction."""
    rows = RENTALS.page([_among("rental.id", rental_ids)], after=None, limit=len(rental_ids))
    record_many(type_, "rental", {row["id"]: rules.of_rental(row) for row in reversed(rows)})


def of_entries(entry_ids: Sequence[Id]) -> None:
    """Tell that entries were posted to the ledger."""
    rows = ENTRIES.page([_among("e.id", entry_ids)], after=None, limit=len(entry_ids))
    record_many("ledger.posted", "ledger_entry", {row["id"]: rules.of_entry(row) for row in reversed(rows)})


def of_payment(payment_id: Id) -> None:
    """Tell that a payment was captured."""
    [row] = PAYMENTS.page([_among("payment.id", [payment_id])], after=None, limit=1)
    record("payment.captured", "payment", payment_id, rules.of_payment(row))


def of_refund(refund_id: Id) -> None:
    """Tell that money of a payment is back with the customer."""
    [row] = REFUNDS.page([_among("refund.id", [refund_id])], after=None, limit=1)
    record("payment.refunded", "payment", row["payment_id"], rules.of_refund(row))


def as_json(data: Mapping[str, Any]) -> str:
    """The data of an event as it is stored: times in UTC with Z, as the API writes them."""
    return orjson.dumps(data, option=orjson.OPT_UTC_Z).decode()


def put_in_order(*, limit: int = PLACED_AT_ONCE) -> int:
    """Give committed events their places in the stream and queue them for the webhooks that want them; returns how many.

    Two at once do not mind each other, and an event is queued once for each endpoint, because it gets its place once.
    Called beside the relay every 50 ms: an event is to be read some 50 ms after its commit.
    """
    if db.one(models.ANY_UNPLACED) is None:
        return 0
    with transaction():
        if db.one(models.SEQUENCER, (SEQUENCER_LOCK,)) != (True,):
            return 0
        placed = db.rows(models.PLACE, {"limit": limit})
        fan_out(placed)
    return len(placed)


def listed(actor: Actor, *, after: UUID | None, limit: int, start: int = 0, type_: str | None = None) -> list[dict[str, Any]]:
    """A page of the stream, oldest first, from the event after the sequence number `start` on.

    `after` is where the page before ended, as cursors have it: a sequence number in the shape of an id.
    """
    position = start if after is None else after.int
    rows = models.events_after(position, type_=type_, limit=limit + 1)
    return [{**row, "place": UUID(int=row["sequence"])} for row in rows]


def _among(column: str, ids: Sequence[Id]) -> Condition:
    # In PostgreSQL's own notation: a prepared statement takes no array of text where it wants one of ids.
    return Condition(f"{column} = ANY (%s::uuid[])", ("{" + ",".join(map(str, ids)) + "}",))
