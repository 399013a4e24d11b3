"""What was told to whom, what customers want to be told, and the facts that the letters tell."""

import peewee
from playhouse.postgres_ext import ArrayField, DateTimeTZField

from fleet import clock
from fleet.models import promises
from fleet.models.base import Listing, Model


class Notification(Model):
    """A letter or text message to a customer; its id is that of its promise, so there is one row however often it is tried.

    `sending` is written before the server is asked. After that `sent` or `failed` says what it answered, and `unknown` that a
    text message may have gone out. `skipped` was not sent, for a `reason`.
    """

    id = peewee.UUIDField(primary_key=True)
    kind = peewee.TextField()
    channel = peewee.TextField(default="email")
    customer_id = peewee.UUIDField(null=True)
    rental_id = peewee.UUIDField(null=True)
    invoice_id = peewee.UUIDField(null=True)
    payment_id = peewee.UUIDField(null=True)
    refund_id = peewee.UUIDField(null=True)
    status = peewee.TextField()
    reason = peewee.TextField(null=True)
    created_at = DateTimeTZField(default=clock.now)
    attempted_at = DateTimeTZField(default=clock.now)
    sent_at = DateTimeTZField(null=True)


class Preference(Model):
    """The kinds that a customer wants by e-mail and by text message. The database counts `version` at every update."""

    customer_id = peewee.UUIDField(primary_key=True)
    email_kinds = ArrayField(peewee.TextField, index=False)
    sms_kinds = ArrayField(peewee.TextField, index=False)
    version = peewee.IntegerField(default=1)
    created_at = DateTimeTZField(default=clock.now)
    updated_at = DateTimeTZField(default=clock.now)

    class Meta:
        table_name = "notification_preference"


NOTIFICATIONS = Listing(
    columns={
        name: f"notification.{name}"
        for name in (
            "id", "kind", "channel", "customer_id", "rental_id", "invoice_id", "payment_id", "refund_id", "status", "reason",
            "created_at", "attempted_at", "sent_at",
        )
    },
    source="notification",
    key="notification.id",
)  # fmt: skip

# --- sending ----------------------------------------------------------------------------------------------------------

# One row decides who sends: of two workers with the same letter one gets an answer back, the other nothing. A claim that is
# older than any living worker's could be is anybody's again. The answer says whether it is the first.
CLAIM_LETTER = """
INSERT INTO notification (id, kind, channel, customer_id, rental_id, invoice_id, payment_id, refund_id, status, reason)
VALUES (%(id)s, %(kind)s, %(channel)s, %(customer_id)s, %(rental_id)s, %(invoice_id)s, %(payment_id)s, %(refund_id)s,
    %(status)s, %(reason)s)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, reason = excluded.reason, attempted_at = now()
WHERE notification.status = 'failed'
    OR (notification.status = 'sending' AND notification.attempted_at < now() - interval '1 second' * %(claim_s)s)
RETURNING xmax = 0
"""
END_LETTER = """
UPDATE notification SET status = %(status)s, sent_at = CASE WHEN %(status)s = 'sent' THEN now() END WHERE id = %(id)s
"""
# All of it in one round trip and one transaction: what is sent as one text is one to PostgreSQL (its manual, "Multiple
# Statements in a Simple Query").
FINISH_LETTER = f"{END_LETTER};{promises.RECEIVE};{promises.CONFIRM}"
# Whoever finds the letter in another's hands has nothing to do before that one's claim is over; a lease that has doubled since
# would end long after it. What has a next time because it failed is in nobody's hands.
WAIT_FOR_CLAIM = """
UPDATE outbox o SET next_attempt_at = n.attempted_at + interval '1 second' * %(claim_s)s
FROM notification n
WHERE o.id = %(id)s AND o.confirmed_at IS NULL AND o.dead_at IS NULL AND n.id = o.id AND n.status = 'sending'
"""
# For what must not go out twice: a worker that was lost may have sent it.
GIVE_UP_LOST = """
UPDATE notification SET status = 'unknown'
WHERE id = %(id)s AND status = 'sending' AND attempted_at < now() - interval '1 second' * %(claim_s)s
"""

# --- what letters tell ------------------------------------------------------------------------------------------------

_ADDRESSEE = "c.id, c.first_name, c.email, c.phone, c.language, c.erased_at IS NOT NULL, p.email_kinds, p.sms_kinds"
_TIMEZONE = "coalesce(pickup.timezone, r.terms->>'timezone', 'UTC')"

