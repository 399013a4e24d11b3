"""Stripe's events: signed, fresh, each taken once, in any order."""

import json
from uuid import uuid4

import pytest
from flask import Flask

from fleet.db import db
from fleet.services import card_refunds, reconciliation
from fleet.services.outbox import Message
from tests.api.test_card_payments import INTENTS, only_payment, pay_by_card, sweep
from tests.books import SCRATCH, issued, posted
from tests.cast import Answer, Cast
from tests.money import give_back, id_of, lines_of, post_everything, standing
from tests.stripe_server import DECLINED_CARD, Stripe, dispute, event, signature


def send(app: Flask, payload: bytes, signed: str | None = None) -> Answer:
    headers = {"Stripe-Signature": signature(payload) if signed is None else signed}
    client = app.test_client()
    answer: Answer = client.post(  # type: ignore[assignment]  # a response whose JSON the test knows
        "/v1/stripe/webhook", data=payload, headers=headers, content_type="application/json; charset=utf-8"
    )
    return answer


def lost_in_time(cast: Cast, stripe: Stripe, invoice=None) -> None:
    """A payment whose charge went through after we had given up waiting."""
    stripe.goes_wrong(path=INTENTS, delay_s=0.8)
    assert pay_by_card(cast, invoice or issued(cast)).status_code == 503


def refunded(app: Flask, refund: str) -> str:
    """Let the worker send the refund; returns its status."""
    for row in db.rows("SELECT id::text, topic, aggregate_type, aggregate_id, payload, request_id, created_at, 1 FROM outbox "
                       "WHERE topic = 'payments.send_refund' AND confirmed_at IS NULL"):  # fmt: skip
        card_refunds.send(Message(*row), app.extensions["fleet"].cards)
    return str(db.rows("SELECT status FROM refund WHERE id = %s", (id_of(refund),))[0][0])


