from uuid import uuid4

import pytest

from tests.books import SCRATCH, issued
from tests.cast import Cast
from tests.money import give_back, given_back, paid

LIMIT = 50_000


def dear(cast: Cast) -> str:
    """A payment over 110 000."""
    return paid(cast, issued(cast, *[SCRATCH] * 11), method="bank_transfer")


def test_a_payment_is_given_back_the_way_it_came(cast: Cast) -> None:
    payment = paid(cast, issued(cast))
    answer = give_back(cast.agent, payment, reason="Air conditioning broken")
    assert answer.status_code == 201, answer.json
    shown = cast.agent.get(answer.headers["Location"])
    assert shown.json == answer.json
    told = {name: shown.json[name] for name in ("status", "amount", "currency", "method", "needs_approval", "reason")}
    assert told == {
        "status": "settled", "amount": 11_070, "currency": "EUR", "method": "cash", "needs_approval": False,
        "reason": "Air conditioning broken",
    }  # fmt: skip
    after = cast.agent.get(payment).json
    assert (after["status"], after["refunded_amount"], after["refundable_amount"]) == ("captured", 11_070, 0)


def test_a_payment_is_given_back_in_parts_and_never_more(cast: Cast) -> None:
    payment = paid(cast, issued(cast))
    given_back(cast, payment, amount=70)
    given_back(cast, payment, amount=1000, currency="EUR")
    refused = give_back(cast.agent, payment, amount=10_001)
    assert (refused.status_code, refused.json["code"], refused.json["refundable_amount"]) == (
        409, "refund_exceeds_payment", 10_000,
    )  # fmt: skip
    given_back(cast, payment)
    assert give_back(cast.agent, payment).json["code"] == "refund_exceeds_payment"
    amounts = [row["amount"] for row in cast.ana.get(f"{payment}/refunds").json["data"]]
    assert amounts == [10_000, 1000, 70]


def test_the_same_request_with_the_same_key_gives_back_once(cast: Cast) -> None:
    payment = paid(cast, issued(cast))
    first, again = (cast.agent.post(f"{payment}/refunds", {"amount": 5}, key="k") for _ in range(2))
    assert (first.status_code, again.data) == (201, first.data)
    assert cast.agent.get(payment).json["refunded_amount"] == 5
    assert cast.agent.post(f"{payment}/refunds", {"amount": 5}).json["code"] == "idempotency_key_required"


class TestTheSecondPerson:
    def test_a_refund_above_the_limit_waits_for_one(self, cast: Cast) -> None:
        refund = given_back(cast, dear(cast), amount=LIMIT + 1)
        waiting = cast.agent.get(refund).json
        assert (waiting["status"], waiting["needs_approval"], waiting["approved_at"]) == ("requested", True, None)
        approved = cast.manager.post(f"{refund}/approve")
        assert (approved.status_code, approved.json["status"]) == (200, "settled")

    def test_one_at_the_limit_does_not(self, cast: Cast) -> None:
        assert cast.agent.get(given_back(cast, dear(cast), amount=LIMIT)).json["status"] == "settled"

    def test_the_limit_is_not_passed_in_small_steps(self, cast: Cast) -> None:
        payment = dear(cast)
        given_back(cast, payment, amount=LIMIT)
        assert cast.agent.get(given_back(cast, payment, amount=1)).json["status"] == "requested"

    def test_who_asked_for_it_may_not_approve_it(self, cast: Cast) -> None:
        refund = give_back(cast.accountant, dear(cast), amount=LIMIT + 1).headers["Location"]
        refused = cast.accountant.post(f"{refund}/approve")
        assert (refused.status_code, refused.json["code"]) == (403, "second_person_required")
        assert cast.admin.post(f"{refund}/approve").status_code == 200

    def test_it_takes_the_permission(self, cast: Cast) -> None:
        refund = given_back(cast, dear(cast), amount=LIMIT + 1)
        assert cast.agent.post(f"{refund}/approve").status_code == 403

    def test_it_is_approved_once_and_in_the_version_that_was_read(self, cast: Cast) -> None:
        refund = given_back(cast, dear(cast), amount=LIMIT + 1)
        assert cast.manager.post(f"{refund}/approve", version="9").status_code == 412
        assert cast.manager.post(f"{refund}/approve", version="1").status_code == 200
        again = cast.manager.post(f"{refund}/approve")
        assert (again.status_code, again.json["code"]) == (409, "invalid_state")

    def test_what_waits_is_kept_from_other_refunds(self, cast: Cast) -> None:
        payment = dear(cast)
        given_back(cast, payment, amount=LIMIT + 1)
        refused = give_back(cast.agent, payment, amount=LIMIT * 2)
        assert refused.json["refundable_amount"] == cast.agent.get(payment).json["amount"] - LIMIT - 1


@pytest.mark.parametrize(
    "body", [{"amount": 0}, {"amount": -5}, {"amount": 1.5}, {"status": "settled"}, {"reason": "4242424242424242"}]
)
def test_what_is_no_refund_is_refused(cast: Cast, body: dict[str, object]) -> None:
    assert give_back(cast.agent, paid(cast, issued(cast)), **body).status_code == 422


def test_a_refund_is_in_the_currency_of_its_payment(cast: Cast) -> None:
    refused = give_back(cast.agent, paid(cast, issued(cast)), amount=5, currency="USD")
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "currency")


def test_customers_see_their_refunds_and_ask_for_none(cast: Cast) -> None:
    payment = paid(cast, issued(cast))
    refund = given_back(cast, payment)
    assert cast.ana.get(refund).status_code == 200
    assert cast.ben.get(refund).status_code == cast.ben.get(f"/v1/refunds/{uuid4()}").status_code == 404
    assert give_back(cast.ana, payment).status_code == 403
    assert give_back(cast.agent, f"/v1/payments/{uuid4()}").status_code == 404
