"""Payments and refunds for the tests of money."""

from typing import Any
from uuid import UUID, uuid4

from fleet import clock
from fleet.db import db, transaction
from fleet.models.invoices import Invoice
from fleet.services import postings
from tests.cast import Answer, Cast, Person, insert


def wish(invoice: Invoice, amount: int | None = None, method: str = "cash", **more: Any) -> dict[str, Any]:
    """The body of a payment of all that the invoice is over, unless told otherwise."""
    amount = invoice.total_amount if amount is None else amount
    return {"invoice_id": f"{invoice.id}", "amount": amount, "currency": invoice.currency, "method": method, **more}


def pay(person: Person, invoice: Invoice, amount: int | None = None, method: str = "cash", **more: Any) -> Answer:
    return person.post("/v1/payments", wish(invoice, amount, method, **more), key=f"{uuid4()}")


def paid(cast: Cast, invoice: Invoice, amount: int | None = None, method: str = "cash") -> str:
    """The path of a payment that the agent has recorded."""
    answer = pay(cast.agent, invoice, amount, method)
    assert answer.status_code == 201, answer.json
    return answer.headers["Location"]


def give_back(person: Person, payment: str, **body: Any) -> Answer:
    return person.post(f"{payment}/refunds", body, key=f"{uuid4()}")


def given_back(cast: Cast, payment: str, **body: Any) -> str:
    """The path of a refund that the agent has asked for."""
    answer = give_back(cast.agent, payment, **body)
    assert answer.status_code == 201, answer.json
    return answer.headers["Location"]


def id_of(path: str) -> UUID:
    return UUID(path.rpartition("/")[2])


def standing(invoice: Invoice) -> tuple[str, int, int]:
    """The invoice's status, and what is settled and pending on it."""
    found = db.one("SELECT status, settled_amount, pending_amount FROM invoice WHERE id = %s", (invoice.id,))
    assert found is not None
    status, settled, pending = found
    return status, settled, pending


def post_everything() -> None:
    """What the accounting worker would come to do."""
    for table, post in (
        ("payment", postings.post_payments),
        ("refund", postings.post_refunds),
        ("dispute", postings.post_disputes),
    ):
        post([found for (found,) in db.rows(f"SELECT id FROM {table}")])


def lines_of(source_id: UUID) -> dict[str, list[tuple[str, str, int]]]:
    """The lines of a fact's entries, by event."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for event, account, side, amount in db.rows(
        """SELECT e.event, l.account_code, l.side, l.amount FROM journal_entry e JOIN journal_line l ON l.entry_id = e.id
        WHERE e.source_id = %s ORDER BY e.id, l.position""",
        (source_id,),
    ):
        found.setdefault(event, []).append((account, side, amount))
    return found


def card_payment(invoice: Invoice, amount: int | None = None, *, status: str = "pending", **values: Any) -> UUID:
    """A card payment by SQL, with its part of the invoice's balance; returns its id."""
    amount = invoice.total_amount if amount is None else amount
    counter = "pending_amount" if status == "pending" else "settled_amount"
    with transaction():
        whole = status == "captured" and amount == invoice.total_amount
        sql = f"UPDATE invoice SET {counter} = {counter} + %s, status = %s WHERE id = %s"
        db.execute_sql(sql, (amount, "paid" if whole else "open", invoice.id))
        captured = {"captured_at": clock.now()} if status == "captured" else {}
        return insert(
            "payment", status=status, invoice_id=invoice.id, customer_id=invoice.customer_id, currency=invoice.currency,
            amount=amount, method="card", **captured, **values,
        )  # fmt: skip
