from uuid import uuid4

import pytest

from fleet.db import db
from tests.books import draft, issued
from tests.cast import Cast
from tests.money import given_back, paid, pay, standing, wish

UNKNOWN = "01a2175a-3166-71f2-8520-7980a10af0f7"


def test_an_invoice_that_is_paid_in_full_is_paid(cast: Cast) -> None:
    invoice = issued(cast)
    answer = pay(cast.agent, invoice, reference="Till 3")
    assert answer.status_code == 201, answer.json
    shown = cast.agent.get(answer.headers["Location"])
    assert {**shown.json, "client_secret": None} == answer.json
    assert shown.headers["ETag"] == answer.headers["ETag"] == '"1"'
    assert {name: shown.json[name] for name in ("status", "amount", "currency", "method", "reference", "invoice_id")} == {
        "status": "captured",
        "amount": 11_070,
        "currency": "EUR",
        "method": "cash",
        "reference": "Till 3",
        "invoice_id": f"{invoice.id}",
    }
    assert shown.json["captured_at"] is not None
    assert standing(invoice) == ("paid", 11_070, 0)
    seen = cast.ana.get(f"/v1/invoices/{invoice.id}").json
    assert (seen["status"], seen["balance_amount"], seen["pending_amount"]) == ("paid", 0, 0)


def test_an_invoice_is_paid_when_the_last_part_has_come(cast: Cast) -> None:
    invoice = issued(cast)
    paid(cast, invoice, 11_000)
    assert standing(invoice) == ("open", 11_000, 0)
    paid(cast, invoice, 70, "bank_transfer")
    assert standing(invoice) == ("paid", 11_070, 0)


@pytest.mark.parametrize("before", [0, 70, 11_070])
def test_more_than_is_left_is_refused_and_says_how_much_that_is(cast: Cast, before: int) -> None:
    invoice = issued(cast)
    if before:
        paid(cast, invoice, before)
    refused = pay(cast.agent, invoice, 11_071 - before)
    assert (refused.status_code, refused.json["code"]) == (409, "overpayment")
    assert refused.json["balance_amount"] == 11_070 - before
    assert standing(invoice)[1] == before
    assert db.one("SELECT count(*) FROM payment") == (1 if before else 0,)


def test_a_payment_and_the_promise_of_its_entry_are_one(cast: Cast) -> None:
    payment = paid(cast, issued(cast)).rpartition("/")[2]
    found = db.rows("SELECT aggregate_type, aggregate_id::text FROM outbox WHERE topic = 'accounting.post_payment'")
    assert found == [("payment", payment)]


def test_what_came_and_went_is_told_in_the_stream_of_events_without_anybodys_words(cast: Cast) -> None:
    payment = pay(cast.agent, issued(cast), reference="From Ana").json
    refund = given_back(cast, f"/v1/payments/{payment['id']}", amount=70, reason="Ana was cross")
    told = db.rows("SELECT type, aggregate_id::text, data FROM event WHERE type LIKE 'payment.%%' ORDER BY insert_order")
    assert [(type_, about) for type_, about, _ in told] == [
        ("payment.captured", payment["id"]),
        ("payment.refunded", payment["id"]),
    ]
    assert (told[0][2]["amount"], told[0][2]["status"]) == (11_070, "captured")
    assert (told[1][2]["amount"], told[1][2]["id"], told[1][2]["status"]) == (70, refund.rpartition("/")[2], "settled")
    assert "Ana" not in f"{told}"


def test_a_payment_is_in_the_currency_of_its_invoice(cast: Cast) -> None:
    refused = cast.agent.post("/v1/payments", {**wish(issued(cast)), "currency": "USD"}, key="k")
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "currency")


@pytest.mark.parametrize("status", ["draft", "void", "written_off"])
def test_only_an_open_invoice_is_paid(cast: Cast, status: str) -> None:
    invoice = issued(cast)
    invoice_id = f"{invoice.id}"
    if status == "draft":
        invoice_id = f"{draft(cast)}"
    else:
        credited = ", credited_amount = total_amount" if status == "void" else ""
        db.execute_sql(f"UPDATE invoice SET status = '{status}'{credited}")
    refused = cast.agent.post("/v1/payments", {**wish(invoice), "invoice_id": invoice_id}, key="k")
    assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")


def test_the_same_request_with_the_same_key_pays_once(cast: Cast) -> None:
    invoice = issued(cast)
    first, again = (cast.agent.post("/v1/payments", wish(invoice, 70), key="the-one") for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.data, again.headers["Idempotency-Replayed"]) == (first.data, "true")
    assert again.headers["Location"] == first.headers["Location"]
    assert standing(invoice)[1] == 70
    other = cast.agent.post("/v1/payments", wish(invoice, 71), key="the-one")
    assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")


