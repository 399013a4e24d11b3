"""Invoices and their lines: what a customer owes, as it was told to them."""

from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet.auth import Actor
from fleet.errors import NotFound
from fleet.models.base import EVERYTHING, NOTHING, Condition, Listing, Versioned

STATUSES = ("draft", "open", "paid", "void", "written_off")


class Invoice(Versioned):
    """A demand for money. Once issued, only its status and what was settled or credited on it may change.

    `pending_amount` is what card payments under way have asked for: nobody else may pay it meanwhile.
    """

    number = peewee.TextField(null=True)
    status = peewee.TextField()
    customer_id = peewee.UUIDField()
    rental_id = peewee.UUIDField(null=True)
    currency = peewee.TextField()
    net_amount = peewee.BigIntegerField()
    tax_amount = peewee.BigIntegerField()
    total_amount = peewee.BigIntegerField()
    settled_amount = peewee.BigIntegerField(default=0)
    credited_amount = peewee.BigIntegerField(default=0)
    pending_amount = peewee.BigIntegerField(default=0)
    issued_at = DateTimeTZField(null=True)
    due_at = DateTimeTZField(null=True)

    @property
    def balance(self) -> int:
        """What is still to be paid and asked for by nobody."""
        return self.total_amount - self.settled_amount - self.credited_amount - self.pending_amount


INVOICES = Listing(
    columns={
        **{
            name: f"invoice.{name}"
            for name in (
                "id", "number", "status", "customer_id", "rental_id", "currency", "net_amount", "tax_amount",
                "total_amount", "settled_amount", "credited_amount", "pending_amount", "issued_at", "due_at", "version",
                "created_at", "updated_at",
            )
        },
        "balance_amount": "invoice.total_amount - invoice.settled_amount - invoice.credited_amount",
    },
    source="invoice",
    key="invoice.id",
)  # fmt: skip

INVOICES_WITH_LINES = Listing(
    columns={
        **INVOICES.columns,
        "lines": """(SELECT coalesce(jsonb_agg(jsonb_build_object(
            'type', l.type, 'rule', l.rule, 'description', l.description, 'quantity', l.quantity,
            'unit_amount', l.unit_amount, 'net_amount', l.net_amount, 'tax_code', l.tax_code, 'tax_bps', l.tax_bps,
            'tax_amount', l.tax_amount, 'gross_amount', l.net_amount + l.tax_amount) ORDER BY l.position), '[]')
            FROM invoice_line l WHERE l.invoice_id = invoice.id)""",
    },
    source=INVOICES.source,
    key=INVOICES.key,
)


def invoices_seen_by(actor: Actor) -> Condition:
    """Staff see every invoice, customers their own, everybody else none."""
    if actor.can("invoices.read_all"):
        return EVERYTHING
    if actor.customer_id is None:
        return NOTHING
    return Condition("invoice.customer_id = %s", (actor.customer_id,))


# The condition speaks of the table by its own name, which Peewee would otherwise replace.
_INVOICE = Invoice.alias("invoice")


def invoice_for_update(invoice_id: UUID, seen: Condition = EVERYTHING) -> Invoice:
    """The invoice, locked until the transaction ends: a second payment waits here and then finds what the first one left.

    Raises NotFound.
    """
    visible = peewee.SQL("invoice.id = %s", (invoice_id,)) & peewee.SQL(f"({seen.sql})", seen.params)
    invoice: Invoice | None = _INVOICE.select().where(visible).for_update().first()
    if invoice is None:
        raise NotFound()
    return invoice


# One round trip, so that the counter's row is held for as short a time as can be: it is the last lock that is taken, and
# every other issue waits for it until this transaction ends. A rollback takes the number back, so there are no gaps.
ISSUE = """
WITH counter AS (
    INSERT INTO document_counter (series, last_number) VALUES ('invoice', 1)
    ON CONFLICT ON CONSTRAINT document_counter_pkey DO UPDATE SET last_number = document_counter.last_number + 1
    RETURNING last_number
), issued AS (
    INSERT INTO invoice (id, number, status, customer_id, rental_id, currency, net_amount, tax_amount, total_amount,
        issued_at, due_at, created_at, updated_at)
    SELECT %(id)s, 'INV-' || lpad(last_number::text, greatest(6, length(last_number::text)), '0'), 'open',
        %(customer_id)s, %(rental_id)s, %(currency)s, %(net_amount)s, %(tax_amount)s, %(total_amount)s,
        %(issued_at)s, %(due_at)s, %(issued_at)s, %(issued_at)s
    FROM counter
    RETURNING id, number
), line AS (
    INSERT INTO invoice_line (invoice_id, position, type, rule, description, quantity, unit_amount, net_amount,
        tax_code, tax_bps, tax_amount)
    SELECT issued.id, line.*
    FROM issued, unnest(%(position)s::int[], %(type)s::text[], %(rule)s::text[], %(description)s::text[],
        %(quantity)s::int[], %(unit_amount)s::bigint[], %(line_net)s::bigint[], %(tax_code)s::text[],
        %(tax_bps)s::int[], %(line_tax)s::bigint[]) AS line
), event AS (
    INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
    SELECT %(event_id)s, 'invoice.issued', %(issued_at)s, 'invoice', issued.id,
        %(data)s::jsonb || jsonb_build_object('number', issued.number)
    FROM issued
)
SELECT number FROM issued
"""

# What the ledger is told about issued invoices. The order is the one in which their entries are written.
TO_POST = """
SELECT i.id, i.number, i.currency, (i.issued_at AT TIME ZONE 'UTC')::date,
    l.type, l.description, l.rule, l.quantity, l.unit_amount, l.net_amount, l.tax_code, l.tax_bps, l.tax_amount
FROM invoice i JOIN invoice_line l ON l.invoice_id = i.id
WHERE i.id = ANY(%s::uuid[]) AND i.status <> 'draft'
ORDER BY i.id, l.position
"""
