"""Cards are charged once and told of as they stand, whatever becomes of the gateway on the way."""

from datetime import timedelta
from uuid import uuid4

import pytest
from flask import Flask

from fleet import clock
from fleet.breakers import Breaker
from fleet.db import db
from fleet.gateways.stripe_cards import StripeCards
from fleet.idempotency import KEPT_HOURS
from fleet.services import card_payments, reconciliation
from tests.books import issued, posted
from tests.cast import Answer, Cast
from tests.money import id_of, paid, pay, post_everything, standing, wish
from tests.stripe_server import CHALLENGED_CARD, DECLINED_CARD, GOOD_CARD, Refusal, Stripe

INTENTS = "/v1/payment_intents"


def pay_by_card(
    cast: Cast, invoice, amount: int | None = None, *, card: str | None = GOOD_CARD, key: str | None = None
) -> Answer:
    token = {"reference": card} if card else {}
    return cast.ana.post("/v1/payments", wish(invoice, amount, "card", **token), key=key or f"{uuid4()}")


def sweep(app: Flask, *, minutes: float = 1) -> int:
    """The sweep as it runs so much later."""
    by = f"{minutes} minutes"
    db.execute_sql("ALTER TABLE payment DISABLE TRIGGER USER")
    db.execute_sql(
        "UPDATE payment SET created_at = created_at - %s::interval, attempt_ends_at = attempt_ends_at - %s::interval", (by, by)
    )
    db.execute_sql("ALTER TABLE payment ENABLE TRIGGER USER")
    return card_payments.settle_pending(app.extensions["fleet"].cards)


def only_payment() -> tuple[str, str | None]:
    [(status, code)] = db.rows("SELECT status, failure_code FROM payment")
    return status, code


def late_charge(stripe: Stripe) -> int:
    """How Stripe answers the only payment's charge when it comes in after all."""
    [(payment,)] = db.rows("SELECT id::text FROM payment")
    form = {
        "amount": "11070", "currency": "eur", "payment_method_types[0]": "card", "metadata[payment_id]": payment,
        "payment_method": GOOD_CARD, "confirm": "true",
    }  # fmt: skip
    return stripe.answer("POST", INTENTS, form, payment)[0]


