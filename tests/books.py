"""Rentals to bill, invoices and entries for the tests of the books, without the services that normally lead there."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import peewee
import psycopg2
import pytest

from fleet import clock
from fleet.db import db, transaction
from fleet.embedded import Databases
from fleet.models.invoices import Invoice
from fleet.models.rentals import Rental
from fleet.rules.pricing import Line, Terms
from fleet.services import invoices, ledger
from tests.cast import Cast, Person, at, insert

DAYS = Line("rental", "Rental, 2 days", "started_days", 2, 4500, 9000)
LATE = Line("late_fee", "Late return, 1 hour", "late_started_hours", 1, 1250, 1250)
SCRATCH = Line("damage", "Scratched door", "entered_by_staff", 1, 10_000, 10_000)
NOTHING_OWED = Line("other", "Child seat", "entered_by_staff", 1, 0, 0)


def rental_to_bill(
    cast: Cast, *, renter: Person | None = None, currency: str = "EUR", status: str = "completed", **values: Any
) -> Rental:
    """A rental of the Corolla, by Ana unless told otherwise, that came back an hour ago."""
    terms = Terms(4500, currency, "Europe/Lisbon", 59, tax_code="PT-23", tax_bps=2300)
    defaults = {
        "id": clock.new_id(),
        "status": status,
        "vehicle_id": cast.corolla,
        "customer_id": (renter or cast.ana).customer_id,
        "start_at": at(-2),
        "end_at": at(hours=-1),
        "actual_start_at": at(-2),
        "actual_end_at": at(hours=-1),
        "start_odometer_km": 0,
        "end_odometer_km": 100,
        "daily_rate": terms.daily_rate,
        "currency": currency,
        "base_amount": 9000,
        "total_amount": 9000,
        "terms": terms.as_json(),
    }
    values = {**defaults, **values}
    rental: Rental = Rental.create(**{"number": f"RNT-{values['id'].hex[-12:]}", **values})
    return rental


def issued(cast: Cast, *lines: Line, **rental: Any) -> Invoice:
    """An open invoice over the lines (two days unless told otherwise), committed and not posted yet."""
    invoice = invoices.issue(cast.agent.actor, rental_to_bill(cast, **rental), lines or (DAYS,))
    assert invoice is not None
    return invoice


def posted(cast: Cast, *lines: Line, **rental: Any) -> Invoice:
    """An open invoice with its entry."""
    invoice = issued(cast, *lines, **rental)
    assert ledger.post_invoices([invoice.id]) == 1
    return invoice


def draft(cast: Cast, **values: Any) -> Any:
    """The id of an invoice that nobody has issued yet, over nothing."""
    defaults = {"customer_id": cast.ana.customer_id, "currency": "EUR"}
    amounts = {"net_amount": 0, "tax_amount": 0, "total_amount": 0}
    return insert("invoice", **{**defaults, **amounts, **values})


def entry_by_hand(*lines: tuple[str, str, int], currency: str = "EUR", **values: Any) -> Any:
    """Write an entry and its (account, side, amount) by SQL, in one transaction; returns its id."""
    entry_id = values.pop("id", None) or clock.new_id()
    defaults = {
        "booked_on": clock.now().date(),
        "memo": "By hand",
        "source_type": "manual",
        "source_id": entry_id,
        "event": "posted",
    }
    with transaction():
        insert("journal_entry", **{"id": entry_id, "line_count": max(2, len(lines)), **defaults, **values})
        for position, line in enumerate(lines, 1):
            add_line(entry_id, position, *line, currency)
    return entry_id


def add_line(entry_id: Any, position: int, account: str, side: str, amount: int, currency: str = "EUR") -> None:
    db.execute_sql(
        """INSERT INTO journal_line (entry_id, position, booked_on, account_code, side, amount, currency)
        SELECT id, %s, booked_on, %s, %s, %s, %s FROM journal_entry WHERE id = %s""",
        (position, account, side, amount, currency, entry_id),
    )


def add_invoice_line(invoice_id: Any, position: int, *, net: int = 100, tax: int = 0) -> None:
    db.execute_sql(
        """INSERT INTO invoice_line (invoice_id, position, type, rule, description, quantity, unit_amount, net_amount,
            tax_code, tax_bps, tax_amount) VALUES (%s, %s, 'other', 'by_hand', 'By hand', 1, %s, %s, 'NONE', 0, %s)""",
        (invoice_id, position, net, net, tax),
    )


@contextmanager
def refused_by(constraint: str) -> Iterator[None]:
    """One transaction that has to be refused, at its commit at the latest, by the constraint of this name."""
    with pytest.raises(peewee.PeeweeException) as refusal, transaction():
        yield
    driver = getattr(refusal.value, "orig", None)
    assert getattr(getattr(driver, "diag", None), "constraint_name", None) == constraint, refusal.value


def behind_the_guards(databases: Databases, sql: str, *params: Any) -> None:
    """Change rows as only a superuser can who switches the constraints off: what a proof has to find."""
    connection = psycopg2.connect(databases.superuser_url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(sql, params)
    connection.close()


def close_fiscal_year(year: int) -> None:
    db.execute_sql(
        "UPDATE fiscal_period SET closed_at = now() WHERE lower(span) = make_date(%s, 1, 1)", (year,)
    )


def in_days(days: int) -> Any:
    return clock.now().date() + timedelta(days=days)
