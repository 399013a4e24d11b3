"""Whoever paid has a receipt, once for each payment, in their language, however it came to be captured."""

from typing import Any

import pytest

from fleet import clock
from fleet.db import db
from fleet.gateways.cards import Outcome
from fleet.models.notifications import Notification
from fleet.services import card_payments, payments
from tasks import notifications as consumers
from tests.books import issued
from tests.cast import Cast
from tests.money import card_payment, id_of, paid, pay
from tests.tasks.outboxes import row, state
from tests.tasks.test_notifications import Post

TOPIC = "notifications.payment_received"


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(consumers, "mailer", lambda: post)
    return post


def promised() -> list[str]:
    """The receipts that are promised, oldest first."""
    return [f"{found}" for (found,) in db.rows("SELECT id FROM outbox WHERE topic = %s ORDER BY id", (TOPIC,))]


@pytest.mark.parametrize("method", ["cash", "bank_transfer", "wallet"])
def test_what_is_recorded_is_told_once(cast: Cast, method: str) -> None:
    paid(cast, issued(cast), method=method)
    assert len(promised()) == 1


def test_a_card_payment_is_told_when_it_is_captured_and_not_before_and_not_when_it_fails(cast: Cast) -> None:
    invoice = issued(cast)
    captured, failed = card_payment(invoice, 70), card_payment(invoice, 80)
    assert promised() == []
    for _ in range(2):
        card_payments.settle(captured, Outcome("captured", "pi_1", 70, "EUR"))
    card_payments.settle(failed, Outcome("failed", "pi_2", 80, "EUR", failure_code="card_declined"))
    assert len(promised()) == 1


def test_a_payment_that_is_not_written_is_not_told(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise stands with the transaction that settles, and falls with it."""

    def breaks(payment_id: Any) -> None:
        raise RuntimeError("the last step before the commit")

    monkeypatch.setattr(payments.events, "of_payment", breaks)
    assert pay(cast.agent, issued(cast)).status_code == 500
    assert promised() == []


@pytest.mark.parametrize(
    ("tag", "subject", "told"),
    [
        ("en", "Payment received for invoice {}", ("EUR 70.70", "Cash", "EUR 40.00")),
        ("de", "Zahlung zur Rechnung {} erhalten", ("70,70 EUR", "Bargeld", "40,00 EUR")),
        ("fr", "Paiement reçu pour la facture {}", ("70,70 EUR", "Espèces", "40,00 EUR")),
        ("es", "Pago recibido de la factura {}", ("70,70 EUR", "Efectivo", "40,00 EUR")),
    ],
)
def test_the_mail_tells_it_in_the_customers_language(
    cast: Cast, post: Post, tag: str, subject: str, told: tuple[str, ...]
) -> None:
    db.execute_sql("UPDATE customer SET language = %s WHERE id = %s", (tag, cast.ana.customer_id))
    invoice = issued(cast)
    payment = pay(cast.agent, invoice, 7070, reference="Transfer 4711").headers["Location"]
    [letter] = promised()
    consumers.payment_received([letter])
    [mail] = post.mails
    assert (mail.to, mail.subject, mail.unsubscribe_url) == (cast.ana.email, subject.format(invoice.number), None)
    for said in (mail.text, mail.html):
        assert all(part in said for part in (*told, f"{invoice.number}"))
        assert "Transfer 4711" not in said
    assert f'<html lang="{tag}">' in mail.html
    kept = Notification.get(Notification.id == letter)
    assert (kept.kind, kept.status, kept.payment_id, kept.invoice_id) == ("payment_received", "sent", id_of(payment), None)
    assert state(letter) == "confirmed"


def test_each_of_several_payments_tells_its_own_amount_and_what_is_left(cast: Cast, post: Post) -> None:
    invoice = issued(cast)
    pay(cast.agent, invoice, 1070)
    consumers.payment_received(promised())
    pay(cast.agent, invoice, 10_000)
    consumers.payment_received(promised()[1:])
    one, other = post.mails
    assert "EUR 10.70" in one.text and "EUR 100.00" in one.text  # paid, left
    assert "EUR 100.00" in other.text and "Left to pay" not in other.text


def test_what_is_not_captured_is_nothing_to_tell(cast: Cast, post: Post) -> None:
    for about in (card_payment(issued(cast)), clock.new_id()):
        promise = payments.outbox.promise(TOPIC, "payment", about)
        consumers.payment_received([f"{promise}"])
        assert (state(promise), row(promise).deliveries, post.mails) == ("dead", 1, [])
