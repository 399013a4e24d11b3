"""Text messages beside e-mail, what customers want to be told, and which notices a rental had.

Safe beside the release before: that one writes only channel `email` and the statuses that stay allowed.
"""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

NOTIFICATIONS = """
ALTER TABLE notification ADD COLUMN reason text;
ALTER TABLE notification DROP CONSTRAINT notification_channel, DROP CONSTRAINT notification_status;
ALTER TABLE notification
  ADD CONSTRAINT notification_channel CHECK (channel IN ('email','sms')),
  ADD CONSTRAINT notification_status CHECK (status IN ('sending','failed','sent','unknown','skipped')),
  ADD CONSTRAINT notification_skipped_why CHECK (
    (status = 'skipped') = (reason IS NOT NULL) AND reason IN ('erased','outdated','not_wanted','no_number')
  );
CREATE INDEX notification_rental ON notification (rental_id, id DESC);

-- One row a customer who chose: the kinds that go each way. Who has no row gets what everybody gets.
CREATE TABLE notification_preference (
  customer_id uuid PRIMARY KEY REFERENCES customer,
  email_kinds text[] NOT NULL,
  sms_kinds text[] NOT NULL,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT notification_preference_kinds CHECK (
    email_kinds || sms_kinds <@ ARRAY['rental_held','rental_reserved','rental_changed','rental_cancelled','rental_expired',
      'rental_reminder','rental_overdue','rental_no_show','invoice_issued']
  ),
  CONSTRAINT notification_preference_required CHECK (
    email_kinds @> ARRAY['rental_reserved','rental_changed','rental_cancelled','rental_no_show','invoice_issued']
  )
);
CREATE TRIGGER notification_preference_version BEFORE UPDATE ON notification_preference
  FOR EACH ROW EXECUTE FUNCTION count_version();

-- What a rental was told by the clock, and about which time: a rental that moves has another time, and is told again.
CREATE TABLE rental_notice (
  rental_id uuid NOT NULL REFERENCES rental,
  kind text NOT NULL,
  about_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT rental_notice_pkey PRIMARY KEY (rental_id, kind, about_at),
  CONSTRAINT rental_notice_kind CHECK (kind IN ('rental_reminder','rental_overdue','rental_expired'))
);
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(NOTIFICATIONS)
