"""What payments, refunds and disputes post, and that the proof of the books finds whatever they do not."""

from datetime import date

import pytest
import time_machine
from flask import Flask

from fleet import clock
from fleet.db import db
from fleet.embedded import Databases
from fleet.services import ledger, postings, reconciliation
from tests.books import SCRATCH, behind_the_guards, entry_by_hand, posted
from tests.cast import Cast, insert
from tests.money import card_payment, given_back, id_of, lines_of, paid, post_everything

TILLS = [("cash", "1000"), ("bank_transfer", "1010"), ("wallet", "1020"), ("card", "1040")]


def dispute(payment, status: str = "open", fee: int = 0):
    closed = {} if status == "open" else {"closed_at": clock.now()}
    values = {"payment_id": payment, "amount": 11_070, "fee_amount": fee, "gateway_reference": f"du_{payment}"}
    return insert("dispute", status=status, **values, **closed)


@pytest.mark.parametrize(("method", "till"), TILLS)
def test_a_payment_debits_its_till_and_settles_the_receivable(cast: Cast, method: str, till: str) -> None:
    invoice = posted(cast)
    payment = card_payment(invoice, status="captured") if method == "card" else id_of(paid(cast, invoice, method=method))
    post_everything()
    assert lines_of(payment) == {"captured": [(till, "debit", 11_070), ("1100", "credit", 11_070)]}
    assert ledger.balance(cast.accountant.actor, "1100", as_of=None)["balances"][0]["balance"] == 0
    assert reconciliation.prove().holds


@pytest.mark.parametrize(("method", "till"), TILLS[:3])
def test_a_refund_is_booked_when_it_is_asked_for_and_when_it_has_gone(cast: Cast, method: str, till: str) -> None:
    refund = id_of(given_back(cast, paid(cast, posted(cast), method=method), amount=70))
    post_everything()
    assert lines_of(refund) == {
        "requested": [("2120", "debit", 70), ("2300", "credit", 70)],
        "settled": [("2300", "debit", 70), (till, "credit", 70)],
    }
    assert reconciliation.prove().holds


def test_a_refund_that_waits_for_approval_is_a_debt_that_is_not_paid_yet(cast: Cast) -> None:
    payment = card_payment(posted(cast), status="captured")
    refund = insert("refund", status="requested", payment_id=payment, amount=70, needs_approval=True,
                    requested_by=cast.agent.user_id)  # fmt: skip
    db.execute_sql("UPDATE payment SET refunded_amount = 70")
    post_everything()
    assert set(lines_of(refund)) == {"requested"}
    assert reconciliation.prove().holds


def test_a_refund_that_fails_is_booked_back(cast: Cast) -> None:
    payment, now = card_payment(posted(cast), status="captured"), clock.now()
    refund = insert(
        "refund", status="failed", payment_id=payment, amount=70, needs_approval=False, requested_by=cast.agent.user_id,
        approved_at=now, sent_at=now, failed_at=now, failure_code="expired_or_canceled_card",
    )  # fmt: skip
    post_everything()
    assert lines_of(refund)["failed"] == [("2120", "credit", 70), ("2300", "debit", 70)]
    assert reconciliation.prove().holds


def test_a_refund_that_is_rejected_is_booked_back_and_its_payment_is_whole_again(cast: Cast) -> None:
    payment = paid(cast, posted(cast, *[SCRATCH] * 6))
    refund = given_back(cast, payment)
    assert cast.manager.post(f"{refund}/reject", {"reason": "No"}).status_code == 200
    assert [check.claim for check in reconciliation.prove().checks if check.wrong] == ["every fact has its entry"]
    post_everything()
    assert lines_of(id_of(refund)) == {
        "requested": [("2120", "debit", 60_000), ("2300", "credit", 60_000)],
        "rejected": [("2120", "credit", 60_000), ("2300", "debit", 60_000)],
    }
    assert reconciliation.prove().holds


@pytest.mark.parametrize(
    ("status", "more"),
    [
        ("open", {}),
        ("won", {"won": [("1040", "debit", 11_070), ("1100", "credit", 11_070)]}),
        ("lost", {"lost": [("5600", "debit", 11_070), ("1100", "credit", 11_070)]}),
    ],
)
def test_a_dispute_takes_the_money_with_a_fee_and_gives_it_back_or_not(cast: Cast, status: str, more: dict) -> None:
    found = dispute(card_payment(posted(cast), status="captured"), status, fee=1500)
    post_everything()
    opened = [("1100", "debit", 11_070), ("5500", "debit", 1500), ("1040", "credit", 12_570)]
    assert lines_of(found) == {"opened": opened, **more}
    assert reconciliation.prove().holds


def test_a_dispute_without_a_fee_has_no_line_for_one(cast: Cast) -> None:
    found = dispute(card_payment(posted(cast), status="captured"))
    post_everything()
    assert lines_of(found)["opened"] == [("1100", "debit", 11_070), ("1040", "credit", 11_070)]
    assert reconciliation.prove().holds


