from uuid import uuid4

import pytest

from tests.books import DAYS, LATE, SCRATCH, issued, rental_to_bill
from tests.cast import Cast


def test_an_invoice_is_shown_with_its_lines(cast: Cast) -> None:
    invoice = issued(cast, DAYS, SCRATCH)
    shown = cast.agent.get(f"/v1/invoices/{invoice.id}")
    assert (shown.status_code, shown.headers["ETag"]) == (200, '"1"')
    assert shown.json["number"] == "INV-000001"
    assert (shown.json["status"], shown.json["overdue"]) == ("open", False)
    assert (shown.json["total_amount"], shown.json["balance_amount"], shown.json["currency"]) == (21_070, 21_070, "EUR")
    assert shown.json["lines"][0] == {
        "type": "rental",
        "rule": "started_days",
        "description": "Rental, 2 days",
        "quantity": 2,
        "unit_amount": 4500,
        "net_amount": 9000,
        "tax_code": "PT-23",
        "tax_bps": 2300,
        "tax_amount": 2070,
        "gross_amount": 11_070,
    }
    assert cast.agent.get(f"/v1/invoices/{invoice.id}", If_None_Match='"1"').status_code == 304


def test_invoices_are_listed_newest_first_without_their_lines(cast: Cast) -> None:
    numbers = [issued(cast).number for _ in range(3)]
    page = cast.agent.get("/v1/invoices?limit=2")
    assert [invoice["number"] for invoice in page.json["data"]] == [numbers[2], numbers[1]]
    assert "lines" not in page.json["data"][0]
    rest = cast.agent.get(f"/v1/invoices?limit=2&cursor={page.json['next_cursor']}").json
    assert ([invoice["number"] for invoice in rest["data"]], rest["next_cursor"]) == ([numbers[0]], None)


def test_a_list_and_a_single_read_take_one_statement(
    cast: Cast, statements: list[str]
) -> None:
    invoices = [issued(cast, DAYS, LATE) for _ in range(5)]
    cast.agent.known()
    for path in ("/v1/invoices", f"/v1/invoices/{invoices[0].id}"):
        statements.clear()
        cast.agent.get(path)
        assert len(statements) == 1


def test_invoices_can_be_narrowed_down(cast: Cast) -> None:
    rental = rental_to_bill(cast)
    anas = issued(cast)
    bens = issued(cast, renter=cast.ben)
    bens.change(status="paid", settled_amount=bens.total_amount)

    def found(query: str) -> list[str]:
        return [invoice["number"] for invoice in cast.accountant.get(f"/v1/invoices?{query}").json["data"]]

    assert found("status=open") == [anas.number]
    assert found("status=paid") == [bens.number]
    assert found(f"customer_id={cast.ben.customer_id}") == [bens.number]
    assert found(f"rental_id={anas.rental_id}") == [anas.number]
    assert found(f"rental_id={rental.id}") == []
    assert found(f"status=open&customer_id={cast.ben.customer_id}") == []


@pytest.mark.parametrize("query", ["status=overdue", "customer_id=1", "rental_id=", "limit=201", "paid=true"])
def test_a_filter_that_makes_no_sense_is_refused(cast: Cast, query: str) -> None:
    assert cast.agent.get(f"/v1/invoices?{query}").status_code == 422


def test_customers_see_their_own_invoices_and_no_others(cast: Cast) -> None:
    anas, bens = issued(cast), issued(cast, renter=cast.ben)
    assert [invoice["number"] for invoice in cast.ana.get("/v1/invoices").json["data"]] == [anas.number]
    assert cast.ana.get(f"/v1/invoices?customer_id={cast.ben.customer_id}").json["data"] == []
    assert cast.ana.get(f"/v1/invoices/{anas.id}").status_code == 200
    foreign, unknown = cast.ana.get(f"/v1/invoices/{bens.id}"), cast.ana.get(f"/v1/invoices/{uuid4()}")
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.json["detail"] == unknown.json["detail"]


def test_a_user_without_a_profile_sees_no_invoice(cast: Cast) -> None:
    invoice = issued(cast)
    newcomer = cast.person("customer")
    assert newcomer.get("/v1/invoices").json["data"] == []
    assert newcomer.get(f"/v1/invoices/{invoice.id}").status_code == 404


@pytest.mark.parametrize("role", ["maintenance_staff", "driver"])
def test_who_has_nothing_to_do_with_money_sees_no_invoice(cast: Cast, role: str) -> None:
    invoice = issued(cast)
    assert cast.staff[role].get("/v1/invoices").status_code == 403
    assert cast.staff[role].get(f"/v1/invoices/{invoice.id}").status_code == 403


def test_an_invoice_is_not_changed_over_http(cast: Cast) -> None:
    path = f"/v1/invoices/{issued(cast).id}"
    for method in ("PATCH", "PUT", "DELETE", "POST"):
        assert cast.admin.call(method, path, {"total_amount": 1}).status_code == 405