class TestACharge:
    def test_a_card_that_is_good_pays_the_invoice(self, cast: Cast, stripe: Stripe) -> None:
        invoice = posted(cast)
        answer = pay_by_card(cast, invoice)
        assert answer.status_code == 201, answer.json
        assert (answer.json["status"], answer.json["client_secret"]) == ("captured", None)
        assert standing(invoice) == ("paid", 11_070, 0)
        assert stripe.charged == 11_070
        assert stripe.only_intent()["metadata"] == {"payment_id": answer.json["id"]}
        shown = cast.ana.get(answer.headers["Location"])
        assert {**shown.json, "client_secret": None} == answer.json
        post_everything()
        assert reconciliation.prove().holds

    def test_it_is_charged_outside_of_any_transaction(
        self, cast: Cast, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        charge, seen = StripeCards.charge, []

        def watched(self, asked):
            seen.append((db.in_transaction(), only_payment()))
            return charge(self, asked)

        monkeypatch.setattr(StripeCards, "charge", watched)
        assert pay_by_card(cast, issued(cast)).status_code == 201
        assert seen == [(False, ("pending", None))]

    def test_a_declined_card_fails_its_payment_and_gives_the_balance_free(self, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        declined = pay_by_card(cast, invoice, card=DECLINED_CARD, key="k")
        assert (declined.status_code, declined.json["code"]) == (402, "payment_declined")
        assert declined.json["failure_code"] == "insufficient_funds"
        failed = cast.ana.get(f"/v1/payments/{declined.json['payment_id']}").json
        assert (failed["status"], failed["failure_code"]) == ("failed", "insufficient_funds")
        assert standing(invoice) == ("open", 0, 0)
        again = pay_by_card(cast, invoice, card=DECLINED_CARD, key="k")
        assert (again.status_code, again.data, again.headers["Idempotency-Replayed"]) == (402, declined.data, "true")
        assert pay_by_card(cast, invoice).status_code == 201
        assert stripe.charged == 11_070

    def test_a_card_that_does_not_exist_fails_too(self, cast: Cast, stripe: Stripe) -> None:
        assert pay_by_card(cast, issued(cast), card="till 7").json["failure_code"] == "resource_missing"

    def test_the_same_key_charges_once(self, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        first, again = (pay_by_card(cast, invoice, 70, key="the-one") for _ in range(2))
        assert (first.status_code, again.data, again.headers["Idempotency-Replayed"]) == (201, first.data, "true")
        assert stripe.charged == 70
        other = pay_by_card(cast, invoice, 71, key="the-one")
        assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")

    def test_more_than_is_left_is_not_charged(self, cast: Cast, stripe: Stripe) -> None:
        refused = pay_by_card(cast, issued(cast), 11_071)
        assert (refused.status_code, refused.json["code"], stripe.calls) == (409, "overpayment", [])

    def test_customers_pay_their_own_invoices_only(self, cast: Cast, stripe: Stripe) -> None:
        bens = issued(cast, renter=cast.ben)
        assert pay_by_card(cast, bens).status_code == 404
        assert stripe.calls == []

    def test_staff_charge_a_card_for_a_customer(self, cast: Cast, stripe: Stripe) -> None:
        assert pay(cast.agent, issued(cast), method="card", reference=GOOD_CARD).status_code == 201


class TestAPayerWhoConfirms:
    @pytest.mark.parametrize("card", [None, CHALLENGED_CARD])
    def test_the_payment_waits_with_a_secret_that_is_kept_nowhere(self, cast: Cast, stripe: Stripe, card: str | None) -> None:
        invoice = issued(cast)
        begun = pay_by_card(cast, invoice, card=card, key="k")
        intent = stripe.only_intent()
        assert (begun.status_code, begun.json["status"]) == (201, "pending")
        assert begun.json["client_secret"] == intent["client_secret"]
        assert standing(invoice) == ("open", 0, 11_070)
        assert db.one("SELECT count(*) FROM idempotency_record") == (0,)
        assert "client_secret" not in cast.ana.get(begun.headers["Location"]).json
        again = pay_by_card(cast, invoice, card=card, key="k")
        assert (again.json["id"], again.json["client_secret"]) == (begun.json["id"], intent["client_secret"])

    def test_what_they_confirmed_is_found(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        pay_by_card(cast, invoice, card=None, key="k")
        stripe.confirm_in_browser(stripe.only_intent())
        assert sweep(app) == 1
        assert standing(invoice) == ("paid", 11_070, 0)
        assert pay_by_card(cast, invoice, card=None, key="k").json["status"] == "captured"
        assert stripe.charged == 11_070

    def test_a_card_that_is_declined_in_the_browser_may_be_followed_by_another(
        self, app: Flask, cast: Cast, stripe: Stripe
    ) -> None:
        pay_by_card(cast, issued(cast), card=None)
        stripe.confirm_in_browser(stripe.only_intent(), DECLINED_CARD)
        assert (sweep(app), only_payment()) == (0, ("pending", None))
        stripe.confirm_in_browser(stripe.only_intent())
        assert (sweep(app), only_payment()) == (1, ("captured", None))

    def test_who_never_confirms_loses_the_place(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        pay_by_card(cast, invoice, card=None)
        assert (sweep(app, minutes=50), only_payment()) == (0, ("pending", None))
        assert (sweep(app, minutes=20), only_payment()) == (1, ("failed", "abandoned"))
        assert stripe.only_intent()["status"] == "canceled"
        assert standing(invoice) == ("open", 0, 0)


class TestABadDay:
    def test_a_charge_that_went_through_after_the_deadline_is_found_and_not_repeated(
        self, app: Flask, cast: Cast, stripe: Stripe
    ) -> None:
        invoice = posted(cast)
        stripe.goes_wrong(path=INTENTS, delay_s=0.8)
        away = pay_by_card(cast, invoice, key="k")
        assert (away.status_code, away.json["code"]) == (503, "dependency_unavailable")
        assert int(away.headers["Retry-After"]) >= 1
        assert (only_payment(), standing(invoice)) == (("pending", None), ("open", 0, 11_070))
        assert sweep(app) == 1
        assert (only_payment(), standing(invoice)) == (("captured", None), ("paid", 11_070, 0))
        again = pay_by_card(cast, invoice, key="k")
        assert (again.status_code, again.json["status"]) == (201, "captured")
        assert (stripe.charged, len(stripe.intents)) == (11_070, 1)
        post_everything()
        assert reconciliation.prove().holds

    @pytest.mark.parametrize("fault", [{"delay_s": 0.8}, {"status": 500, "takes_effect": True}, {"status": 500}])
    def test_the_same_request_again_gets_the_same_payment_and_charges_once(
        self, cast: Cast, stripe: Stripe, fault: dict[str, object]
    ) -> None:
        invoice = issued(cast)
        stripe.goes_wrong(path=INTENTS, **fault)
        assert pay_by_card(cast, invoice, key="k").status_code == 503
        again = pay_by_card(cast, invoice, key="k")
        assert (again.status_code, again.json["status"]) == (201, "captured")
        assert (stripe.charged, len(stripe.intents)) == (11_070, 1)
        assert db.one("SELECT count(*) FROM payment") == (1,)

    def test_what_never_arrived_is_made_impossible_before_it_is_given_up(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        stripe.goes_wrong(path=INTENTS, status=500)
        pay_by_card(cast, invoice, key="k")
        assert (sweep(app), only_payment()) == (0, ("pending", None))
        assert sweep(app, minutes=6) == 1
        assert (only_payment(), standing(invoice)) == (("failed", "abandoned"), ("open", 0, 0))
        assert late_charge(stripe) == 400
        assert stripe.charged == 0
        assert pay_by_card(cast, invoice, key="k").json["code"] == "payment_declined"

    def test_a_key_that_validation_kept_from_being_spent_leaves_the_charge_possible(
        self, app: Flask, cast: Cast, stripe: Stripe, caplog: pytest.LogCaptureFixture
    ) -> None:
        invoice = issued(cast)
        stripe.goes_wrong(path=INTENTS, status=500)
        pay_by_card(cast, invoice)
        stripe.goes_wrong(path=INTENTS, status=400)
        assert (sweep(app, minutes=6), only_payment()) == (0, ("pending", None))
        assert "charge neither found nor made impossible" in caplog.messages
        assert late_charge(stripe) == 200
        assert (sweep(app), only_payment()) == (1, ("captured", None))
        assert (stripe.charged, standing(invoice)) == (11_070, ("paid", 11_070, 0))

    def test_a_key_that_is_never_spent_ends_when_nobody_repeats_the_charge(
        self, app: Flask, cast: Cast, stripe: Stripe
    ) -> None:
        invoice = issued(cast)
        stripe.goes_wrong(path=INTENTS, status=500)
        pay_by_card(cast, invoice)
        stripe.goes_wrong(path=INTENTS, status=400, times=100)
        assert (sweep(app, minutes=60 * KEPT_HOURS), only_payment()) == (0, ("pending", None))
        assert (sweep(app, minutes=60), only_payment()) == (1, ("failed", "refused"))
        assert (stripe.charged, standing(invoice)) == (0, ("open", 0, 0))

    def test_a_refusal_that_stripe_keeps_has_spent_the_key(
        self, app: Flask, cast: Cast, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(form: dict[str, str]) -> None:
            raise Refusal(400, type="invalid_request_error", code="amount_too_small", message="no")

        stripe.goes_wrong(path=INTENTS, status=500)
        pay_by_card(cast, issued(cast))
        with monkeypatch.context() as endpoint:
            endpoint.setattr(stripe, "_create_intent", refused)
            assert (sweep(app, minutes=6), only_payment()) == (0, ("pending", None))
        assert (sweep(app), only_payment()) == (1, ("failed", "amount_too_small"))
        assert (late_charge(stripe), stripe.charged) == (400, 0)

    def test_a_charge_that_the_list_does_not_show_is_not_given_up(
        self, app: Flask, cast: Cast, stripe: Stripe, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stripe.goes_wrong(path=INTENTS, delay_s=0.8)
        pay_by_card(cast, issued(cast))
        monkeypatch.setattr(StripeCards, "find", lambda self, charge: None)
        assert (sweep(app, minutes=6), only_payment()) == (0, ("pending", None))
        assert stripe.charged == 11_070

    def test_the_one_among_many_is_found(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        stripe.goes_wrong(path=INTENTS, delay_s=0.8)
        pay_by_card(cast, issued(cast))
        for number in range(150):
            form = {"amount": "5", "currency": "eur", "metadata[payment_id]": f"{uuid4()}"}
            stripe.answer("POST", INTENTS, form, f"other-{number}")
        assert (sweep(app), only_payment()) == (1, ("captured", None))

    def test_two_cannot_charge_the_last_balance(self, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        stripe.goes_wrong(path=INTENTS, delay_s=0.8)
        assert pay_by_card(cast, invoice, 11_000).status_code == 503
        refused = pay_by_card(cast, invoice, 71)
        assert (refused.json["code"], refused.json["balance_amount"]) == ("overpayment", 70)
        assert pay(cast.agent, invoice, 71).json["code"] == "overpayment"
        assert (pay_by_card(cast, invoice, 70).status_code, stripe.charged) == (201, 11_070)

    def test_when_stripe_is_down_the_breaker_opens_and_nobody_waits_or_is_half_charged(
        self, cast: Cast, stripe: Stripe, breaker: Breaker
    ) -> None:
        stripe.goes_wrong(path=INTENTS, status=500, times=100)
        for _ in range(5):
            assert pay_by_card(cast, issued(cast), 5).status_code == 503
        assert breaker.state == "open"
        asked, invoice = len(stripe.calls), issued(cast)
        away = pay_by_card(cast, invoice)
        assert (away.status_code, away.json["code"]) == (503, "dependency_unavailable")
        assert int(away.headers["Retry-After"]) in range(1, 11)
        assert (len(stripe.calls), standing(invoice)) == (asked, ("open", 0, 0))
        assert db.one("SELECT count(*) FROM payment") == (5,)
        paid(cast, invoice)

    def test_declined_cards_open_no_breaker(self, cast: Cast, stripe: Stripe, breaker: Breaker) -> None:
        for _ in range(10):
            assert pay_by_card(cast, issued(cast), 5, card=DECLINED_CARD).status_code == 402
        assert breaker.state == "closed"

    def test_while_somebody_asks_nobody_else_does(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        stripe.goes_wrong(path=INTENTS, status=500)
        pay_by_card(cast, invoice, key="k")
        db.execute_sql("UPDATE payment SET attempt_ends_at = %s", (clock.now() + timedelta(seconds=30),))
        busy = pay_by_card(cast, invoice, key="k")
        assert (busy.status_code, busy.json["code"]) == (409, "idempotency_in_progress")
        assert card_payments.settle_pending(app.extensions["fleet"].cards) == 0

    def test_a_key_of_the_day_before_yesterday_is_forgotten(self, app: Flask, cast: Cast, stripe: Stripe) -> None:
        invoice = issued(cast)
        first = pay_by_card(cast, invoice, 70, key="k")
        sweep(app, minutes=60 * 25)
        db.execute_sql("DELETE FROM idempotency_record")
        second = pay_by_card(cast, invoice, 70, key="k")
        assert (second.status_code, second.json["id"] != first.json["id"]) == (201, True)

    @pytest.mark.parametrize("wrong", [{"amount_received": 1}, {"currency": "usd"}])
    def test_another_amount_than_was_asked_for_is_never_counted(
        self, app: Flask, cast: Cast, stripe: Stripe, wrong: dict[str, object]
    ) -> None:
        pay_by_card(cast, issued(cast), card=None)
        stripe.confirm_in_browser(stripe.only_intent())
        stripe.only_intent().update(wrong)
        assert (sweep(app), only_payment()) == (0, ("pending", None))

    def test_a_redirect_is_not_followed(self, cast: Cast, stripe: Stripe) -> None:
        stripe.goes_wrong(path=INTENTS, status=302)
        assert pay_by_card(cast, issued(cast)).status_code == 503
        assert len(stripe.calls) == 1

    def test_what_is_being_settled_is_settled_once(self, cast: Cast, stripe: Stripe) -> None:
        answer = pay_by_card(cast, issued(cast))
        payment = id_of(answer.headers["Location"])
        outcome = card_payments.Outcome("captured", stripe.only_intent()["id"], 11_070, "EUR")
        assert card_payments.settle(payment, outcome).status == "captured"
        assert card_payments.settle(payment, card_payments.Outcome("failed", None, failure_code="x")).status == "captured"
        assert db.one("SELECT count(*) FROM outbox WHERE topic = 'accounting.post_payment'") == (1,)
