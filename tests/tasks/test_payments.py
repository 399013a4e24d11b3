"""The worker's side of card payments: refunds that were promised, and the sweep for what nobody has heard of."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from flask import Flask

from fleet import clock
from fleet.breakers import Breaker, Rules
from fleet.db import db
from fleet.gateways.cards import Charge, NotShown
from fleet.gateways.stripe_cards import StripeCards, is_outage
from fleet.services import card_payments
from tasks import payments, topics
from tests.books import issued
from tests.cast import Cast, insert
from tests.money import card_payment, standing
from tests.stripe_server import GOOD_CARD, SECRET, Stripe, stripe_server
from tests.tasks.outboxes import at_once, last_error, let_leases_end, promised, state


@pytest.fixture
def stripe(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stripe]:
    topics()  # Celery makes its tasks at the first look at them, and not safely in many threads at once
    breaker = Breaker("stripe-of-tasks", Rules(), is_failure=is_outage)
    with stripe_server() as (world, address):
        cards = StripeCards("sk_test_1", address, SECRET, breaker=breaker, timeouts=(0.5, 0.5, 1.0))
        monkeypatch.setattr(payments, "cards", lambda: cards)
        yield world


@pytest.fixture
def refund(cast: Cast, stripe: Stripe) -> str:
    """The id of the promise to send an approved refund of 70."""
    form = {"amount": "11070", "currency": "eur", "metadata[payment_id]": "x", "confirm": "true", "payment_method": GOOD_CARD}
    _, intent = stripe.answer("POST", "/v1/payment_intents", form, None)
    payment = card_payment(issued(cast), status="captured", gateway_reference=intent["id"], refunded_amount=70)
    refund = insert("refund", status="approved", payment_id=payment, amount=70, needs_approval=False,
                    requested_by=cast.agent.user_id, approved_at=clock.now())  # fmt: skip
    [promise] = promised(topic=payments.SEND_REFUND)
    db.execute_sql("UPDATE outbox SET aggregate_id = %s, aggregate_type = 'refund' WHERE id = %s", (refund, promise))
    return promise


def status() -> str:
    return str(db.rows("SELECT status FROM refund")[0][0])


def letters() -> int:
    """How many letters about refunds are promised."""
    return len(db.rows("SELECT 1 FROM outbox WHERE topic = 'notifications.payment_refunded'"))


def test_a_refund_is_sent_once_by_many_workers(refund: str, stripe: Stripe) -> None:
    at_once([lambda: payments.send_refund([refund])] * 4)
    assert (status(), state(refund)) == ("settled", "confirmed")
    assert [made["amount"] for made in stripe.refunds.values()] == [70]
    payments.send_refund([refund])
    assert (len(stripe.refunds), letters()) == (1, 1)


def test_a_refund_waits_for_a_gateway_that_is_away(refund: str, stripe: Stripe) -> None:
    stripe.goes_wrong(path="/v1/refunds", status=500, takes_effect=True)
    payments.send_refund([refund])
    assert (status(), state(refund), letters()) == ("sent", "waiting", 0)
    assert "CardsUnavailable" in last_error(refund)
    let_leases_end()
    payments.send_refund([refund])
    assert (status(), state(refund), len(stripe.refunds)) == ("settled", "confirmed", 1)


def test_without_a_gateway_a_refund_becomes_a_dead_letter(
    refund: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "cards", lambda: None)
    payments.send_refund([refund])
    assert (status(), state(refund)) == ("approved", "dead")


def test_the_sweep_settles_what_was_charged(cast: Cast, stripe: Stripe) -> None:
    invoice = issued(cast)
    payment = card_payment(invoice, reference=GOOD_CARD, attempt_ends_at=clock.now() - timedelta(minutes=1))
    form = {
        "amount": "11070", "currency": "eur", "metadata[payment_id]": f"{payment}", "confirm": "true",
        "payment_method": GOOD_CARD,
    }  # fmt: skip
    stripe.answer("POST", "/v1/payment_intents", form, None)
    at_once([payments.settle_pending] * 3)
    assert standing(invoice) == ("paid", 11_070, 0)


def test_the_sweep_has_nothing_to_do_without_a_gateway(cast: Cast, stripe: Stripe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payments, "cards", lambda: None)
    card_payment(issued(cast), attempt_ends_at=clock.now() - timedelta(minutes=1))
    payments.settle_pending()
    assert stripe.calls == []


def test_a_charge_that_is_not_found_among_too_many_holds_up_no_other(
    cast: Cast, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, found = (
        card_payment(issued(cast), reference=GOOD_CARD, attempt_ends_at=clock.now() - timedelta(minutes=minutes))
        for minutes in (2, 1)
    )
    asked: list[UUID] = []

    def find(self: StripeCards, charge: Charge) -> None:
        asked.append(charge.payment_id)
        if charge.payment_id == lost:
            raise NotShown("too many")

    monkeypatch.setattr(StripeCards, "find", find)
    payments.settle_pending()
    assert set(asked) == {lost, found}


def test_what_the_gateway_does_not_know_holds_up_no_other(cast: Cast, stripe: Stripe) -> None:
    """As after a change of the account: Stripe answers, so it is not away, and nobody knows what became of the money."""
    lost, found = issued(cast), issued(cast)
    for invoice, minutes in ((lost, 2), (found, 1)):
        ends_at = clock.now() - timedelta(minutes=minutes)
        payment = card_payment(invoice, reference=GOOD_CARD, attempt_ends_at=ends_at)
        if invoice is lost:
            db.execute_sql("UPDATE payment SET gateway_reference = 'pi_of_another_account' WHERE id = %s", (payment,))
        else:
            form = {
                "amount": "11070", "currency": "eur", "metadata[payment_id]": f"{payment}", "confirm": "true",
                "payment_method": GOOD_CARD,
            }  # fmt: skip
            stripe.answer("POST", "/v1/payment_intents", form, None)
    payments.settle_pending()
    assert (standing(lost), standing(found)) == (("open", 0, 11_070), ("paid", 11_070, 0))


def test_a_refund_that_the_gateway_does_not_know_ends_no_sweep(refund: str, stripe: Stripe) -> None:
    stripe.refund_status = "pending"
    payments.send_refund([refund])
    stripe.refunds.clear()
    db.execute_sql("UPDATE refund SET attempt_ends_at = now() - interval '1 minute'")
    payments.settle_pending()
    assert status() == "sent"


def test_a_gateway_that_takes_its_time_ends_the_sweep_before_its_worker_is_missed(
    cast: Cast, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        card_payment(issued(cast), reference=GOOD_CARD, attempt_ends_at=clock.now() - timedelta(minutes=1))
    asked: list[UUID] = []
    monkeypatch.setattr(StripeCards, "find", lambda _, charge: asked.append(charge.payment_id))
    monkeypatch.setattr(card_payments, "SWEEP_BUDGET_S", 0.0)
    payments.settle_pending()
    assert not asked
    monkeypatch.setattr(card_payments, "SWEEP_BUDGET_S", 15.0)
    db.execute_sql("UPDATE payment SET attempt_ends_at = now() - interval '1 minute'")
    payments.settle_pending()
    assert len(asked) == 3
