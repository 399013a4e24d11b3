"""An issued invoice is posted once, however often its promise rings."""

from collections import Counter

import pytest

from fleet.db import db
from tasks import accounting, topics
from tests.books import issued
from tests.cast import Cast
from tests.money import given_back, paid
from tests.tasks.outboxes import at_once, let_leases_end, state, texts


@pytest.fixture
def promise_of(cast: Cast):
    def find(invoice):
        [(found,)] = db.rows(
            "SELECT id FROM outbox WHERE topic = 'accounting.post_invoice' AND aggregate_id = %s", (invoice.id,)
        )
        return found

    return find


def entries(*invoices) -> list[int]:
    found = Counter(source for (source,) in db.rows("SELECT source_id FROM journal_entry"))
    return [found[invoice.id] for invoice in invoices]


def test_issued_invoices_are_posted_in_one_batch(cast, promise_of):
    invoices = [issued(cast) for _ in range(5)]
    promises = [promise_of(invoice) for invoice in invoices]
    assert entries(*invoices) == [0] * 5
    accounting.post_invoice(texts(promises))
    assert entries(*invoices) == [1] * 5
    assert {state(one) for one in promises} == {"confirmed"}


def test_an_invoice_is_posted_once_by_many_workers_at_once(cast, promise_of):
    invoice = issued(cast)
    at_once([lambda: accounting.post_invoice(texts([promise_of(invoice)]))] * 6)
    assert entries(invoice) == [1]


@pytest.mark.parametrize(
    ("topic", "count"),
    [("accounting.post_payment", 1), ("accounting.post_refund", 2)],
)
def test_money_is_posted_as_it_was_promised_and_once(cast, topic, count):
    given_back(cast, paid(cast, issued(cast)), amount=70)
    promises = texts(found for (found,) in db.rows("SELECT id FROM outbox WHERE topic = %s", (topic,)))
    assert len(promises) == count
    consumer = getattr(accounting, topic.partition(".")[2])
    topics()  # Celery makes its tasks at the first look at them, and not safely in many threads at once
    at_once([lambda: consumer(promises)] * 4)
    source = topic.rpartition("_")[2]
    assert db.rows("SELECT count(*) FROM journal_entry WHERE source_type = %s", (source,)) == [(count,)]
    assert {state(one) for one in promises} == {"confirmed"}


def test_an_invoice_into_a_closed_period_waits_and_does_not_hold_the_others(cast, promise_of):
    early, late = issued(cast), issued(cast)
    promises = [promise_of(early), promise_of(late)]
    db.execute_sql("UPDATE fiscal_period SET closed_at = now() WHERE span @> current_date")
    accounting.post_invoice(texts(promises))
    assert entries(early, late) == [0, 0]
    assert {state(one) for one in promises} == {"waiting"}
    db.execute_sql("UPDATE fiscal_period SET closed_at = NULL")
    let_leases_end()
    accounting.post_invoice(texts(promises))
    assert entries(early, late) == [1, 1]
