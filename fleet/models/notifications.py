"""What was told to whom, and the facts that the letters tell."""

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import clock
from fleet.models.base import Model


class Notification(Model):
    """A letter to a customer; its id is that of the promise, so there is one row however often it is tried.

    `sending` is written before the mail server is asked, `sent` or `failed` after it answered.
    """

    id = peewee.UUIDField(primary_key=True)
    kind = peewee.TextField()
    channel = peewee.TextField(default="email")
    customer_id = peewee.UUIDField(null=True)
    rental_id = peewee.UUIDField(null=True)
    invoice_id = peewee.UUIDField(null=True)
    status = peewee.TextField()
    created_at = DateTimeTZField(default=clock.now)
    attempted_at = DateTimeTZField(default=clock.now)
    sent_at = DateTimeTZField(null=True)


# One row decides who sends: of two workers with the same letter one gets the id back, the other nothing. A claim that is
# older than any living worker's could be is anybody's again.
CLAIM_LETTER = """
INSERT INTO notification (id, kind, channel, customer_id, rental_id, invoice_id, status)
VALUES (%(id)s, %(kind)s, 'email', %(customer_id)s, %(rental_id)s, %(invoice_id)s, 'sending')
ON CONFLICT (id) DO UPDATE SET status = 'sending', attempted_at = now()
WHERE notification.status = 'failed'
    OR (notification.status = 'sending' AND notification.attempted_at < now() - interval '1 second' * %(claim_s)s)
RETURNING id
"""
END_LETTER = """
UPDATE notification SET status = %(status)s, sent_at = CASE WHEN %(status)s = 'sent' THEN now() END WHERE id = %(id)s
"""

_ADDRESSEE = "c.id, c.first_name, c.email, c.erased_at IS NOT NULL"
_TIMEZONE = "coalesce(pickup.timezone, r.terms->>'timezone', 'UTC')"

RENTAL_TOLD = f"""
SELECT {_ADDRESSEE}, {_TIMEZONE}, r.number, v.make || ' ' || v.model, r.start_at, r.end_at, r.hold_expires_at,
    r.total_amount, r.currency, pickup.name, dropoff.name
FROM rental r
JOIN customer c ON c.id = r.customer_id
JOIN vehicle v ON v.id = r.vehicle_id
LEFT JOIN branch pickup ON pickup.id = r.pickup_branch_id
LEFT JOIN branch dropoff ON dropoff.id = r.dropoff_branch_id
WHERE r.id = %s
"""
INVOICE_TOLD = f"""
SELECT {_ADDRESSEE}, {_TIMEZONE}, i.number, r.number, i.issued_at, i.due_at, i.net_amount, i.tax_amount, i.currency
FROM invoice i
JOIN customer c ON c.id = i.customer_id
LEFT JOIN rental r ON r.id = i.rental_id
LEFT JOIN branch pickup ON pickup.id = r.pickup_branch_id
WHERE i.id = %s
"""
INVOICE_LINES_TOLD = """
SELECT description, net_amount FROM invoice_line WHERE invoice_id = %s ORDER BY position
"""
