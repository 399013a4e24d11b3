"""Each test breaks an invoice by hand, in SQL, as no service would; the database refuses by the name of its rule."""

import pytest

from fleet import clock
from fleet.db import db
from tests.books import DAYS, LATE, add_invoice_line, draft, issued, refused_by
from tests.cast import Cast

ISSUE_IT = "UPDATE invoice SET status = 'open', number = %s, issued_at = now(), due_at = now() WHERE id = %s"


def test_more_is_never_settled_than_is_owed(cast: Cast) -> None:
    invoice = issued(cast)
    db.execute_sql("UPDATE invoice SET settled_amount = total_amount - 1 WHERE id = %s", (invoice.id,))
    with refused_by("invoice_not_oversettled"):
        db.execute_sql("UPDATE invoice SET settled_amount = settled_amount + 2 WHERE id = %s", (invoice.id,))


def test_what_is_settled_and_what_is_credited_count_together(cast: Cast) -> None:
    invoice = issued(cast)
    with refused_by("invoice_not_oversettled"):
        db.execute_sql("UPDATE invoice SET settled_amount = 1, credited_amount = total_amount")
    with refused_by("invoice_not_oversettled"):
        db.execute_sql("UPDATE invoice SET settled_amount = -1 WHERE id = %s", (invoice.id,))


def test_an_invoice_is_paid_only_when_all_of_it_is_settled(cast: Cast) -> None:
    issued(cast)
    with refused_by("invoice_paid_in_full"):
        db.execute_sql("UPDATE invoice SET status = 'paid', settled_amount = total_amount - 1")


def test_an_invoice_is_void_only_when_all_of_it_is_credited(cast: Cast) -> None:
    issued(cast)
    with refused_by("invoice_void_by_credit"):
        db.execute_sql("UPDATE invoice SET status = 'void'")


def test_a_line_cannot_join_an_issued_invoice(cast: Cast) -> None:
    invoice = issued(cast)
    with refused_by("invoice_line_kept"):
        add_invoice_line(invoice.id, 2)


def test_a_line_cannot_join_an_issued_invoice_that_the_same_transaction_touches(cast: Cast) -> None:
    invoice = issued(cast)
    with refused_by("invoice_line_kept"):
        db.execute_sql("UPDATE invoice SET settled_amount = 1 WHERE id = %s", (invoice.id,))
        add_invoice_line(invoice.id, 2, net=0)


def test_a_line_that_joins_a_draft_is_counted_when_the_draft_is_issued(cast: Cast) -> None:
    invoice = draft(cast)
    add_invoice_line(invoice, 1)
    with refused_by("invoice_adds_up"):
        db.execute_sql(ISSUE_IT, ("INV-X", invoice))


def test_a_line_after_the_sum_was_checked_is_counted_again(cast: Cast) -> None:
    with refused_by("invoice_adds_up"):
        invoice = draft(cast)
        db.execute_sql(ISSUE_IT, ("INV-X", invoice))
        db.execute_sql("SET CONSTRAINTS ALL IMMEDIATE")
        db.execute_sql("SET CONSTRAINTS ALL DEFERRED")
        add_invoice_line(invoice, 1)


@pytest.mark.parametrize(
    "change",
    [
        "net_amount = net_amount - 1, total_amount = total_amount - 1",
        "tax_amount = tax_amount + 1, total_amount = total_amount + 1",
        "number = 'INV-000777'",
        "currency = 'USD'",
        "due_at = due_at + interval '1 year'",
        "issued_at = issued_at - interval '1 day'",
        "rental_id = NULL",
        "issued_txid = txid_current()",
    ],
)
def test_an_issued_invoice_says_the_same_for_ever(cast: Cast, change: str) -> None:
    issued(cast, DAYS, LATE)
    with refused_by("invoice_kept"):
        db.execute_sql(f"UPDATE invoice SET {change}")


def test_a_total_is_net_and_tax(cast: Cast) -> None:
    with refused_by("invoice_amounts"):
        draft(cast, net_amount=100, tax_amount=23, total_amount=100)


def test_a_line_is_its_quantity_times_its_unit(cast: Cast) -> None:
    invoice = draft(cast)
    with refused_by("invoice_line_amounts"):
        db.execute_sql(
            """INSERT INTO invoice_line (invoice_id, position, type, rule, description, quantity, unit_amount,
                net_amount, tax_code, tax_bps, tax_amount) VALUES (%s, 1, 'other', 'x', 'x', 2, 100, 100, 'NONE', 0, 0)""",
            (invoice,),
        )


def test_a_draft_has_no_number(cast: Cast) -> None:
    with refused_by("invoice_number_at_issue"):
        draft(cast, number="INV-000001")


def test_an_issued_invoice_has_a_number_and_its_dates(cast: Cast) -> None:
    with refused_by("invoice_number_at_issue"):
        draft(cast, status="open", issued_at=clock.now(), due_at=clock.now())
    with refused_by("invoice_dates_at_issue"):
        draft(cast, status="open", number="INV-000001", issued_at=clock.now())


def test_a_number_stands_for_one_invoice(cast: Cast) -> None:
    invoice = issued(cast)
    with refused_by("invoice_number_key"):
        draft(cast, status="open", number=invoice.number, issued_at=clock.now(), due_at=clock.now())


@pytest.mark.parametrize("change", ["last_number = last_number - 1", "last_number = 0", "series = 'other'"])
def test_the_counter_of_the_numbers_only_counts_up(cast: Cast, change: str) -> None:
    issued(cast)
    with refused_by("document_counter_kept"):
        db.execute_sql(f"UPDATE document_counter SET {change}")


@pytest.mark.parametrize(
    ("old", "new"), [("open", "draft"), ("paid", "open"), ("void", "open"), ("written_off", "paid")]
)
def test_an_invoice_never_goes_back(cast: Cast, old: str, new: str) -> None:
    issued(cast)
    whole = {"paid": "settled_amount = total_amount", "void": "credited_amount = total_amount"}
    if old != "open":
        also = f", {whole[old]}" if old in whole else ""
        db.execute_sql(f"UPDATE invoice SET status = '{old}'{also}")
    with refused_by("invoice_transition"):
        db.execute_sql(f"UPDATE invoice SET status = '{new}'")


@pytest.mark.parametrize(
    ("sql", "constraint"),
    [
        ("DELETE FROM invoice", "invoice_kept"),
        ("DELETE FROM invoice_line", "invoice_line_kept"),
        ("UPDATE invoice_line SET net_amount = net_amount, description = 'Nicer'", "invoice_line_kept"),
        ("TRUNCATE invoice_line", "invoice_line_kept"),
        ("DELETE FROM document_counter", "document_counter_kept"),
        ("TRUNCATE document_counter", "document_counter_kept"),
        ("DELETE FROM customer", "customer_kept"),
    ],
)
def test_nothing_of_the_invoices_is_ever_deleted(cast: Cast, sql: str, constraint: str) -> None:
    issued(cast)
    with refused_by(constraint):
        db.execute_sql(sql)


def test_the_tables_of_the_invoices_cannot_be_emptied_through_the_ones_that_they_refer_to(cast: Cast) -> None:
    issued(cast)
    with refused_by("invoice_kept"):
        db.execute_sql("TRUNCATE invoice CASCADE")
    with refused_by("customer_kept"):
        db.execute_sql("TRUNCATE customer CASCADE")


def test_a_customer_who_is_erased_is_deactivated(cast: Cast) -> None:
    with refused_by("customer_erased_is_deactivated"):
        db.execute_sql("UPDATE customer SET erased_at = now()")