def test_a_refusal_is_kept_under_its_key(cast: Cast) -> None:
    invoice = issued(cast)
    refused = cast.agent.post("/v1/payments", wish(invoice, 11_071), key="k")
    again = cast.agent.post("/v1/payments", wish(invoice, 11_071), key="k")
    assert (refused.status_code, again.headers["Idempotency-Replayed"]) == (409, "true")


def test_a_payment_needs_a_key(cast: Cast) -> None:
    refused = cast.agent.post("/v1/payments", wish(issued(cast)))
    assert (refused.status_code, refused.json["code"]) == (400, "idempotency_key_required")


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0}, {"amount": -1}, {"amount": 10**12 + 1}, {"amount": 1.5}, {"amount": "5"}, {"currency": "EURO"},
        {"method": "cheque"}, {"invoice_id": "1"}, {"status": "captured"}, {"refunded_amount": 0}, {"reference": ""},
        {"reference": "4242 4242 4242 4242"}, {"reference": "card 4242-4242-4242-4242 exp 12/30"},
    ],
)  # fmt: skip
def test_what_is_no_payment_is_refused(cast: Cast, change: dict[str, object]) -> None:
    refused = cast.agent.post("/v1/payments", {**wish(issued(cast)), **change}, key="k")
    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"] == next(iter(change))
    assert "4242" not in refused.text


def test_without_a_gateway_cards_are_refused_in_clear_words(cast: Cast) -> None:
    invoice = issued(cast)
    refused = pay(cast.ana, invoice, method="card")
    assert (refused.status_code, refused.json["code"]) == (422, "card_payments_disabled")
    assert standing(invoice) == ("open", 0, 0)


def test_customers_do_not_note_that_they_have_paid(cast: Cast) -> None:
    refused = pay(cast.ana, issued(cast))
    assert (refused.status_code, refused.json["code"]) == (403, "forbidden")


def test_an_unknown_invoice_is_not_there_to_be_paid(cast: Cast) -> None:
    anas = issued(cast)
    assert cast.agent.post("/v1/payments", {**wish(anas), "invoice_id": UNKNOWN}, key="k").status_code == 404


def test_customers_see_their_own_payments_and_no_others(cast: Cast) -> None:
    anas, bens = paid(cast, issued(cast)), paid(cast, issued(cast, renter=cast.ben))
    assert [row["id"] for row in cast.ana.get("/v1/payments").json["data"]] == [anas.rpartition("/")[2]]
    assert cast.ana.get(f"/v1/payments?customer_id={cast.ben.customer_id}").json["data"] == []
    assert cast.ana.get(anas).status_code == 200
    foreign, unknown = cast.ana.get(bens), cast.ana.get(f"/v1/payments/{uuid4()}")
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.json["detail"] == unknown.json["detail"]
    assert cast.ana.get(f"{bens}/refunds").status_code == 404
    assert cast.person("customer").get("/v1/payments").json["data"] == []
    assert cast.mechanic.get("/v1/payments").status_code == 403


def test_payments_are_listed_newest_first_and_can_be_narrowed_down(cast: Cast) -> None:
    invoice, other = issued(cast), issued(cast, renter=cast.ben)
    first, second, third = paid(cast, invoice, 1), paid(cast, invoice, 2, "wallet"), paid(cast, other, 3)

    def found(query: str) -> list[int]:
        return [row["amount"] for row in cast.accountant.get(f"/v1/payments?{query}").json["data"]]

    assert found("") == [3, 2, 1]
    assert found(f"invoice_id={invoice.id}") == [2, 1]
    assert found(f"customer_id={cast.ben.customer_id}") == [3]
    assert found("method=wallet") == [2]
    assert found("status=captured&limit=1") == [3]
    assert found("status=failed") == []
    assert len({first, second, third}) == 3


def test_a_list_and_a_single_read_take_one_statement(cast: Cast, statements: list[str]) -> None:
    payment = paid(cast, issued(cast))
    cast.agent.known()
    for path in ("/v1/payments", payment):
        statements.clear()
        assert cast.agent.get(path).status_code == 200
        assert len(statements) == 1


def test_the_export_of_a_person_holds_their_payments(cast: Cast) -> None:
    payment = paid(cast, issued(cast))
    paid(cast, issued(cast, renter=cast.ben))
    exported = cast.ana.get(f"/v1/customers/{cast.ana.customer_id}/export").json
    assert [row["id"] for row in exported["payments"]] == [payment.rpartition("/")[2]]
