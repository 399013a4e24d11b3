"""Each test breaks a payment, a refund or a dispute by hand, in SQL; the database refuses by the name of its rule."""

from typing import Any
from uuid import UUID

import pytest

from fleet import clock
from fleet.db import db
from tests.books import issued, refused_by
from tests.cast import Cast, insert
from tests.money import card_payment, given_back, id_of, paid

NOW = "2026-06-01T12:00:00Z"


def refund_by_hand(payment_id: UUID, cast: Cast, **values: Any) -> UUID:
    defaults = {"status": "requested", "amount": 5, "needs_approval": False, "requested_by": cast.agent.user_id}
    return insert("refund", payment_id=payment_id, **{**defaults, **values})


def dispute_by_hand(payment_id: UUID, **values: Any) -> UUID:
    defaults = {"status": "open", "amount": 5, "gateway_reference": f"du_{clock.new_id()}"}
    return insert("dispute", payment_id=payment_id, **{**defaults, **values})


class TestCounters:
    def test_pending_settled_and_credited_never_come_to_more_than_the_total(self, cast: Cast) -> None:
        invoice = issued(cast)
        paid(cast, invoice, 70)
        with refused_by("invoice_not_oversettled"):
            db.execute_sql("UPDATE invoice SET pending_amount = total_amount - 69")
        with refused_by("invoice_not_oversettled"):
            db.execute_sql("UPDATE invoice SET pending_amount = -1")
        db.execute_sql("UPDATE invoice SET pending_amount = total_amount - 70")
        with refused_by("invoice_not_oversettled"):
            db.execute_sql("UPDATE invoice SET settled_amount = settled_amount + 1")

    @pytest.mark.parametrize("refunded", ["amount + 1", "-1"])
    def test_more_is_never_refunded_than_was_captured(self, cast: Cast, refunded: str) -> None:
        paid(cast, issued(cast))
        with refused_by("payment_not_overrefunded"):
            db.execute_sql(f"UPDATE payment SET refunded_amount = {refunded}")

    def test_nothing_is_refunded_of_what_was_not_captured(self, cast: Cast) -> None:
        card_payment(issued(cast))
        with refused_by("payment_not_overrefunded"):
            db.execute_sql("UPDATE payment SET refunded_amount = 1")


class TestPayments:
    @pytest.mark.parametrize("amount", [0, -1, 10**12 + 1])
    def test_an_amount_is_positive_and_bounded(self, cast: Cast, amount: int) -> None:
        invoice = issued(cast)
        with refused_by("payment_amount"):
            insert("payment", status="pending", invoice_id=invoice.id, customer_id=invoice.customer_id, currency="EUR",
                   amount=amount, method="card")  # fmt: skip

    @pytest.mark.parametrize("other", ["currency", "customer_id"])
    def test_a_payment_has_the_currency_and_the_customer_of_its_invoice(self, cast: Cast, other: str) -> None:
        invoice = issued(cast)
        values = {"customer_id": invoice.customer_id, "currency": "EUR"}
        values[other] = {"currency": "USD", "customer_id": cast.ben.customer_id}[other]
        with refused_by("payment_of_invoice"):
            insert("payment", status="pending", invoice_id=invoice.id, amount=5, method="card", **values)

    @pytest.mark.parametrize(
        ("values", "constraint"),
        [
            ({"status": "done"}, "payment_status"),
            ({"method": "cheque", "status": "captured", "captured_at": NOW}, "payment_method"),
            ({"status": "captured"}, "payment_captured_at"),
            ({"captured_at": NOW}, "payment_captured_at"),
            ({"status": "failed", "failed_at": NOW}, "payment_failure"),
            ({"status": "failed", "failure_code": "x"}, "payment_failure"),
            ({"failure_code": "x"}, "payment_failure"),
            ({"method": "cash"}, "payment_gateway_only_for_cards"),
            ({"method": "cash", "status": "captured", "captured_at": NOW, "gateway_reference": "pi_1"},
             "payment_gateway_only_for_cards"),
            ({"claim": b"1"}, "payment_claim"),
        ],
    )  # fmt: skip
    def test_a_state_has_what_belongs_to_it(self, cast: Cast, values: dict[str, Any], constraint: str) -> None:
        invoice = issued(cast)
        usual = {"status": "pending", "method": "card", "amount": 5, "currency": "EUR"}
        with refused_by(constraint):
            insert("payment", invoice_id=invoice.id, customer_id=invoice.customer_id, **{**usual, **values})

    @pytest.mark.parametrize("column", ["gateway_reference", "claim"])
    def test_what_names_a_payment_names_one(self, cast: Cast, column: str) -> None:
        values = {"gateway_reference": "pi_1"} if column == "gateway_reference" else {"claim": b"1", "request_print": b"1"}
        card_payment(issued(cast), **values)
        with refused_by(f"payment_{column}_key"):
            card_payment(issued(cast), **values)

    @pytest.mark.parametrize(
        "change",
        ["amount = amount - 1", "method = 'card'", "captured_at = now()", "recorded_by = NULL", "created_at = '2020-01-01'"],
    )
    def test_what_was_paid_stays_what_was_paid(self, cast: Cast, change: str) -> None:
        paid(cast, issued(cast))
        with refused_by("payment_kept"):
            db.execute_sql(f"UPDATE payment SET {change}")

    def test_the_gateways_name_of_a_payment_stays(self, cast: Cast) -> None:
        card_payment(issued(cast), gateway_reference="pi_1")
        with refused_by("payment_kept"):
            db.execute_sql("UPDATE payment SET gateway_reference = 'pi_2'")

    @pytest.mark.parametrize("new", ["disputed", "lost"])
    def test_a_pending_payment_is_not_disputed(self, cast: Cast, new: str) -> None:
        card_payment(issued(cast))
        with refused_by("payment_transition"):
            db.execute_sql(f"UPDATE payment SET status = '{new}', captured_at = now()")

    def test_a_failed_payment_is_never_captured(self, cast: Cast) -> None:
        card_payment(issued(cast))
        db.execute_sql("UPDATE payment SET status = 'failed', failed_at = now(), failure_code = 'x'")
        with refused_by("payment_transition"):
            db.execute_sql("UPDATE payment SET status = 'captured', captured_at = now(), failed_at = NULL, failure_code = NULL")


