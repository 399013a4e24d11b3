from datetime import timedelta

import pytest
import time_machine

from fleet import config
from fleet.db import db, transaction
from fleet.rules.money import MAX_AMOUNT, AmountTooLarge
from fleet.rules.pricing import Line
from fleet.services import invoices
from tests.books import DAYS, LATE, NOTHING_OWED, SCRATCH, issued, rental_to_bill
from tests.cast import Cast


def test_an_invoice_shows_each_line_with_its_rule_and_its_tax(cast: Cast) -> None:
    invoice = issued(cast, DAYS, LATE, SCRATCH)
    shown = invoices.shown(cast.agent.actor, invoice.id)
    assert [(line["description"], line["rule"], line["net_amount"], line["tax_amount"]) for line in shown["lines"]] == [
        ("Rental, 2 days", "started_days", 9000, 2070),
        ("Late return, 1 hour", "late_started_hours", 1250, 288),
        ("Scratched door", "entered_by_staff", 10_000, 0),
    ]
    assert [line["tax_code"] for line in shown["lines"]] == ["PT-23", "PT-23", "NONE"]
    assert (shown["net_amount"], shown["tax_amount"], shown["total_amount"]) == (20_250, 2358, 22_608)
    assert (shown["balance_amount"], shown["currency"]) == (22_608, "EUR")


def test_an_invoice_is_open_from_its_first_moment_and_due_after_the_payment_terms(cast: Cast) -> None:
    invoice = issued(cast)
    assert (invoice.status, invoice.version) == ("open", 1)
    assert invoice.due_at - invoice.issued_at == timedelta(days=config.current().payment_terms_days)


def test_what_issue_returns_is_what_is_stored(cast: Cast) -> None:
    invoice = issued(cast)
    assert type(invoice).get_by_id(invoice.id).__data__ == invoice.__data__


def test_numbers_follow_one_another(cast: Cast) -> None:
    assert [issued(cast).number for _ in range(3)] == ["INV-000001", "INV-000002", "INV-000003"]


def test_a_number_outgrows_its_six_digits_without_being_cut(cast: Cast) -> None:
    db.execute_sql("INSERT INTO document_counter (series, last_number) VALUES ('invoice', 999999)")
    assert issued(cast).number == "INV-1000000"


def test_an_issue_that_is_rolled_back_leaves_no_gap_and_no_promise(cast: Cast) -> None:
    rental = rental_to_bill(cast)
    with pytest.raises(ZeroDivisionError), transaction():
        invoices.issue(cast.agent.actor, rental, [DAYS])
        raise ZeroDivisionError
    assert db.one("SELECT count(*) FROM outbox") == (0,)
    assert issued(cast).number == "INV-000001"


def test_an_invoice_promises_its_entry_and_its_mail(cast: Cast) -> None:
    invoice = issued(cast)
    promises = db.rows("SELECT topic, aggregate_type, aggregate_id FROM outbox ORDER BY topic")
    assert promises == [
        ("accounting.post_invoice", "invoice", invoice.id),
        ("notifications.invoice_issued", "invoice", invoice.id),
    ]


@pytest.mark.parametrize("lines", [[], [NOTHING_OWED]])
def test_where_nothing_is_owed_there_is_no_invoice_and_no_number_is_used(cast: Cast, lines: list[Line]) -> None:
    assert invoices.issue(cast.agent.actor, rental_to_bill(cast), lines) is None
    assert db.one("SELECT count(*) FROM outbox") == (0,)
    assert db.one("SELECT count(*) FROM document_counter") == (0,)


def test_a_line_over_nothing_is_left_off(cast: Cast) -> None:
    invoice = issued(cast, NOTHING_OWED, DAYS)
    lines = invoices.shown(cast.agent.actor, invoice.id)["lines"]
    assert [line["description"] for line in lines] == ["Rental, 2 days"]


def test_an_invoice_whose_tax_makes_it_too_large_is_refused(cast: Cast) -> None:
    with pytest.raises(AmountTooLarge):
        issued(cast, Line("rental", "A very long time", "started_days", 1, MAX_AMOUNT, MAX_AMOUNT))
    assert db.one("SELECT count(*) FROM invoice") == (0,)


def test_an_invoice_of_any_length_takes_three_statements(cast: Cast, statements: list[str]) -> None:
    rental = rental_to_bill(cast)
    statements.clear()
    invoices.issue(cast.agent.actor, rental, [DAYS] * 40)
    assert len(statements) == 3


def test_an_open_invoice_is_overdue_once_its_due_time_has_passed(cast: Cast) -> None:
    invoice = issued(cast)
    with time_machine.travel(invoice.due_at, tick=False):
        assert not invoices.shown(cast.agent.actor, invoice.id)["overdue"]
    with time_machine.travel(invoice.due_at + timedelta(seconds=1), tick=False):
        assert invoices.shown(cast.agent.actor, invoice.id)["overdue"]
        invoice.change(status="paid", settled_amount=invoice.total_amount)
        assert not invoices.shown(cast.agent.actor, invoice.id)["overdue"]
