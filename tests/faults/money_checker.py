"""The proof about cards: what the gateway took and gave back, what clients were told, and what our rows and books say."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from tests.faults.evidence import Evidence, Finding
from tests.faults.history import Exchange, by_key


def charged_once(evidence: Evidence) -> Iterable[Finding]:
    """What the gateway took is a captured payment of that amount, once; what is captured was taken."""
    taken = _of(evidence.cards.intents.values(), "succeeded", "payment_id")
    rows = {payment_id: row for payment_id, *row in evidence.sql(_PAYMENTS)}
    for payment_id in taken.keys() | rows.keys():
        status, amount, entries = rows.get(payment_id, ("nowhere", 0, 0))
        charges = taken.get(payment_id, [])
        if len(charges) > 1:
            yield Finding("duplicated", f"payment {payment_id} was charged {len(charges)} times")
        elif charges and status != "captured":
            yield Finding("lost", f"payment {payment_id} was charged and is {status}")
        elif charges and charges[0]["amount_received"] != amount:
            yield Finding("wrong", f"payment {payment_id} was charged with another amount")
        elif status == "captured" and not charges:
            yield Finding("wrong", f"payment {payment_id} is captured and nothing was charged")
        if status == "pending":
            yield Finding("lost", f"payment {payment_id} is still pending")
        if entries != (status == "captured"):
            yield Finding("lost" if entries == 0 else "duplicated", f"{entries} ledger entries for payment {payment_id}")


def paid_as_told(evidence: Evidence) -> Iterable[Finding]:
    """An acknowledged payment is one captured row, and each key has led to one charge at most."""
    captured = {payment_id for payment_id, status, *_ in evidence.sql(_PAYMENTS) if status == "captured"}
    paid = [seen for seen in evidence.exchanges if seen.operation == "pay"]
    for seen in paid:
        if seen.acknowledged and seen.document.get("id") not in captured:
            yield Finding("lost", f"the payment of key {seen.key} was acknowledged and is not captured")
    # A client pays an invoice once, with one key: two payments of it are one too many.
    by_invoice: Counter[str] = Counter(invoice_id for (invoice_id,) in evidence.sql(_PAID_INVOICES)) if paid else Counter()
    for _, same in by_key(paid):
        count = by_invoice[(same[0].sent or {})["invoice_id"]]
        if count > 1:
            yield Finding("duplicated", f"{count} captured payments for key {same[0].key}")


def given_back_once(evidence: Evidence) -> Iterable[Finding]:
    """A refund that was acknowledged is settled, given back once by the gateway, and booked once."""
    given = _of(evidence.cards.refunds.values(), "succeeded", "refund_id")
    rows = {refund_id: row for refund_id, *row in evidence.sql(_REFUNDS)}
    for refund_id in given.keys() | rows.keys():
        status, amount, entries, _ = rows.get(refund_id, ("nowhere", 0, 0, ""))
        back = given.get(refund_id, [])
        if len(back) > 1:
            yield Finding("duplicated", f"refund {refund_id} was given back {len(back)} times")
        elif not back or status != "settled":
            yield Finding("lost", f"refund {refund_id} is {status}, and the gateway gave back {len(back)} times")
        elif back[0]["amount"] != amount:
            yield Finding("wrong", f"refund {refund_id} gave back another amount")
        elif entries != 2:
            yield Finding("lost" if entries < 2 else "duplicated", f"{entries} ledger entries for refund {refund_id}")
    yield from _refunds_as_told([seen for seen in evidence.exchanges if seen.operation == "refund"], rows)


def _refunds_as_told(asked: list[Exchange], rows: dict[str, Any]) -> Iterable[Finding]:
    of_payment: Counter[str] = Counter(row[-1] for row in rows.values())
    for _, same in by_key(asked):
        known = next((seen for seen in same if seen.acknowledged), None)
        if known is not None and known.document.get("id") not in rows:
            yield Finding("lost", f"the refund of key {known.key} was acknowledged and does not exist")
        payment_id = same[0].path.split("/")[3]
        if of_payment[payment_id] > 1:
            yield Finding("duplicated", f"{of_payment[payment_id]} refunds for key {same[0].key}")


def _of(things: Iterable[dict[str, Any]], status: str, name: str) -> dict[str, list[dict[str, Any]]]:
    """The gateway's things in this state by our id, which it keeps with each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for thing in things:
        if thing["status"] == status:
            found.setdefault(thing["metadata"][name], []).append(thing)
    return found


MONEY_JUDGES: tuple[Callable[[Evidence], Iterable[Finding]], ...] = (charged_once, paid_as_told, given_back_once)

_PAYMENTS = """
SELECT p.id::text, p.status, p.amount, count(e.id) FROM payment p
LEFT JOIN journal_entry e ON e.source_type = 'payment' AND e.source_id = p.id AND e.event = 'captured'
WHERE p.method = 'card' GROUP BY p.id
"""
_PAID_INVOICES = "SELECT invoice_id::text FROM payment WHERE status = 'captured'"
_REFUNDS = """
SELECT r.id::text, r.status, r.amount, count(e.id), r.payment_id::text FROM refund r
LEFT JOIN journal_entry e ON e.source_type = 'refund' AND e.source_id = r.id
GROUP BY r.id
"""