RENTAL_TOLD = f"""
SELECT {_ADDRESSEE}, r.status, {_TIMEZONE}, r.number, v.make || ' ' || v.model, r.start_at, r.end_at, r.hold_expires_at,
    r.total_amount, r.currency, pickup.name, dropoff.name
FROM rental r
JOIN customer c ON c.id = r.customer_id
LEFT JOIN notification_preference p ON p.customer_id = c.id
JOIN vehicle v ON v.id = r.vehicle_id
LEFT JOIN branch pickup ON pickup.id = r.pickup_branch_id
LEFT JOIN branch dropoff ON dropoff.id = r.dropoff_branch_id
WHERE r.id = %s
"""
INVOICE_TOLD = f"""
SELECT {_ADDRESSEE}, c.last_name, c.address, pickup.name, pickup.address, pickup.phone, pickup.email,
    {_TIMEZONE}, i.number, r.number, i.issued_at, i.due_at, i.net_amount, i.tax_amount, i.currency
FROM invoice i
JOIN customer c ON c.id = i.customer_id
LEFT JOIN notification_preference p ON p.customer_id = c.id
LEFT JOIN rental r ON r.id = i.rental_id
LEFT JOIN branch pickup ON pickup.id = r.pickup_branch_id
WHERE i.id = %s AND i.status <> 'draft'
"""
INVOICE_LINES_TOLD = """
SELECT description, quantity, unit_amount, net_amount, tax_bps, tax_amount
FROM invoice_line WHERE invoice_id = %s ORDER BY position
"""
PAYMENT_TOLD = f"""
SELECT {_ADDRESSEE}, {_TIMEZONE}, i.number, r.number, m.captured_at, m.amount, m.currency, m.method,
    i.total_amount - i.settled_amount - i.credited_amount
FROM payment m
JOIN invoice i ON i.id = m.invoice_id
JOIN customer c ON c.id = m.customer_id
LEFT JOIN notification_preference p ON p.customer_id = c.id
LEFT JOIN rental r ON r.id = i.rental_id
LEFT JOIN branch pickup ON pickup.id = r.pickup_branch_id
WHERE m.id = %s AND m.captured_at IS NOT NULL
"""
REFUND_TOLD = f"""
SELECT {_ADDRESSEE}, {_TIMEZONE}, i.number, r.number, f.settled_at, f.amount, m.currency, m.method
FROM refund f
JOIN payment m ON m.id = f.payment_id
JOIN invoice i ON i.id = m.invoice_id
JOIN customer c ON c.id = m.customer_id
LEFT JOIN notification_preference p ON p.customer_id = c.id
LEFT JOIN rental r ON r.id = i.rental_id
LEFT JOIN branch pickup ON pickup.id = r.pickup_branch_id
WHERE f.id = %s AND f.status = 'settled'
"""

# --- what the clock tells ---------------------------------------------------------------------------------------------

# Each finds its rentals by a partial index that others use too, and gives the time that the notice is about.
# Whatever was booked, confirmed or moved within the window is left out: the customer has just had a letter about it.
DUE_REMINDERS = """
SELECT id, start_at AS about_at FROM rental
WHERE status = 'reserved' AND start_at > %(now)s AND start_at <= %(now)s + %(window)s AND updated_at <= start_at - %(window)s
"""
DUE_OVERDUE = "SELECT id, end_at AS about_at FROM rental WHERE status = 'active' AND end_at <= %(now)s - %(grace)s"
# A hold lasts a day at most, and a rental's id tells when it was made: so only the newest of those that expired are read.
DUE_EXPIRED = """
SELECT id, hold_expires_at AS about_at FROM rental
WHERE status = 'expired' AND id >= %(made_since)s AND hold_expires_at > %(now)s - interval '1 day'
"""

# In the order of their ids, so that two sweeps at once wait for each other instead of deadlocking. The second then finds
# each notice noted.
NOTE_DUE = """
INSERT INTO rental_notice (rental_id, kind, about_at)
SELECT id, %(kind)s, about_at FROM (
    SELECT due.id, due.about_at FROM ({due}) AS due
    WHERE NOT EXISTS (
        SELECT 1 FROM rental_notice noted
        WHERE noted.rental_id = due.id AND noted.kind = %(kind)s AND noted.about_at = due.about_at
    )
    ORDER BY due.id LIMIT %(limit)s
) AS unnoted
ON CONFLICT ON CONSTRAINT rental_notice_pkey DO NOTHING
RETURNING rental_id, about_at
"""

# --- preferences ------------------------------------------------------------------------------------------------------

STOP_EMAIL = """
INSERT INTO notification_preference (customer_id, email_kinds, sms_kinds)
VALUES (%(customer_id)s, array_remove(%(email_kinds)s::text[], %(kind)s), %(sms_kinds)s::text[])
ON CONFLICT (customer_id) DO UPDATE SET email_kinds = array_remove(notification_preference.email_kinds, %(kind)s)
"""
