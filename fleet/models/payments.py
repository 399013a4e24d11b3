"""Payments, refunds and disputes: what came in for an invoice, what went back, and what a bank took back."""

from typing import Any
from uuid import UUID

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet.auth import Actor
from fleet.errors import NotFound
from fleet.models.base import EVERYTHING, NOTHING, Condition, Listing, Versioned

CARD = "card"


class Payment(Versioned):
    """Money for an invoice. `claim` names the request that asked for it, so that a repeated one finds it again."""

    status = peewee.TextField()
    invoice_id = peewee.UUIDField()
    customer_id = peewee.UUIDField()
    currency = peewee.TextField()
    amount = peewee.BigIntegerField()
    refunded_amount = peewee.BigIntegerField(default=0)
    method = peewee.TextField()
    reference = peewee.TextField(null=True)
    recorded_by = peewee.UUIDField(null=True)
    captured_at = DateTimeTZField(null=True)
    failed_at = DateTimeTZField(null=True)
    failure_code = peewee.TextField(null=True)
    gateway_reference = peewee.TextField(null=True)
    claim = peewee.BlobField(null=True)
    request_print = peewee.BlobField(null=True)
    attempt_ends_at = DateTimeTZField(null=True)


class Refund(Versioned):
    """Money that goes back the way it came. Created when it is requested."""

    status = peewee.TextField()
    payment_id = peewee.UUIDField()
    amount = peewee.BigIntegerField()
    reason = peewee.TextField(null=True)
    needs_approval = peewee.BooleanField()
    requested_by = peewee.UUIDField()
    approved_by = peewee.UUIDField(null=True)
    approved_at = DateTimeTZField(null=True)
    rejected_by = peewee.UUIDField(null=True)
    rejected_at = DateTimeTZField(null=True)
    rejection_reason = peewee.TextField(null=True)
    sent_at = DateTimeTZField(null=True)
    settled_at = DateTimeTZField(null=True)
    failed_at = DateTimeTZField(null=True)
    failure_code = peewee.TextField(null=True)
    gateway_reference = peewee.TextField(null=True)
    attempt_ends_at = DateTimeTZField(null=True)


class Dispute(Versioned):
    """A chargeback: the cardholder's bank has taken the money back, until it is won."""

    status = peewee.TextField()
    payment_id = peewee.UUIDField()
    amount = peewee.BigIntegerField()
    fee_amount = peewee.BigIntegerField(default=0)
    reason = peewee.TextField(null=True)
    gateway_reference = peewee.TextField()
    closed_at = DateTimeTZField(null=True)


PAYMENTS = Listing(
    columns={
        **{
            name: f"payment.{name}"
            for name in (
                "id", "status", "invoice_id", "customer_id", "currency", "amount", "refunded_amount", "method", "reference",
                "failure_code", "captured_at", "failed_at", "version", "created_at", "updated_at",
            )
        },
        "refundable_amount": "CASE WHEN payment.status = 'captured' THEN payment.amount - payment.refunded_amount ELSE 0 END",
    },
    source="payment",
    key="payment.id",
)  # fmt: skip

REFUNDS = Listing(
    columns={
        **{
            name: f"refund.{name}"
            for name in (
                "id", "status", "payment_id", "amount", "reason", "needs_approval", "failure_code", "approved_at",
                "rejected_at", "rejection_reason", "sent_at", "settled_at", "failed_at", "version", "created_at", "updated_at",
            )
        },
        "currency": "payment.currency",
        "method": "payment.method",
    },
    source="refund JOIN payment ON payment.id = refund.payment_id",
    key="refund.id",
)  # fmt: skip


def payments_seen_by(actor: Actor) -> Condition:
    """Staff see every payment, customers their own, everybody else none. Refunds are seen with their payment."""
    if actor.can("payments.read_all"):
        return EVERYTHING
    if actor.customer_id is None:
        return NOTHING
    return Condition("payment.customer_id = %s", (actor.customer_id,))


def payment_for_update(payment_id: UUID, seen: Condition = EVERYTHING) -> Payment:
    """The payment, locked until the transaction ends, and with it its refunds and disputes: whoever changes one of those
    has locked the payment first. Its invoice, if that is locked too, is locked before it (docs/locking.md). Raises NotFound.
    """
    return _only(_PAYMENT.select().where(_visible(payment_id, seen)).for_update())


# Conditions speak of the table by its own name, which Peewee would otherwise replace.
_PAYMENT = Payment.alias("payment")


def _visible(payment_id: UUID, seen: Condition) -> Any:
    return peewee.SQL("payment.id = %s", (payment_id,)) & peewee.SQL(f"({seen.sql})", seen.params)


def _only(query: Any) -> Payment:
    payment: Payment | None = query.first()
    if payment is None:
        raise NotFound()
    return payment


# What the ledger is told. The order is the one in which the entries are written.
PAYMENTS_TO_POST = """
SELECT p.id, i.number, p.currency, p.method, p.amount, (p.captured_at AT TIME ZONE 'UTC')::date
FROM payment p JOIN invoice i ON i.id = p.invoice_id
WHERE p.id = ANY(%s::uuid[]) AND p.captured_at IS NOT NULL
ORDER BY p.id
"""
REFUNDS_TO_POST = """
SELECT r.id, i.number, p.currency, p.method, r.amount, (r.created_at AT TIME ZONE 'UTC')::date,
    (r.settled_at AT TIME ZONE 'UTC')::date, (r.failed_at AT TIME ZONE 'UTC')::date, (r.rejected_at AT TIME ZONE 'UTC')::date
FROM refund r JOIN payment p ON p.id = r.payment_id JOIN invoice i ON i.id = p.invoice_id
WHERE r.id = ANY(%s::uuid[])
ORDER BY r.id
"""
DISPUTES_TO_POST = """
SELECT d.id, i.number, p.currency, d.amount, d.fee_amount, d.status, (d.created_at AT TIME ZONE 'UTC')::date,
    (d.closed_at AT TIME ZONE 'UTC')::date
FROM dispute d JOIN payment p ON p.id = d.payment_id JOIN invoice i ON i.id = p.invoice_id
WHERE d.id = ANY(%s::uuid[])
ORDER BY d.id
"""

# Payments and refunds that nobody has asked the gateway about for a while, leased to who claims them. SKIP LOCKED: one that
# is being settled right now is left alone, and two sweeps take different ones.
CLAIM_PENDING = """
UPDATE payment SET attempt_ends_at = now() + interval '1 second' * %(attempt_s)s
WHERE id = ANY (ARRAY(
    SELECT id FROM payment WHERE status = 'pending' AND attempt_ends_at <= now() - interval '15 seconds'
    ORDER BY attempt_ends_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
RETURNING id
"""
CLAIM_SENT_REFUNDS = """
UPDATE refund SET attempt_ends_at = now() + interval '1 second' * %(attempt_s)s
WHERE id = ANY (ARRAY(
    SELECT id FROM refund WHERE status = 'sent' AND gateway_reference IS NOT NULL AND attempt_ends_at <= now()
    ORDER BY attempt_ends_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
RETURNING id
"""