def test_whatever_is_posted_again_keeps_its_entries(cast: Cast) -> None:
    payment = paid(cast, posted(cast))
    refund = given_back(cast, payment, amount=70)
    post_everything()
    before = db.one("SELECT count(*) FROM journal_entry")
    assert postings.post_payments([id_of(payment)] * 2) == 0
    assert postings.post_refunds([id_of(refund)]) == 0
    assert db.one("SELECT count(*) FROM journal_entry") == before


def test_money_is_booked_on_the_day_it_moved_in_utc(cast: Cast) -> None:
    invoice = posted(cast)
    with time_machine.travel("2026-03-01T00:30:00+01:00"):
        payment = paid(cast, invoice)
    with time_machine.travel("2026-03-04T12:00:00Z"):
        refund = given_back(cast, payment)
    post_everything()
    sql = "SELECT source_type || ' ' || event, booked_on FROM journal_entry WHERE source_type <> 'invoice'"
    days: dict[str, date] = dict(db.rows(sql))
    assert days == {
        "payment captured": date(2026, 2, 28),
        "refund requested": date(2026, 3, 4),
        "refund settled": date(2026, 3, 4),
    }
    assert refund


class TestReconciling:
    def test_money_without_an_entry_is_missing_by_its_event(self, cast: Cast) -> None:
        payment = paid(cast, posted(cast))
        refund = given_back(cast, payment, amount=70)
        found = reconciliation.reconcile(cast.accountant.actor)
        assert not found["balanced"]
        assert [(row["fact"], row["id"], row["event"], row["amount"], row["problem"]) for row in found["missing"]] == [
            ("payment", id_of(payment), "captured", 11_070, "not_posted"),
            ("refund", id_of(refund), "requested", 70, "not_posted"),
            ("refund", id_of(refund), "settled", 70, "not_posted"),
        ]
        assert found["missing_count"] == 3

    @pytest.mark.parametrize(
        ("till", "amount", "currency"), [("1010", 11_070, "EUR"), ("1000", 11_069, "EUR"), ("1000", 11_070, "USD")]
    )
    def test_an_entry_with_other_amounts_does_not_tell_its_payment(
        self, cast: Cast, till: str, amount: int, currency: str
    ) -> None:
        payment = id_of(paid(cast, posted(cast)))
        lines = [(till, "debit", amount), ("1100", "credit", amount)]
        entry_by_hand(*lines, currency=currency, source_type="payment", source_id=payment, event="captured")
        found = reconciliation.reconcile(cast.accountant.actor)
        assert [(row["id"], row["problem"]) for row in found["missing"]] == [(payment, "other_amounts")]

    def test_a_payment_whose_entry_was_taken_back_is_missing(self, cast: Cast) -> None:
        payment, actor = id_of(paid(cast, posted(cast))), cast.accountant.actor
        post_everything()
        entry = ledger.entries_listed(actor, after=None, limit=1, source_type="payment", source_id=payment)[0]
        ledger.reverse(actor, entry["id"], booked_on=None, memo=None)
        found = reconciliation.reconcile(actor)
        assert [(row["id"], row["problem"]) for row in found["missing"]] == [(payment, "reversed")]

    @pytest.mark.parametrize(
        ("source", "event"), [("payment", "failed"), ("refund", "settled"), ("refund", "lost"), ("dispute", "won")]
    )
    def test_an_entry_of_what_did_not_happen_is_unexpected(self, cast: Cast, source: str, event: str) -> None:
        payment = card_payment(posted(cast), status="captured")
        refund = insert("refund", status="requested", payment_id=payment, amount=70, needs_approval=True,
                        requested_by=cast.agent.user_id)  # fmt: skip
        db.execute_sql("UPDATE payment SET refunded_amount = 70")
        facts = {"payment": payment, "refund": refund, "dispute": dispute(payment)}
        post_everything()
        lines = (("1000", "debit", 5), ("1100", "credit", 5))
        made_up = entry_by_hand(*lines, source_type=source, source_id=facts[source], event=event)
        found = reconciliation.reconcile(cast.accountant.actor)
        assert [row["entry_id"] for row in found["unexpected"]] == [made_up]

    @pytest.mark.parametrize(
        ("sql", "claim"),
        [
            ("UPDATE invoice SET settled_amount = settled_amount - 1, status = 'open'", "every invoice is settled by"),
            ("UPDATE invoice SET pending_amount = 1, settled_amount = 5, status = 'open'", "every invoice is settled by"),
            ("UPDATE payment SET refunded_amount = 69", "every payment is refunded by"),
            ("UPDATE refund SET amount = 71", "every payment is refunded by"),
            ("UPDATE payment SET amount = amount - 1", "every fact has its entry"),
            ("UPDATE refund SET status = 'sent', settled_at = NULL", "every entry has its fact"),
            ("DELETE FROM journal_line; DELETE FROM journal_entry", "every fact has its entry"),
        ],
    )
    def test_whatever_is_tampered_with_is_found(
        self, app: Flask, cast: Cast, databases: Databases, sql: str, claim: str
    ) -> None:
        given_back(cast, paid(cast, posted(cast)), amount=70)
        post_everything()
        assert reconciliation.prove().holds
        behind_the_guards(databases, sql)
        result = app.test_cli_runner().invoke(args=["ledger", "prove"])
        assert result.exit_code == 1, result.output
        assert next(line for line in result.output.splitlines() if line.startswith(claim)).endswith("wrong")
