"""The letter about a refund: its kind, and which refund a notification is about.

Safe beside the release before: that one writes no `refund_id`, and chooses among the kinds that stay allowed. For its sake
`notification_preference_required` does not ask for the new kind: its rows are without it, as are those of everybody who chose
before. `fleet.rules.notices` sends the kind whatever a row says, and `fleet.services.preferences` shows it so.
"""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

# NOT VALID: what is there tells of no refund, so there is nothing to look through under the table's lock.
REFUND_LETTERS = """
ALTER TABLE notification ADD COLUMN refund_id uuid REFERENCES refund;
ALTER TABLE notification
  ADD CONSTRAINT notification_of_refund CHECK ((kind = 'payment_refunded') = (refund_id IS NOT NULL)) NOT VALID;
ALTER TABLE notification_preference DROP CONSTRAINT notification_preference_kinds,
  ADD CONSTRAINT notification_preference_kinds CHECK (
    email_kinds || sms_kinds <@ ARRAY['rental_held','rental_reserved','rental_changed','rental_cancelled','rental_expired',
      'rental_reminder','rental_overdue','rental_no_show','invoice_issued','payment_refunded']
  );
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(REFUND_LETTERS)
