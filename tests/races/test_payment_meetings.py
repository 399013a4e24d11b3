"""Two who pay one invoice, or give one payment back, meet at the point where a missing lock would lose or invent money."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from fleet import clock
from fleet.db import db
from fleet.gateways.cards import Charge, Outcome, RefundOrder, RefundOutcome
from fleet.models.base import Versioned
from fleet.models.payments import CLAIM_PENDING, CLAIM_SENT_REFUNDS
from fleet.services import card_payments, card_refunds, reconciliation
from tests.books import SCRATCH, issued
from tests.cast import Cast, insert
from tests.money import card_payment, give_back, paid, pay, post_everything, standing
from tests.races.meeting import Meeting, in_one_transaction
from tests.races.mutation import without
from tests.races.scenes import count
from tests.races.together import together


def paying(cast: Cast, invoice: Any, amount: int | None = None) -> Callable[[], Any]:
    return lambda: pay(cast.agent, invoice, amount)


def giving_back(cast: Cast, payment: str, amount: int) -> Callable[[], Any]:
    return lambda: give_back(cast.agent, payment, amount=amount)


def refunded(payment: str) -> int:
    return int(db.rows("SELECT refunded_amount FROM payment WHERE id = %s", (payment.rpartition("/")[2],))[0][0])


def test_of_two_payments_of_the_last_balance_one_counts(cast: Cast, meet: Meeting) -> None:
    invoice = issued(cast)
    one, other = meet(paying(cast, invoice), paying(cast, invoice))
    assert (one.said, other.said) == ((201, None), (409, "overpayment"))
    assert (standing(invoice), count("payment")) == (("paid", 11_070, 0), 1)


def test_of_two_payments_in_part_at_once_both_count(cast: Cast, meet: Meeting) -> None:
    invoice = issued(cast)
    one, other = meet(paying(cast, invoice, 5000), paying(cast, invoice, 6070))
    assert (one.said, other.said) == ((201, None), (201, None)), "a payment was turned away"
    assert standing(invoice) == ("paid", 11_070, 0)


def test_a_payment_finds_the_invoice_that_is_being_written_off_closed(cast: Cast, meet: Meeting) -> None:
    invoice = issued(cast)

    def write_off() -> None:
        db.execute_sql("UPDATE invoice SET status = 'written_off' WHERE id = %s", (invoice.id,))

    one, other = meet(paying(cast, invoice), write_off)
    assert (one.said, standing(invoice)[0]) == ((201, None), "paid")
    assert other.error is not None  # a paid invoice is not written off


def test_of_two_refunds_of_what_is_left_one_goes(cast: Cast, meet: Meeting) -> None:
    payment = paid(cast, issued(cast))
    one, other = meet(giving_back(cast, payment, 11_070), giving_back(cast, payment, 11_070))
    assert (one.said, other.said) == ((201, None), (409, "refund_exceeds_payment"))
    assert (refunded(payment), count("refund")) == (11_070, 1)


def test_of_two_refunds_in_part_at_once_both_count(cast: Cast, meet: Meeting) -> None:
    payment = paid(cast, issued(cast))
    one, other = meet(giving_back(cast, payment, 5000), giving_back(cast, payment, 6070))
    assert (one.said, other.said) == ((201, None), (201, None)), "a refund was turned away"
    assert refunded(payment) == 11_070


def test_a_refund_is_approved_once(cast: Cast, meet: Meeting) -> None:
    payment = paid(cast, issued(cast, *[SCRATCH] * 6))
    refund = give_back(cast.agent, payment).headers["Location"]
    approving = lambda: cast.manager.post(f"{refund}/approve")  # noqa: E731 - a call to be made twice
    one, other = meet(approving, approving)
    assert (one.said, other.said) == ((200, None), (409, "invalid_state"))


@pytest.mark.parametrize("first", ["approve", "reject"])
def test_of_an_approval_and_a_rejection_at_once_the_first_decides(cast: Cast, meet: Meeting, first: str) -> None:
    payment = paid(cast, issued(cast, *[SCRATCH] * 6))
    refund = give_back(cast.agent, payment).headers["Location"]
    calls = {
        "approve": lambda: cast.manager.post(f"{refund}/approve"),
        "reject": lambda: cast.accountant.post(f"{refund}/reject", {"reason": "No"}),
    }
    one, other = meet(calls.pop(first), *calls.values())
    assert (one.said, other.said) == ((200, None), (409, "invalid_state")), "decided twice"
    assert refunded(payment) == (60_000 if first == "approve" else 0)
    post_everything()
    assert [check.claim for check in reconciliation.prove().checks if check.wrong] == ["every fact has its entry"]


@pytest.mark.mutation
def test_without_the_lock_the_second_would_not_find_it_decided(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without(monkeypatch, "payment_for_update"), pytest.raises(AssertionError, match="decided twice"):
        test_of_an_approval_and_a_rejection_at_once_the_first_decides(cast, meet, "reject")


class Oblivious:
    """A gateway that knows of nothing."""

    def find(self, charge: Charge) -> None:
        return None

    def find_refund(self, order: RefundOrder) -> RefundOutcome:
        return RefundOutcome("waiting", order.reference)


GATEWAY: Any = Oblivious()


def test_two_sweeps_share_the_pending_payments(cast: Cast, meet: Meeting) -> None:
    card_payment(issued(cast), attempt_ends_at=clock.now() - timedelta(minutes=1))
    claim = lambda: db.rows(CLAIM_PENDING, {"limit": 5, "attempt_s": 30})  # noqa: E731 - a call to be made twice
    one, other = meet(in_one_transaction(claim), claim)
    assert not other.waited, "waited for the other"
    assert (len(one.result), other.result) == (1, [])


def test_two_sweeps_share_the_refunds_that_were_sent(cast: Cast, meet: Meeting) -> None:
    payment, now = card_payment(issued(cast), status="captured", gateway_reference="pi_1"), clock.now()
    insert(
        "refund", status="sent", payment_id=payment, amount=70, needs_approval=False, requested_by=cast.agent.user_id,
        approved_at=now, sent_at=now, gateway_reference="re_1", attempt_ends_at=now - timedelta(minutes=1),
    )  # fmt: skip
    claim = lambda: db.rows(CLAIM_SENT_REFUNDS, {"limit": 5, "attempt_s": 30})  # noqa: E731 - a call to be made twice
    one, other = meet(in_one_transaction(claim), claim)
    assert not other.waited, "waited for the other"
    assert (len(one.result), other.result) == (1, [])


def test_a_sweep_leaves_a_payment_that_is_being_settled_alone(cast: Cast, meet: Meeting) -> None:
    invoice = issued(cast)
    payment = card_payment(invoice, attempt_ends_at=clock.now() - timedelta(minutes=1))
    captured = Outcome("captured", "pi_1", invoice.total_amount, "EUR")
    one, sweep = meet(lambda: card_payments.settle(payment, captured), lambda: card_payments.settle_pending(GATEWAY))
    assert (one.result.status, sweep.result, sweep.waited) == ("captured", 0, False)


def test_who_learns_the_outcome_at_once_settles_it_once(cast: Cast, meet: Meeting) -> None:
    invoice = issued(cast)
    payment = card_payment(invoice)
    captured = Outcome("captured", "pi_1", invoice.total_amount, "EUR")
    one, other = meet(*[lambda: card_payments.settle(payment, captured)] * 2)
    assert (one.result.status, other.result.status) == ("captured", "captured")
    assert standing(invoice) == ("paid", 11_070, 0)
    assert count("outbox WHERE topic = 'accounting.post_payment'") == 1


def test_who_learns_that_a_refund_is_settled_at_once_tells_the_customer_once(cast: Cast, meet: Meeting) -> None:
    """A worker, the sweep and a webhook settle through one function."""
    payment, now = card_payment(issued(cast), status="captured", gateway_reference="pi_1", refunded_amount=70), clock.now()
    refund = insert(
        "refund", status="sent", payment_id=payment, amount=70, needs_approval=False, requested_by=cast.agent.user_id,
        approved_at=now, sent_at=now,
    )  # fmt: skip
    one, other = meet(*[lambda: card_refunds.settle(refund, RefundOutcome("settled", "re_1"))] * 2)
    assert (one.result.status, other.result.status) == ("settled", "settled")
    assert count("outbox WHERE topic = 'notifications.payment_refunded'") == 1, "told twice"


@pytest.mark.parametrize(
    ("lock", "race"),
    [
        ("invoice_for_update", test_of_two_payments_of_the_last_balance_one_counts),
        ("payment_for_update", test_of_two_refunds_of_what_is_left_one_goes),
    ],
)
def test_the_database_keeps_the_sums_whoever_forgets_to_lock(
    cast: Cast, meet: Meeting, monkeypatch: pytest.MonkeyPatch, lock: str, race: Callable[..., None]
) -> None:
    """Without the lock, and without the version that a change compares, the CHECK alone stands behind it."""
    monkeypatch.setattr(Versioned, "change", blindly)
    with without(monkeypatch, lock):
        race(cast, meet)


def blindly(row: Any, **values: Any) -> None:
    """Add what was added to a counter, as an UPDATE that reads and writes at once would; compare nothing."""
    values.pop("expected_version", None)
    table = row._meta.table_name
    counters = {name: values.pop(name) - getattr(row, name) for name in list(values) if name.endswith("_amount")}
    sets = [f"{name} = {name} + %s" for name in counters] + [f"{name} = %s" for name in values]
    db.execute_sql(f"UPDATE {table} SET {', '.join(sets)} WHERE id = %s", (*counters.values(), *values.values(), row.id))


def test_of_a_crowd_that_pays_nobody_pays_too_much(cast: Cast) -> None:
    invoice = issued(cast)
    answers = together(12, lambda number: pay(cast.agent, invoice, 2000).status_code)
    assert sorted(answers) == [201] * 5 + [409] * 7
    assert standing(invoice) == ("open", 10_000, 0)
    payment = cast.agent.get("/v1/payments?limit=1").json["data"][0]["id"]
    gone = together(12, lambda number: give_back(cast.agent, f"/v1/payments/{payment}", amount=500).status_code)
    assert sorted(gone) == [201] * 4 + [409] * 8
    post_everything()
    assert [check.claim for check in reconciliation.prove().checks if check.wrong] == ["every fact has its entry"]
