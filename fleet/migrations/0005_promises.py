"""What a transaction promises to do later, what was answered to whom, and what was sent."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

PROMISES = """
CREATE TABLE outbox (
  id uuid PRIMARY KEY,
  topic text NOT NULL,
  queue text NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id uuid NOT NULL,
  payload jsonb NOT NULL DEFAULT '{}',
  request_id text,
  traceparent text,
  created_at timestamptz NOT NULL DEFAULT now(),
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  publishes integer NOT NULL DEFAULT 0,
  deliveries integer NOT NULL DEFAULT 0,
  confirmed_at timestamptz,
  dead_at timestamptz,
  last_error text,
  last_error_at timestamptz,
  CONSTRAINT outbox_one_end CHECK (confirmed_at IS NULL OR dead_at IS NULL)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
-- The queue comes first, so that a paused queue's backlog costs nothing to those who read the others.
CREATE INDEX outbox_due ON outbox (queue, next_attempt_at) WHERE confirmed_at IS NULL AND dead_at IS NULL;
CREATE INDEX outbox_dead ON outbox (dead_at) WHERE dead_at IS NOT NULL;

CREATE TABLE inbox (
  consumer text NOT NULL,
  message_id uuid NOT NULL,
  processed_at timestamptz NOT NULL DEFAULT now(),
  -- Ids carry their time: new rows go to the index's end, and old ones are found at its beginning.
  CONSTRAINT inbox_pkey PRIMARY KEY (message_id, consumer)
);

CREATE TABLE idempotency_record (
  actor text NOT NULL,
  method text NOT NULL,
  path text NOT NULL,
  key text NOT NULL,
  fingerprint bytea NOT NULL,
  status smallint NOT NULL,
  headers jsonb NOT NULL,
  body bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT idempotency_record_pkey PRIMARY KEY (actor, method, path, key)
);
CREATE INDEX idempotency_record_age ON idempotency_record (created_at);

CREATE TABLE notification (
  id uuid PRIMARY KEY,
  kind text NOT NULL,
  channel text NOT NULL,
  customer_id uuid REFERENCES customer,
  rental_id uuid REFERENCES rental,
  invoice_id uuid REFERENCES invoice,
  status text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  attempted_at timestamptz NOT NULL DEFAULT now(),
  sent_at timestamptz,
  CONSTRAINT notification_channel CHECK (channel IN ('email')),
  CONSTRAINT notification_status CHECK (status IN ('sending','failed','sent')),
  CONSTRAINT notification_sent_when CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX notification_customer ON notification (customer_id, id DESC);
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(PROMISES)
