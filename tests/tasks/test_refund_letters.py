"""Whoever got money back is told once, in their language, however the refund came to its end."""

from typing import Any

import pytest

from fleet import clock
from fleet.db import db
from fleet.models.notifications import Notification
from fleet.models.payments import Refund
from fleet.services import refunds
from tasks import notifications as consumers
from tests.books import SCRATCH, issued
from tests.cast import Cast
from tests.money import give_back, given_back, id_of, paid
from tests.tasks.outboxes import row, state
from tests.tasks.test_notifications import Post

TOPIC = "notifications.payment_refunded"


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(consumers, "mailer", lambda: post)
    return post


def letters_of(refund: str) -> list[str]:
    """The promises of letters about it."""
    asked = (TOPIC, id_of(refund))
    return [f"{found}" for (found,) in db.rows("SELECT id FROM outbox WHERE topic = %s AND aggregate_id = %s", asked)]


def in_language(cast: Cast, tag: str) -> None:
    db.execute_sql("UPDATE customer SET language = %s WHERE id = %s", (tag, cast.ana.customer_id))


@pytest.mark.parametrize("method", ["cash", "bank_transfer", "wallet"])
def test_what_is_handed_over_is_told_once(cast: Cast, method: str) -> None:
    refund = given_back(cast, paid(cast, issued(cast), method=method), amount=70)
    assert len(letters_of(refund)) == 1


def test_what_waits_for_a_second_person_is_told_when_it_goes(cast: Cast) -> None:
    refund = give_back(cast.agent, paid(cast, issued(cast, *[SCRATCH] * 6))).headers["Location"]
    assert letters_of(refund) == []
    assert cast.manager.post(f"{refund}/approve").status_code == 200
    assert len(letters_of(refund)) == 1


def test_each_of_several_refunds_has_its_letter(cast: Cast, post: Post) -> None:
    payment = paid(cast, issued(cast))
    [first], [second] = letters_of(given_back(cast, payment, amount=70)), letters_of(given_back(cast, payment, amount=1000))
    consumers.payment_refunded([first, second])
    assert ["EUR 0.70" in mail.text for mail in post.mails] == [True, False]
    assert ["EUR 10.00" in mail.text for mail in post.mails] == [False, True]


def test_a_refund_that_is_not_written_is_not_told(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise stands with the transaction that settles, and falls with it."""
    payment = paid(cast, issued(cast))

    def breaks(refund_id: Any) -> None:
        raise RuntimeError("the last step before the commit")

    monkeypatch.setattr(refunds.events, "of_refund", breaks)
    assert give_back(cast.agent, payment).status_code == 500
    assert db.rows("SELECT 1 FROM outbox WHERE topic = %s", (TOPIC,)) == []


@pytest.mark.parametrize(
    ("tag", "subject", "told", "day"),
    [
        ("en", "Refund for invoice {}", ("EUR 70.70", "Cash"), "Fri 01 Jan 2027"),
        ("de", "Erstattung zur Rechnung {}", ("70,70 EUR", "Bargeld"), "Fr. 01.01.2027"),
        ("fr", "Remboursement sur la facture {}", ("70,70 EUR", "Espèces"), "ven. 01/01/2027"),
        ("es", "Reembolso de la factura {}", ("70,70 EUR", "Efectivo"), "vie 01/01/2027"),
    ],
)
def test_the_mail_tells_it_in_the_customers_language(
    cast: Cast, post: Post, tag: str, subject: str, told: tuple[str, ...], day: str
) -> None:
    in_language(cast, tag)
    invoice = issued(cast, pickup_branch_id=cast.lisbon)
    refund = given_back(cast, paid(cast, invoice), amount=7070, reason="Kept among the staff")
    at_midnight_in_auckland(cast, refund)
    [letter] = letters_of(refund)
    consumers.payment_refunded([letter])
    [mail] = post.mails
    assert (mail.to, mail.subject) == (cast.ana.email, subject.format(invoice.number))
    for said in (mail.text, mail.html):
        assert all(part in said for part in (*told, day, f"{invoice.number}"))
        assert "Kept among the staff" not in said
    assert f'<html lang="{tag}">' in mail.html
    kept = Notification.get(Notification.id == letter)
    assert (kept.kind, kept.channel, kept.status, kept.refund_id) == ("payment_refunded", "email", "sent", id_of(refund))
    assert (kept.customer_id, kept.rental_id, state(letter)) == (cast.ana.customer_id, None, "confirmed")


def at_midnight_in_auckland(cast: Cast, refund: str) -> None:
    """It was settled on the last day of 2026 by the clock of the world, on the first of 2027 by that of the branch."""
    db.execute_sql("UPDATE branch SET timezone = 'Pacific/Auckland' WHERE id = %s", (cast.lisbon,))
    db.execute_sql("ALTER TABLE refund DISABLE TRIGGER refund_fixed")
    try:
        db.execute_sql("UPDATE refund SET settled_at = '2026-12-31T11:30Z' WHERE id = %s", (id_of(refund),))
    finally:
        db.execute_sql("ALTER TABLE refund ENABLE TRIGGER refund_fixed")


def test_an_erased_customer_is_not_told(cast: Cast, post: Post) -> None:
    [letter] = letters_of(given_back(cast, paid(cast, issued(cast))))
    erased = "UPDATE customer SET erased_at = now(), status = 'deactivated' WHERE id = %s"
    db.execute_sql(erased, (cast.ana.customer_id,))
    consumers.payment_refunded([letter])
    kept = Notification.get(Notification.id == letter)
    assert (post.mails, kept.status, kept.reason, state(letter)) == ([], "skipped", "erased", "confirmed")


def test_who_wants_no_mail_is_told_all_the_same(cast: Cast, post: Post) -> None:
    """Who chose before there was this kind did not choose against it."""
    [letter] = letters_of(given_back(cast, paid(cast, issued(cast))))
    db.execute_sql(
        """INSERT INTO notification_preference (customer_id, email_kinds, sms_kinds) VALUES (%s, ARRAY['rental_reserved',
        'rental_changed','rental_cancelled','rental_no_show','invoice_issued'], '{}')""",
        (cast.ana.customer_id,),
    )
    consumers.payment_refunded([letter])
    assert [mail.unsubscribe_url for mail in post.mails] == [None]


def test_a_refund_that_is_not_settled_is_nothing_to_tell(cast: Cast, post: Post) -> None:
    refund = give_back(cast.agent, paid(cast, issued(cast, *[SCRATCH] * 6))).headers["Location"]
    assert Refund.get_by_id(id_of(refund)).status == "requested"
    for about in (id_of(refund), clock.new_id()):
        promise = refunds.outbox.promise(TOPIC, "refund", about)
        consumers.payment_refunded([f"{promise}"])
        assert (state(promise), row(promise).deliveries, post.mails) == ("dead", 1, [])
