"""The checker complains of what others saw: gaps in the stream, webhooks that never came, cards that were charged twice."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from tests.faults import money_checker, stream_checker
from tests.faults.checker import check
from tests.faults.evidence import Evidence, Heard, Reading, Sql
from tests.faults.history import Exchange
from tests.stripe_server import Stripe

RESERVED = Exchange("drill", "drill/1", "reserve", "/v1/rentals", "key-1", {}, 10.0, 0.1, 201, None, '{"id": "r1"}')
LATER = replace(RESERVED, key="key-2", sent_at=20.0, answer='{"id": "r2"}')
TOLD, STREAM, DELIVERED = (stream_checker._TOLD_OF_RENTALS, stream_checker._STREAM, stream_checker._DELIVERED)
PAYMENTS, PAID, REFUNDS = (money_checker._PAYMENTS, money_checker._PAID_INVOICES, money_checker._REFUNDS)
FIRST_TWO = [("r1", "rental.reserved", 1, 1, 1), ("r2", "rental.reserved", 1, 1, 2)]


def answering(answers: dict[str, list[tuple[Any, ...]]]) -> Sql:
    """A database that answers these statements so, and all others with nothing."""
    return lambda statement, values=None: answers.get(statement, [])


def of_stream(*exchanges: Exchange, told: list[Any], readings: tuple[Reading, ...] = ()) -> set[str]:
    evidence = Evidence(exchanges, answering({TOLD: told, STREAM: [(1, "e1"), (2, "e2"), (3, "e3")]}), readings=readings)
    return {f"{finding}" for judge in stream_checker.STREAM_JUDGES for finding in judge(evidence)}


class TestStream:
    def test_a_sound_one_is_let_pass(self) -> None:
        reading = Reading("reader", 0, [(1, "e1"), (2, "e2"), (3, "e3")])
        assert of_stream(RESERVED, LATER, told=FIRST_TWO, readings=(reading,)) == set()

    @pytest.mark.parametrize(
        ("counts", "finding"),
        [
            (None, "lost: 0 × rental.reserved for key key-1"),
            ((2, 2, 1), "duplicated: 2 × rental.reserved for key key-1"),
            ((1, 0, None), "lost: rental.reserved for key key-1 has no place in the stream"),
        ],
    )
    def test_a_fact_that_is_not_told_once(self, counts: tuple[Any, ...] | None, finding: str) -> None:
        assert of_stream(RESERVED, told=[("r1", "rental.reserved", *counts)] if counts else []) == {finding}

    @pytest.mark.parametrize(
        ("read", "findings"),
        [
            ([(1, "e1"), (3, "e3")], {"lost: reader read event 3 and not 2"}),
            ([(1, "e1"), (1, "e1"), (2, "e2")], {"duplicated: reader read event 1 and not 2"}),
            ([(1, "e9")], {"wrong: reader read e9 at 1, where the stream has another event"}),
        ],
    )
    def test_what_a_reader_missed_or_got_twice(self, read: list[tuple[int, str]], findings: set[str]) -> None:
        assert of_stream(RESERVED, told=FIRST_TWO, readings=(Reading("reader", 0, read),)) == findings

    def test_places_with_a_gap(self) -> None:
        evidence = Evidence([RESERVED], answering({STREAM: [(1, "e1"), (3, "e3")]}))
        assert "wrong: the stream has 2 events and ends at 3" in {f"{finding}" for finding in check(evidence)}

    def test_what_was_over_first_and_stands_second(self) -> None:
        swapped = [("r1", "rental.reserved", 1, 1, 2), ("r2", "rental.reserved", 1, 1, 1)]
        assert of_stream(RESERVED, LATER, told=swapped) == {
            "wrong: event 2 of key key-1 was over before that of key-2 began, and comes after it"
        }
        at_once = replace(LATER, sent_at=10.05)
        assert of_stream(RESERVED, at_once, told=swapped) == set()


class TestWebhooks:
    def findings(self, row: tuple[Any, ...], *, asked: int, taken: int, mistaken: bool = False) -> set[str]:
        heard = Heard("endpoint", 0, None, Counter(e1=asked), Counter(e1=taken), ["e1"] if mistaken else [])
        evidence = Evidence([], answering({DELIVERED: [row] if row else []}), hooks=[heard])
        return {f"{finding}" for finding in check(evidence)}

    def test_one_that_came_at_the_third_attempt_is_let_pass(self) -> None:
        assert self.findings(("e1", "delivered", 3, 204), asked=3, taken=1) == set()

    @pytest.mark.parametrize(
        ("row", "asked", "taken", "finding"),
        [
            (("e1", None, None, None), 0, 0, "lost: event e1 was never queued for the endpoint that listened"),
            (("e1", "retrying", 1, 500), 1, 0, "lost: the delivery of event e1 is retrying"),
            (("e1", "delivered", 1, 204), 1, 0, "lost: event e1 counts as delivered and never arrived"),
            (("e1", "delivered", 1, 500), 1, 1, "wrong: event e1 counts as delivered on the answer 500"),
            (("e1", "delivered", 1, 204), 2, 2, "wrong: event e1 arrived 2 times in 1 attempts"),
            ((), 1, 1, "wrong: the receiver got e1, which was not for it"),
        ],
    )
    def test_one_whose_log_and_receiver_do_not_agree(self, row: tuple[Any, ...], asked: int, taken: int, finding: str) -> None:
        assert finding in self.findings(row, asked=asked, taken=taken)

    def test_one_under_the_id_of_another(self) -> None:
        found = self.findings(("e1", "delivered", 1, 204), asked=1, taken=1, mistaken=True)
        assert found == {"wrong: the receiver got e1 with the body of another event"}


def gateway(charges: int = 1, given_back: int = 0, amount: int = 100) -> Stripe:
    made = Stripe()
    for number in range(charges):
        intent = {"status": "succeeded", "amount_received": amount, "metadata": {"payment_id": "p1"}}
        made.intents[f"pi_{number}"] = intent
    for number in range(given_back):
        made.refunds[f"re_{number}"] = {"status": "succeeded", "amount": amount // 2, "metadata": {"refund_id": "f1"}}
    return made


PAY = replace(RESERVED, operation="pay", path="/v1/payments", sent={"invoice_id": "i1"}, answer='{"id": "p1"}')
GIVE_BACK = replace(RESERVED, operation="refund", path="/v1/payments/p1/refunds", key="key-3", answer='{"id": "f1"}')
CAPTURED, SETTLED = ("p1", "captured", 100, 1), ("f1", "settled", 50, 2, "p1")


class TestMoney:
    def findings(self, cards: Stripe, payment: Any = CAPTURED, refunds: Any = (), *, paid: int = 1) -> set[str]:
        answers = {PAYMENTS: [payment] if payment else [], PAID: [("i1",)] * paid, REFUNDS: list(refunds)}
        asked = [PAY, *([GIVE_BACK] if refunds else [])]
        evidence = Evidence(asked, answering(answers), cards=cards)
        return {f"{finding}" for judge in money_checker.MONEY_JUDGES for finding in judge(evidence)}

    def test_what_was_charged_once_and_given_back_once_is_let_pass(self) -> None:
        assert self.findings(gateway(given_back=1), refunds=[SETTLED]) == set()

    @pytest.mark.parametrize(
        ("charges", "payment", "finding"),
        [
            (2, CAPTURED, "duplicated: payment p1 was charged 2 times"),
            (1, ("p1", "failed", 100, 0), "lost: payment p1 was charged and is failed"),
            (1, None, "lost: payment p1 was charged and is nowhere"),
            (1, ("p1", "captured", 90, 1), "wrong: payment p1 was charged with another amount"),
            (0, CAPTURED, "wrong: payment p1 is captured and nothing was charged"),
            (0, ("p1", "pending", 100, 0), "lost: payment p1 is still pending"),
            (1, ("p1", "captured", 100, 0), "lost: 0 ledger entries for payment p1"),
            (1, ("p1", "captured", 100, 2), "duplicated: 2 ledger entries for payment p1"),
            (1, ("p2", "captured", 100, 1), "lost: the payment of key key-1 was acknowledged and is not captured"),
        ],
    )
    def test_a_charge_that_we_and_the_gateway_do_not_agree_on(self, charges: int, payment: Any, finding: str) -> None:
        assert finding in self.findings(gateway(charges), payment)

    def test_two_payments_of_what_was_paid_once(self) -> None:
        assert self.findings(gateway(), paid=2) == {"duplicated: 2 captured payments for key key-1"}

    @pytest.mark.parametrize(
        ("given_back", "refund", "finding"),
        [
            (2, SETTLED, "duplicated: refund f1 was given back 2 times"),
            (0, SETTLED, "lost: refund f1 is settled, and the gateway gave back 0 times"),
            (1, ("f1", "sent", 50, 1, "p1"), "lost: refund f1 is sent, and the gateway gave back 1 times"),
            (1, ("f1", "settled", 40, 2, "p1"), "wrong: refund f1 gave back another amount"),
            (1, ("f1", "settled", 50, 1, "p1"), "lost: 1 ledger entries for refund f1"),
            (0, ("f2", "settled", 50, 2, "p1"), "lost: the refund of key key-3 was acknowledged and does not exist"),
        ],
    )
    def test_a_refund_that_we_and_the_gateway_do_not_agree_on(self, given_back: int, refund: Any, finding: str) -> None:
        assert finding in self.findings(gateway(given_back=given_back), refunds=[refund])

    def test_two_refunds_of_what_was_asked_for_once(self) -> None:
        two = [SETTLED, ("f2", "settled", 50, 2, "p1")]
        assert "duplicated: 2 refunds for key key-3" in self.findings(gateway(given_back=1), refunds=two)
