from typing import Any
from uuid import uuid4

import pytest

from fleet.db import db
from tests.books import SCRATCH, issued
from tests.cast import Cast, Person
from tests.money import card_payment, give_back, given_back, id_of, paid

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


class TestRejecting:
    def test_what_is_rejected_can_be_given_back_again(self, cast: Cast) -> None:
        payment = dear(cast)
        refund = given_back(cast, payment, amount=LIMIT + 1)
        answer = cast.manager.post(f"{refund}/reject", {"reason": "Not agreed with Ana"})
        assert answer.status_code == 200, answer.json
        assert (answer.json["status"], answer.json["rejection_reason"]) == ("rejected", "Not agreed with Ana")
        assert answer.json["rejected_at"] and cast.agent.get(refund).json == answer.json
        assert cast.agent.get(payment).json["refundable_amount"] == cast.agent.get(payment).json["amount"]
        again = give_back(cast.agent, payment)
        assert (again.status_code, again.json["status"]) == (201, "requested")

    def test_it_is_an_end(self, cast: Cast) -> None:
        refund = given_back(cast, dear(cast), amount=LIMIT + 1)
        assert cast.manager.post(f"{refund}/reject", {"reason": "No"}, version="9").status_code == 412
        assert cast.manager.post(f"{refund}/reject", {"reason": "No"}, version="1").status_code == 200
        for call, body in (("approve", None), ("reject", {"reason": "No"})):
            late = cast.admin.post(f"{refund}/{call}", body)
            assert (late.status_code, late.json["code"]) == (409, "invalid_state")

    def test_what_has_gone_is_not_rejected(self, cast: Cast) -> None:
        late = cast.manager.post(f"{given_back(cast, dear(cast), amount=5)}/reject", {"reason": "No"})
        assert (late.status_code, late.json["code"]) == (409, "invalid_state")

    def test_the_refund_of_a_payment_that_the_bank_took_back_can_only_be_rejected(self, cast: Cast) -> None:
        payment = card_payment(issued(cast, *[SCRATCH] * 6), status="captured")
        refund = given_back(cast, f"/v1/payments/{payment}")
        db.execute_sql("UPDATE payment SET status = 'disputed'")
        assert cast.manager.post(f"{refund}/approve").json["code"] == "invalid_state"
        assert cast.manager.post(f"{refund}/reject", {"reason": "Disputed"}).status_code == 200

    def test_it_takes_the_permission_and_a_reason_and_may_be_who_asked_for_it(self, cast: Cast) -> None:
        refund = give_back(cast.accountant, dear(cast), amount=LIMIT + 1).headers["Location"]
        assert cast.agent.post(f"{refund}/reject", {"reason": "No"}).status_code == 403
        for body in ({}, {"reason": ""}, {"reason": "4242424242424242"}, {"reason": "x" * 201}):
            assert cast.manager.post(f"{refund}/reject", body).status_code == 422
        assert cast.accountant.post(f"{refund}/reject", {"reason": "My mistake"}).status_code == 200

    def test_nobody_is_written_to_and_nothing_is_told(self, cast: Cast) -> None:
        refund = given_back(cast, dear(cast), amount=LIMIT + 1)
        cast.manager.post(f"{refund}/reject", {"reason": "No"})
        topics = [topic for (topic,) in db.rows("SELECT topic FROM outbox WHERE aggregate_id = %s", (id_of(refund),))]
        assert sorted(topics) == ["accounting.post_refund", "accounting.post_rejection"]
        assert db.rows("SELECT 1 FROM event WHERE type = 'payment.refunded'") == []


class TestAudit:
    def decided(self, cast: Cast, action: str) -> list[dict[str, Any]]:
        return list(cast.admin.get(f"/admin/audit-events?action=refunds.{action}").json["data"])

    @pytest.mark.parametrize(("call", "status"), [("approve", "approved"), ("reject", "rejected")])
    def test_who_decided_about_a_refund_is_noted_once(self, cast: Cast, call: str, status: str) -> None:
        payment = dear(cast)
        refund = given_back(cast, payment, amount=LIMIT + 1)
        body = {"reason": "See mail of ana@example.com"} if call == "reject" else None
        for _ in range(2):
            cast.manager.post(f"{refund}/{call}", body)
        [found] = self.decided(cast, call)
        assert (found["actor"], found["object_type"], found["object_id"]) == (
            f"user:{cast.manager.user_id}", "refund", f"{id_of(refund)}",
        )  # fmt: skip
        assert found["before"] == {"status": "requested"}
        reason = {"reason": "See mail of ***"} if call == "reject" else {}
        assert found["after"] == {"status": status, "payment_id": f"{id_of(payment)}", "amount": LIMIT + 1, **reason}

    def test_what_approves_itself_and_what_is_refused_is_not(self, cast: Cast) -> None:
        given_back(cast, dear(cast), amount=5)
        refund = give_back(cast.accountant, dear(cast), amount=LIMIT + 1).headers["Location"]
        assert cast.accountant.post(f"{refund}/approve").status_code == 403
        assert self.decided(cast, "approve") == self.decided(cast, "reject") == []


@pytest.mark.parametrize(
    "body", [{"amount": 0}, {"amount": -5}, {"amount": 1.5}, {"status": "settled"}, {"reason": "4242424242424242"}]
)
def test_what_is_no_refund_is_refused(cast: Cast, body: dict[str, object]) -> None:
    assert give_back(cast.agent, paid(cast, issued(cast)), **body).status_code == 422


def test_a_refund_is_in_the_currency_of_its_payment(cast: Cast) -> None:
    refused = give_back(cast.agent, paid(cast, issued(cast)), amount=5, currency="USD")
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "currency")


def test_refunds_are_listed_by_what_they_wait_for_and_whose_they_are(cast: Cast) -> None:
    waiting = given_back(cast, dear(cast), amount=LIMIT + 1)
    gone = given_back(cast, paid(cast, issued(cast)), amount=5, reason="Cross")

    def found(person: Person, query: str = "") -> list[str]:
        return [f"/v1/refunds/{row['id']}" for row in person.get(f"/v1/refunds{query}").json["data"]]

    assert found(cast.manager) == found(cast.ana) == [gone, waiting]
    assert found(cast.manager, "?status=requested") == [waiting]
    assert found(cast.manager, f"?customer_id={cast.ana.customer_id}&status=settled") == [gone]
    assert found(cast.manager, f"?customer_id={cast.ben.customer_id}") == found(cast.ben) == []
    assert found(cast.ben, f"?customer_id={cast.ana.customer_id}") == []
    assert [row["reason"] for row in cast.ana.get("/v1/refunds").json["data"]] == [None, None]
    first = cast.manager.get("/v1/refunds?limit=1").json
    assert found(cast.manager, f"?limit=1&cursor={first['next_cursor']}") == [waiting]
    assert cast.manager.get("/v1/refunds?status=lost").status_code == 422


def test_customers_see_their_refunds_and_ask_for_none(cast: Cast) -> None:
    payment = paid(cast, issued(cast))
    refund = given_back(cast, payment, reason="She was cross")
    assert cast.agent.get(refund).json["reason"] == "She was cross"
    assert (cast.ana.get(refund).status_code, cast.ana.get(refund).json["reason"]) == (200, None)
    assert [row["reason"] for row in cast.ana.get(f"{payment}/refunds").json["data"]] == [None]
    assert cast.ben.get(refund).status_code == cast.ben.get(f"/v1/refunds/{uuid4()}").status_code == 404
    assert give_back(cast.ana, payment).status_code == 403
    assert give_back(cast.agent, f"/v1/payments/{uuid4()}").status_code == 404
