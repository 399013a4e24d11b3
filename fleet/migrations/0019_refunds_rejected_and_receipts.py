"""A requested refund may be rejected; a letter tells of money that came in.

Safe beside the release before. That one knows neither state nor letter: its relay leaves their promises
(`accounting.post_rejection`, `notifications.payment_received`) to a newer one. The CHECKs that are made anew allow all that
they allowed before; as in migration 0013, `notification_preference_required` does not ask for the new kind.
"""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

# Refunds are few: they are looked through under the table's lock in milliseconds.
REJECTED = """
ALTER TABLE refund
  ADD COLUMN rejected_by uuid REFERENCES user_account,
  ADD COLUMN rejected_at timestamptz,
  ADD COLUMN rejection_reason text,
  DROP CONSTRAINT refund_status,
  ADD CONSTRAINT refund_status CHECK (status IN ('requested','approved','rejected','sent','settled','failed')),
  DROP CONSTRAINT refund_approved,
  ADD CONSTRAINT refund_approved CHECK ((approved_at IS NULL) = (status IN ('requested','rejected'))),
  DROP CONSTRAINT refund_second_person,
  ADD CONSTRAINT refund_second_person CHECK (
    (approved_by IS NULL OR (needs_approval AND approved_by <> requested_by))
    AND (NOT needs_approval OR status IN ('requested','rejected') OR approved_by IS NOT NULL)
  ),
  ADD CONSTRAINT refund_rejected CHECK (
    (rejected_at IS NOT NULL) = (status = 'rejected') AND (rejected_by IS NOT NULL) = (status = 'rejected')
    AND (rejection_reason IS NOT NULL) = (status = 'rejected')
  );
CREATE OR REPLACE FUNCTION guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.payment_id, NEW.amount, NEW.needs_approval, NEW.requested_by, NEW.created_at)
    IS DISTINCT FROM (OLD.id, OLD.payment_id, OLD.amount, OLD.needs_approval, OLD.requested_by, OLD.created_at)
    OR (OLD.approved_at IS NOT NULL AND (NEW.approved_by, NEW.approved_at) IS DISTINCT FROM (OLD.approved_by, OLD.approved_at))
    OR (OLD.rejected_at IS NOT NULL AND (NEW.rejected_by, NEW.rejected_at, NEW.rejection_reason)
      IS DISTINCT FROM (OLD.rejected_by, OLD.rejected_at, OLD.rejection_reason))
    OR (OLD.settled_at IS NOT NULL AND NEW.settled_at IS DISTINCT FROM OLD.settled_at)
    OR (OLD.failed_at IS NOT NULL AND NEW.failed_at IS DISTINCT FROM OLD.failed_at)
  THEN
    RAISE EXCEPTION 'a refund says the same for ever' USING ERRCODE = '23001', CONSTRAINT = 'refund_kept';
  END IF;
  RETURN NEW;
END $$;
INSERT INTO lifecycle_transition VALUES ('refund','requested','rejected');
CREATE INDEX refund_by_status ON refund (status, id DESC);
"""

# NOT VALID: what is there tells of no payment, so there is nothing to look through under the table's lock.
RECEIPTS = """
ALTER TABLE notification ADD COLUMN payment_id uuid REFERENCES payment;
ALTER TABLE notification
  ADD CONSTRAINT notification_of_payment CHECK ((kind = 'payment_received') = (payment_id IS NOT NULL)) NOT VALID;
ALTER TABLE notification_preference DROP CONSTRAINT notification_preference_kinds,
  ADD CONSTRAINT notification_preference_kinds CHECK (
    email_kinds || sms_kinds <@ ARRAY['rental_held','rental_reserved','rental_changed','rental_cancelled','rental_expired',
      'rental_reminder','rental_overdue','rental_no_show','invoice_issued','payment_received','payment_refunded']
  );
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    for sql in (REJECTED, RECEIPTS):
        db.execute_sql(sql)
