"""The demo: a rental company with a year behind it, so that a newcomer sees a service at work and not an empty one."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any

from psycopg2.extras import execute_values

from fleet import clock, config, passwords
from fleet.db import db, transaction
from fleet.demo.catalog import (
    BRANCHES,
    CLASSES,
    COLORS,
    FIRST_NAMES,
    LAST_NAMES,
    OPENING_HOURS,
    TAXES,
)
from fleet.demo.history import PAST, History, Subject, id_at, tell
from fleet.rules.pricing import Line, Terms, taxed
from fleet.services import ledger

VEHICLES, CUSTOMERS = 120, 400
SEED = 2026
STAFF = {
    "admin@example.com": "admin",
    "manager@example.com": "fleet_manager",
    "agent@example.com": "rental_agent",
    "workshop@example.com": "maintenance_staff",
    "accountant@example.com": "accountant",
}
_BATCH = 500
Rows = list[dict[str, Any]]
Progress = Callable[[Sequence[Any], str], Iterable[Any]]


def is_empty() -> bool:
    """Whether nobody has put a vehicle into this database yet."""
    return db.one("SELECT 1 FROM vehicle LIMIT 1") is None


def seed(password: str, *, progress: Progress) -> dict[str, int]:
    """Fill an empty database with the demo, all of it or nothing; returns how many rows each table got.

    `password` becomes that of all demo users. The history is random but always the same, up to the current date. It leaves
    no events: the stream begins with what people do after it.
    """
    now, chance = clock.now().replace(second=0, microsecond=0), Random(SEED)  # noqa: S311 - a story, not a secret
    history = History()
    with transaction():
        rows = _people(password, now, chance) | _fleet(now, chance)
        customers = [row["id"] for row in rows["customer"]]
        for subject in progress(_subjects(rows), "a year of rentals"):
            tell(history, subject, customers, now, chance)
        for vehicle in rows["vehicle"]:
            vehicle["odometer_km"] = history.odometers.get(vehicle["id"], vehicle["odometer_km"])
        rows |= _numbered(history) | _billed(history)
        for table, batch in progress(_batches(rows), "writing"):
            _write(table, batch)
        db.execute_sql("ANALYZE")  # the planner would take the new tables for empty ones
        invoice_ids = [row["id"] for row in rows["invoice"]]
        for start in progress(range(0, len(invoice_ids), _BATCH), "ledger"):
            ledger.post_invoices(invoice_ids[start : start + _BATCH], told=False)
        # The books too: taken for empty, they are proved by loops within loops, which took 27 s instead of 0.1.
        db.execute_sql("ANALYZE")
        _continue_counters(len(rows["rental"]), len(invoice_ids))
    return {table: len(its_rows) for table, its_rows in rows.items()}


def _people(password: str, now: datetime, chance: Random) -> dict[str, Rows]:
    password_hash = passwords.hashed(password)
    users = [
        {
            "id": id_at(now - PAST),
            "email": email,
            "password_hash": password_hash,
            "first_name": role.replace("_", " ").title(),
            "last_name": "Demo",
            "roles": [role],
        }
        for email, role in STAFF.items()
    ]
    names = [(first, last) for first in FIRST_NAMES for last in LAST_NAMES]
    customers = [
        {
            "id": id_at(now - PAST + timedelta(hours=number)),
            "first_name": first,
            "last_name": last,
            "email": f"{first}.{last.replace(chr(39), '')}.{number}@example.com".lower(),
            "phone": f"+351 21 {chance.randrange(10**6, 10**7)}",
            "driver_license_number": f"DL{number:06d}",
            "driver_license_expiry": (now + timedelta(days=chance.randrange(200, 3000))).date(),
            "date_of_birth": (now - timedelta(days=chance.randrange(22 * 365, 75 * 365))).date(),
        }
        for number, (first, last) in enumerate(chance.sample(names, CUSTOMERS), start=1)
    ]
    return {"user_account": users, "customer": customers}


def _fleet(now: datetime, chance: Random) -> dict[str, Rows]:
    opened = now - PAST
    taxes = [{"code": code, "name": name, "rate_bps": bps} for code, (name, bps) in TAXES.items()]
    branches = [{"id": id_at(opened), **spec._asdict(), "opening_hours": OPENING_HOURS} for spec in BRANCHES]
    classes = [
        {
            "id": id_at(opened),
            "code": spec.code,
            "name": spec.name,
            "daily_rate": spec.daily_rate,
            "currency": "EUR",
            "late_fee_per_hour": spec.late_fee_per_hour,
            "fuel_fee_per_percent": 100,
            "cancellation_fee": spec.daily_rate // 2,
            "free_cancellation_hours": 24,
            "no_show_fee": spec.daily_rate,
            "turnaround_after_minutes": 60,
        }
        for spec in CLASSES
    ]
    vehicles = []
    for number, (spec, class_) in zip(range(VEHICLES), itertools.cycle(zip(CLASSES, classes, strict=True)), strict=False):
        make, model, fuel = chance.choice(spec.models)
        vehicles.append(
            {
                "id": id_at(opened + timedelta(minutes=number)),
                "plate_number": f"{chr(65 + number // 26)}{chr(65 + number % 26)}-{number:03d}-FL",
                "make": make,
                "model": model,
                "year": now.year - chance.randrange(4),
                "class_id": class_["id"],
                "branch_id": branches[number // len(classes) % len(branches)]["id"],
                "status": "in_service" if number % 30 != 29 else "out_of_service",
                "fuel_type": fuel,
                "transmission": "automatic" if fuel in {"electric", "hybrid"} else "manual",
                "color": chance.choice(COLORS),
                "passenger_capacity": spec.passenger_capacity,
                "odometer_km": chance.randrange(500, 60_000),
                "currency": "EUR",
            }
        )
    return {"tax_code": taxes, "branch": branches, "vehicle_class": classes, "vehicle": vehicles}


def _subjects(rows: dict[str, Rows]) -> list[Subject]:
    classes = {row["id"]: row for row in rows["vehicle_class"]}
    branches = {row["id"]: row for row in rows["branch"]}
    return [
        Subject(
            vehicle["id"],
            vehicle["class_id"],
            vehicle["branch_id"],
            _terms(classes[vehicle["class_id"]], branches[vehicle["branch_id"]]),
            vehicle["odometer_km"],
        )
        for vehicle in rows["vehicle"]
        if vehicle["status"] == "in_service"
    ]


def _terms(class_: dict[str, Any], branch: dict[str, Any]) -> Terms:
    agreed = ("daily_rate", "late_fee_per_hour", "fuel_fee_per_percent", "cancellation_fee", "no_show_fee")
    return Terms(
        currency=branch["currency"],
        timezone=branch["timezone"],
        grace_minutes=config.current().billing_grace_minutes,
        free_cancellation_hours=class_["free_cancellation_hours"],
        tax_code=branch["tax_code"],
        tax_bps=TAXES.get(branch["tax_code"], ("", 0))[1],
        **{name: class_[name] for name in agreed},
    )


def _numbered(history: History) -> dict[str, Rows]:
    rentals = sorted(history.rows["rental"], key=lambda row: row["created_at"])
    for number, row in enumerate(rentals, start=1):
        row["number"] = f"RNT-{row['created_at'].year}-{number:06d}"
    readings = sorted(history.rows["odometer_reading"], key=lambda row: row["measured_at"])
    blocks, charges = history.rows["vehicle_block"], history.rows["rental_charge"]
    return {"rental": rentals, "vehicle_block": blocks, "rental_charge": charges, "odometer_reading": readings}


def _billed(history: History) -> dict[str, Rows]:
    invoices: Rows = []
    lines: Rows = []
    for number, (at, rental_id, customer_id, charged, terms) in enumerate(sorted(history.invoices, key=lambda i: i[0]), 1):
        billed = [taxed(line, terms.tax_code, terms.tax_bps) for line in charged if line.net_amount]
        net, tax = sum(item.line.net_amount for item in billed), sum(item.tax_amount for item in billed)
        invoice_id = id_at(at)
        invoices.append(
            {
                "id": invoice_id,
                "number": f"INV-{number:06d}",
                "status": "open",
                "customer_id": customer_id,
                "rental_id": rental_id,
                "currency": terms.currency,
                "net_amount": net,
                "tax_amount": tax,
                "total_amount": net + tax,
                "issued_at": at,
                "due_at": at + timedelta(days=config.current().payment_terms_days),
                "created_at": at,
                "updated_at": at,
            }
        )
        for position, item in enumerate(billed, start=1):
            taxation = {"tax_code": item.tax_code, "tax_bps": item.tax_bps, "tax_amount": item.tax_amount}
            lines.append({"invoice_id": invoice_id, "position": position, **_columns(item.line), **taxation})
    return {"invoice": invoices, "invoice_line": lines}


def _columns(line: Line) -> dict[str, Any]:
    return {name: getattr(line, name) for name in ("type", "rule", "description", "quantity", "unit_amount", "net_amount")}


def _batches(rows: dict[str, Rows]) -> list[tuple[str, Rows]]:
    order = (
        "tax_code", "user_account", "customer", "branch", "vehicle_class", "vehicle", "rental", "vehicle_block",
        "rental_charge", "odometer_reading", "invoice", "invoice_line",
    )  # fmt: skip
    return [
        (table, rows[table][start : start + _BATCH]) for table in order for start in range(0, len(rows[table]), _BATCH)
    ]


def _write(table: str, rows: Rows) -> None:
    columns = list(rows[0])
    values = [tuple(row[column] for column in columns) for row in rows]
    db.execute_sql("SELECT 1")  # opens the transaction, which execute_values knows nothing of
    with db.cursor() as cursor:
        statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s"  # noqa: S608 - our own names
        execute_values(cursor, statement, values, page_size=_BATCH)


def _continue_counters(rentals: int, invoices: int) -> None:
    db.execute_sql("SELECT setval('rental_number', %s)", (rentals,))
    db.execute_sql("INSERT INTO document_counter (series, last_number) VALUES ('invoice', %s)", (invoices,))
