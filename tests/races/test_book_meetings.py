"""Two who write into the books, or read off an odometer, meet: what the database's own guards hold together."""

from datetime import timedelta
from uuid import UUID

from fleet import clock
from fleet.db import db
from tests.books import add_invoice_line, close_fiscal_year, draft, entry_by_hand
from tests.cast import Cast, insert
from tests.races.meeting import Meeting, Outcome, in_one_transaction
from tests.races.scenes import count


def refused_by(outcome: Outcome) -> str | None:
    """The name of the constraint that refused it."""
    driver = getattr(outcome.error, "orig", None)
    return getattr(getattr(driver, "diag", None), "constraint_name", None)


def read_off(vehicle_id: UUID, reading_km: int, hours_ago: int) -> None:
    measured_at = clock.now() - timedelta(hours=hours_ago)
    insert("odometer_reading", vehicle_id=vehicle_id, epoch=1, reading_km=reading_km, measured_at=measured_at, source="manual")


def issue(invoice_id: UUID) -> None:
    sql = "UPDATE invoice SET status = 'open', number = 'INV-000001', issued_at = now(), due_at = now() WHERE id = %s"
    db.execute_sql(sql, (invoice_id,))


def test_two_readings_typed_at_once_do_not_contradict_each_other(cast: Cast, meet: Meeting) -> None:
    later = in_one_transaction(lambda: read_off(cast.corolla, 1000, 1))
    earlier = in_one_transaction(lambda: read_off(cast.corolla, 2000, 2))
    one, other = meet(later, earlier)
    assert count("odometer_reading") == 1, "both in order alone, and not together"
    assert (one.error, refused_by(other)) == (None, "odometer_sequence")


def test_no_line_joins_an_invoice_that_is_being_issued(cast: Cast, meet: Meeting) -> None:
    invoice = draft(cast)
    one, other = meet(in_one_transaction(lambda: issue(invoice)), lambda: add_invoice_line(invoice, 1, net=0))
    assert count("invoice_line") == 0, "another invoice than was issued"
    assert (one.error, refused_by(other)) == (None, "invoice_line_kept")


def test_nothing_is_booked_in_a_period_that_is_being_closed(cast: Cast, meet: Meeting) -> None:
    closing = in_one_transaction(lambda: close_fiscal_year(clock.now().year))
    one, other = meet(closing, lambda: entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5)))
    assert count("journal_entry") == 0, "booked in a closed period"
    assert (one.error, refused_by(other)) == (None, "journal_entry_period_open")
