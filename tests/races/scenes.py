"""What the people of the races do, each as one call that can be made at the same time as another."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

from werkzeug.test import TestResponse

from fleet.db import db
from tests.cast import Cast, Person, at, iso

Call = Callable[[], TestResponse]


def window(start: float, end: float) -> dict[str, str]:
    """From so many days on to so many days on."""
    return {"start_at": iso(at(start)), "end_at": iso(at(end))}


def reserving(
    cast: Cast, start: float = 1, end: float = 3, *, key: str | None = None, by: Person | None = None, **body: Any
) -> Call:
    """Ana wants the Corolla from the first to the third day from now, and the counter books it, unless told otherwise."""
    wish = {"customer_id": cast.ana.customer_id, "vehicle_id": cast.corolla, **window(start, end), **body}
    wish = {name: value for name, value in wish.items() if value is not None}
    return lambda: (by or cast.agent).post("/v1/rentals", wish, key=key or str(uuid4()))


def booking(cast: Cast, start: float = 1, end: float = 3, **body: Any) -> Call:
    """Ana wants any compact."""
    return reserving(cast, start, end, vehicle_id=None, class_id=cast.compact, **body)


def reserved(cast: Cast, *args: Any, **body: Any) -> str:
    """The path of a rental that is booked, or held with `hold_minutes`."""
    created = reserving(cast, *args, **body)()
    assert created.status_code == 201, created.json
    return created.headers["Location"]


def begun(cast: Cast, end: float = 2, **body: Any) -> str:
    """A rental that began an hour ago, reserved and not handed over yet."""
    return reserved(cast, -1 / 24, end, **body)


def activating(cast: Cast, rental: str, odometer_km: int = 1000) -> Call:
    body = {"start_odometer_km": odometer_km, "fuel_level_percent": 100}
    return lambda: cast.agent.post(f"{rental}/activate", body)


def out(cast: Cast, **body: Any) -> str:
    """A rental that is out since this moment."""
    rental = begun(cast, **body)
    handed_over = activating(cast, rental)()
    assert handed_over.status_code == 200, handed_over.json
    return rental


def completing(cast: Cast, rental: str, odometer_km: int = 1100) -> Call:
    return lambda: cast.agent.post(f"{rental}/complete", {"end_odometer_km": odometer_km}, key=str(uuid4()))


def cancelling(cast: Cast, rental: str, **body: Any) -> Call:
    return lambda: cast.agent.post(f"{rental}/cancel", body)


def confirming(cast: Cast, rental: str) -> Call:
    return lambda: cast.agent.post(f"{rental}/confirm")


def changing(cast: Cast, rental: str, version: int = 1, **changes: Any) -> Call:
    return lambda: cast.agent.patch(rental, changes, version=str(version))


def extending(cast: Cast, rental: str, end: float, version: int = 1) -> Call:
    return changing(cast, rental, version, end_at=iso(at(end)))


def blocking(cast: Cast, start: float = 1, end: float = 3, vehicle_id: UUID | None = None) -> Call:
    path = f"/v1/vehicles/{vehicle_id or cast.corolla}/blocks"
    return lambda: cast.manager.post(path, window(start, end))


def selling(cast: Cast, vehicle_id: UUID | None = None) -> Call:
    return lambda: cast.manager.post(f"/v1/vehicles/{vehicle_id or cast.corolla}/status", {"status": "sold"})


# --- what is true afterwards ------------------------------------------------------------------------------------------


def count(sql: str, *params: Any) -> int:
    """How many rows a FROM and its WHERE find."""
    return int(db.rows(f"SELECT count(*) FROM {sql}", params)[0][0])


def overlaps() -> int:
    """How many pairs of live blocks overlap. Asked without the constraint's help."""
    return count("""vehicle_block a JOIN vehicle_block b ON a.vehicle_id = b.vehicle_id AND a.id < b.id
        AND a.live AND b.live AND a.occupied && b.occupied""")


def sold_and_taken() -> int:
    """How many live blocks stand on vehicles that are sold."""
    return count("vehicle_block JOIN vehicle ON vehicle.id = vehicle_id WHERE live AND status = 'sold'")


def state_of(rental: str) -> tuple[str, int]:
    """The rental's status, and how many live blocks it has."""
    rental_id = rental.rpartition("/")[2]
    status = db.rows("SELECT status FROM rental WHERE id = %s", (rental_id,))[0][0]
    return status, count("vehicle_block WHERE live AND rental_id = %s", rental_id)
