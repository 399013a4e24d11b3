"""Which relays and workers run, and the order in which the accounts of one aggregate are dealt with."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

PROCESS_REPORTS = """
CREATE TABLE process_report (
  name text PRIMARY KEY,
  kind text NOT NULL,
  reported_at timestamptz NOT NULL DEFAULT now(),
  queues text[] NOT NULL,
  paused text[] NOT NULL DEFAULT '{}',
  handled jsonb NOT NULL DEFAULT '{}',
  CONSTRAINT process_report_kind CHECK (kind IN ('relay', 'worker'))
) WITH (fillfactor = 50);

-- What accounting has not done yet, by its aggregate: few rows, and none of another queue. Its condition is written so that
-- only who means this index gets it.
CREATE INDEX outbox_accounting_open ON outbox (aggregate_id, id)
  WHERE queue = 'accounting' AND coalesce(confirmed_at, dead_at) IS NULL;
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(PROCESS_REPORTS)