class TestSignatures:
    @pytest.mark.parametrize("signed", ["", "t=1,v1=00", "t=x,v1=", "v1=00", "t=1", "nonsense"])
    def test_what_is_not_signed_is_refused(self, app: Flask, cast: Cast, stripe: Stripe, signed: str) -> None:
        refused = send(app, event("payment_intent.succeeded", {"id": "pi_1"}), signed)
        assert (refused.status_code, refused.json["code"]) == (401, "invalid_signature")

    def test_a_signature_of_another_secret_or_body_is_refused(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        payload = event("payment_intent.succeeded", {"id": "pi_1"})
        assert send(app, payload, signature(payload, secret="whsec_other")).status_code == 401
        assert send(app, payload, signature(payload + b" ")).status_code == 401

    def test_one_of_more_than_five_minutes_ago_is_refused(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        payload = event("payment_intent.succeeded", {"id": "pi_1"})
        assert send(app, payload, signature(payload, age_s=310)).status_code == 401
        assert send(app, event("customer.created", {"id": "cus_1"})).status_code == 204

    def test_without_a_gateway_every_event_is_refused(self, app: Flask, cast: Cast) -> None:
        assert send(app, event("customer.created", {"id": "cus_1"})).json["code"] == "invalid_signature"

    @pytest.mark.parametrize("payload", [b"[]", b"{}", b"null", b'"x"', b"{", b'{"object": "event", "id": 5}'])
    def test_what_is_signed_and_no_event_is_refused(self, app: Flask, cast: Cast, stripe: Stripe, payload: bytes) -> None:
        assert send(app, payload).status_code == 422

    @pytest.mark.parametrize("kind", ["customer.created", "payment_intent.processing", "charge.dispute.new", "refund.updated"])
    def test_an_unknown_event_changes_nothing(self, app: Flask, cast: Cast, stripe: Stripe, kind: str) -> None:
        assert send(app, event(kind, {"id": "x", "status": "new"})).status_code == 204
        assert db.one("SELECT count(*) FROM inbox") == (0,)


class TestCharges:
    def test_a_charge_that_we_lost_is_told_of_and_settled_once(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        invoice = posted(cast)
        lost_in_time(cast, stripe, invoice)
        payload = event("payment_intent.succeeded", stripe.only_intent())
        assert [send(app, payload).status_code for _ in range(3)] == [204] * 3
        assert (only_payment(), standing(invoice)) == (("captured", None), ("paid", 11_070, 0))
        assert db.one("SELECT count(*) FROM outbox WHERE topic = 'accounting.post_payment'") == (1,)
        assert db.one("SELECT count(*) FROM inbox") == (1,)
        assert sweep(app) == 0
        post_everything()
        assert reconciliation.prove().holds

    def test_an_event_of_before_changes_nothing_after(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        assert pay_by_card(cast, issued(cast)).status_code == 201
        intent = stripe.only_intent()
        for kind, status in (("canceled", "canceled"), ("payment_failed", "requires_payment_method")):
            assert send(app, event(f"payment_intent.{kind}", {**intent, "status": status})).status_code == 204
        assert only_payment() == ("captured", None)

    def test_a_card_that_is_declined_in_the_browser_does_not_end_the_payment(
        self, app: Flask, cast: Cast, stripe: Stripe
    ) -> None:
        pay_by_card(cast, issued(cast), card=None)
        stripe.confirm_in_browser(stripe.only_intent(), DECLINED_CARD)
        assert send(app, event("payment_intent.payment_failed", stripe.only_intent())).status_code == 204
        assert only_payment() == ("pending", None)
        stripe.confirm_in_browser(stripe.only_intent())
        send(app, event("payment_intent.succeeded", stripe.only_intent()))
        assert only_payment() == ("captured", None)

    def test_a_charge_of_somebody_else_is_left_alone(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        lost_in_time(cast, stripe)
        for metadata in ({}, {"payment_id": f"{uuid4()}"}, {"payment_id": "nonsense"}):
            intent = {**stripe.only_intent(), "id": f"pi_{len(metadata)}", "metadata": metadata}
            assert send(app, event("payment_intent.succeeded", intent, name=json.dumps(metadata))).status_code == 204
        assert only_payment() == ("pending", None)


class TestDisputes:
    @pytest.mark.parametrize(
        ("order", "status", "entries"),
        [
            (["needs_response"], "disputed", {"opened"}),
            (["needs_response", "under_review", "won"], "captured", {"opened", "won"}),
            (["needs_response", "lost"], "lost", {"opened", "lost"}),
            (["lost", "needs_response"], "lost", {"opened", "lost"}),
            (["won", "under_review", "needs_response"], "captured", {"opened", "won"}),
            (["warning_needs_response", "warning_closed"], "captured", set()),
        ],
    )
    def test_in_whatever_order_it_is_told(
        self, app: Flask, cast: Cast, stripe: Stripe, order: list[str], status: str, entries: set[str]
    ) -> None:
        pay_by_card(cast, posted(cast))
        for number, told in enumerate(order):
            payload = event("charge.dispute.updated", dispute(stripe.only_intent(), told), name=f"evt_{number}")
            assert [send(app, payload).status_code for _ in range(2)] == [204, 204]
        assert only_payment() == (status, None)
        post_everything()
        found = db.rows("SELECT id FROM dispute")
        assert set(lines_of(found[0][0]) if found else ()) == entries
        assert reconciliation.prove().holds

    def test_one_about_a_charge_that_we_do_not_know_yet_comes_again(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        lost_in_time(cast, stripe)
        payload = event("charge.dispute.created", dispute(stripe.only_intent()))
        early = send(app, payload)
        assert (early.status_code, early.json["code"]) == (503, "dependency_unavailable")
        assert db.one("SELECT count(*) FROM inbox") == (0,)
        sweep(app)
        assert send(app, payload).status_code == 204
        assert only_payment() == ("disputed", None)

    def test_one_about_a_charge_of_somebody_else_is_left_alone(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        pay_by_card(cast, issued(cast))
        foreign = {**dispute(stripe.only_intent()), "payment_intent": "pi_foreign"}
        assert send(app, event("charge.dispute.created", foreign)).status_code == 204
        assert only_payment() == ("captured", None)

    def test_a_disputed_payment_is_not_given_back(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        payment = pay_by_card(cast, issued(cast)).headers["Location"]
        send(app, event("charge.dispute.created", dispute(stripe.only_intent())))
        assert give_back(cast.agent, payment, amount=5).json["code"] == "invalid_state"
        assert cast.agent.get(payment).json["refundable_amount"] == 0


class TestRefunds:
    def test_a_cards_refund_goes_through_the_gateway_once(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        payment = pay_by_card(cast, posted(cast)).headers["Location"]
        asked = give_back(cast.agent, payment, amount=70)
        assert (asked.status_code, asked.json["status"], stripe.refunds) == (201, "approved", {})
        refund = asked.headers["Location"]
        stripe.goes_wrong(path="/v1/refunds", delay_s=0.8)
        with pytest.raises(Exception, match="APIConnectionError"):
            refunded(app, refund)
        assert cast.agent.get(refund).json["status"] == "sent"
        assert refunded(app, refund) == "settled"
        assert [made["amount"] for made in stripe.refunds.values()] == [70]
        post_everything()
        assert set(lines_of(id_of(refund))) == {"requested", "settled"}
        assert reconciliation.prove().holds

    def test_what_the_gateway_refuses_can_be_given_back_again(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        payment = pay_by_card(cast, posted(cast)).headers["Location"]
        stripe.refund_status = "failed"
        refund = give_back(cast.agent, payment).headers["Location"]
        assert refunded(app, refund) == "failed"
        assert cast.agent.get(refund).json["failure_code"] == "expired_or_canceled_card"
        assert cast.agent.get(payment).json["refundable_amount"] == 11_070
        post_everything()
        assert set(lines_of(id_of(refund))) == {"requested", "failed"}
        assert reconciliation.prove().holds

    @pytest.mark.parametrize(("status", "ended"), [("succeeded", "settled"), ("failed", "failed")])
    @pytest.mark.parametrize("by", ["webhook", "sweep"])
    def test_one_that_takes_days_is_settled_when_it_is_told_of_or_asked_about(
        self, app: Flask, cast: Cast, stripe: Stripe, status: str, ended: str, by: str
    ) -> None:
        payment = pay_by_card(cast, issued(cast)).headers["Location"]
        stripe.refund_status = "pending"
        refund = give_back(cast.agent, payment, amount=70).headers["Location"]
        assert refunded(app, refund) == "sent"
        [made] = stripe.refunds.values()
        made["status"] = status
        if by == "webhook":
            assert [send(app, event("refund.updated", made)).status_code for _ in range(2)] == [204, 204]
        else:
            cards = app.extensions["fleet"].cards
            assert card_refunds.settle_sent(cards) == 0
            db.execute_sql("UPDATE refund SET attempt_ends_at = now()")
            assert card_refunds.settle_sent(cards) == 1
        assert cast.agent.get(refund).json["status"] == ended
        letters = db.rows("SELECT aggregate_id FROM outbox WHERE topic = 'notifications.payment_refunded'")
        assert letters == ([(id_of(refund),)] if ended == "settled" else [])

    def test_a_refund_waits_for_its_second_person_before_anything_is_sent(
        self, app: Flask, cast: Cast, stripe: Stripe
    ) -> None:
        payment = pay_by_card(cast, issued(cast, *[SCRATCH] * 6)).headers["Location"]
        refund = give_back(cast.agent, payment).headers["Location"]
        assert db.one("SELECT count(*) FROM outbox WHERE topic = 'payments.send_refund'") == (0,)
        assert cast.manager.post(f"{refund}/approve").json["status"] == "approved"
        assert refunded(app, refund) == "settled"

    def test_a_promise_is_confirmed_with_its_effect(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        payment = pay_by_card(cast, issued(cast)).headers["Location"]
        refunded(app, give_back(cast.agent, payment, amount=70).headers["Location"])
        assert db.one("SELECT count(*) FROM outbox WHERE topic = 'payments.send_refund' AND confirmed_at IS NULL") == (0,)