class TestRefunds:
    @pytest.mark.parametrize(
        ("values", "constraint"),
        [
            ({"amount": 0}, "refund_amount"),
            ({"status": "done", "approved_at": NOW}, "refund_status"),
            ({"status": "approved"}, "refund_approved"),
            ({"approved_at": NOW}, "refund_approved"),
            ({"status": "sent", "approved_at": NOW}, "refund_sent_at"),
            ({"status": "settled", "approved_at": NOW, "sent_at": NOW}, "refund_settled_at"),
            ({"status": "failed", "approved_at": NOW, "sent_at": NOW}, "refund_failure"),
            ({"status": "approved", "approved_at": NOW, "needs_approval": True}, "refund_second_person"),
            ({"status": "rejected", "approved_at": NOW}, "refund_approved"),
            ({"status": "rejected"}, "refund_rejected"),
            ({"rejected_at": NOW}, "refund_rejected"),
            ({"rejection_reason": "x"}, "refund_rejected"),
        ],
    )
    def test_a_state_has_what_belongs_to_it(self, cast: Cast, values: dict[str, Any], constraint: str) -> None:
        payment = id_of(paid(cast, issued(cast)))
        with refused_by(constraint):
            refund_by_hand(payment, cast, **values)

    def test_nobody_approves_what_they_asked_for(self, cast: Cast) -> None:
        payment = id_of(paid(cast, issued(cast)))
        by_oneself = {"approved_by": cast.agent.user_id, "approved_at": NOW, "status": "approved", "needs_approval": True}
        with refused_by("refund_second_person"):
            refund_by_hand(payment, cast, **by_oneself)

    @pytest.mark.parametrize("change", ["amount = 1", "needs_approval = true", "settled_at = now()", "approved_at = now()"])
    def test_a_refund_says_the_same_for_ever(self, cast: Cast, change: str) -> None:
        given_back(cast, paid(cast, issued(cast)), amount=5)
        with refused_by("refund_kept"):
            db.execute_sql(f"UPDATE refund SET {change}")

    def test_a_rejection_is_an_end_and_says_the_same_for_ever(self, cast: Cast) -> None:
        by = {"rejected_at": NOW, "rejected_by": cast.agent.user_id, "rejection_reason": "x"}
        refund_by_hand(id_of(paid(cast, issued(cast))), cast, status="rejected", **by)
        for change in ("rejected_at = now()", "rejection_reason = 'y'", f"rejected_by = '{cast.manager.user_id}'"):
            with refused_by("refund_kept"):
                db.execute_sql(f"UPDATE refund SET {change}")
        with refused_by("refund_transition"):
            db.execute_sql("UPDATE refund SET status = 'approved', approved_at = now()")

    @pytest.mark.parametrize("new", ["sent", "settled", "failed"])
    def test_what_nobody_approved_does_not_go(self, cast: Cast, new: str) -> None:
        refund_by_hand(id_of(paid(cast, issued(cast))), cast)
        with refused_by("refund_transition"):
            db.execute_sql(f"UPDATE refund SET status = '{new}', approved_at = now(), sent_at = now()")


class TestDisputes:
    @pytest.mark.parametrize(
        ("values", "constraint"),
        [
            ({"amount": 0}, "dispute_amounts"),
            ({"fee_amount": -1}, "dispute_amounts"),
            ({"status": "won"}, "dispute_closed_at"),
            ({"status": "inquiry", "closed_at": NOW}, "dispute_status"),
        ],
    )
    def test_a_state_has_what_belongs_to_it(self, cast: Cast, values: dict[str, Any], constraint: str) -> None:
        with refused_by(constraint):
            dispute_by_hand(card_payment(issued(cast), status="captured"), **values)

    def test_a_payment_is_disputed_once_at_a_time(self, cast: Cast) -> None:
        payment = card_payment(issued(cast), status="captured")
        dispute_by_hand(payment)
        with refused_by("dispute_one_open"):
            dispute_by_hand(payment)

    def test_the_gateways_name_names_one_dispute(self, cast: Cast) -> None:
        for payment in (card_payment(issued(cast), status="captured"),):
            dispute_by_hand(payment, gateway_reference="du_1")
        with refused_by("dispute_gateway_reference_key"):
            dispute_by_hand(card_payment(issued(cast), status="captured"), gateway_reference="du_1")

    def test_what_is_lost_stays_lost(self, cast: Cast) -> None:
        dispute_by_hand(card_payment(issued(cast), status="captured"), status="lost", closed_at=NOW)
        with refused_by("dispute_transition"):
            db.execute_sql("UPDATE dispute SET status = 'won'")
        with refused_by("dispute_kept"):
            db.execute_sql("UPDATE dispute SET amount = 1")


@pytest.mark.parametrize("table", ["payment", "refund", "dispute"])
@pytest.mark.parametrize("sql", ["DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_nothing_of_the_money_is_ever_deleted(cast: Cast, table: str, sql: str) -> None:
    payment = card_payment(issued(cast), status="captured")
    refund_by_hand(payment, cast)
    dispute_by_hand(payment)
    with refused_by(f"{table}_kept"):
        db.execute_sql(sql.format(table))
