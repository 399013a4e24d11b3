"""What operators have said of circuit breakers: kept here, so that no flush of Redis forgets it."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

BREAKER_CONTROLS = """
CREATE TABLE breaker_control (
  name text PRIMARY KEY,
  state text NOT NULL,
  epoch bigint NOT NULL,
  controlled_by text NOT NULL,
  reason text,
  controlled_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT breaker_control_state CHECK (state IN ('auto', 'forced_open', 'forced_closed')),
  CONSTRAINT breaker_control_name CHECK (length(name) BETWEEN 1 AND 300),
  -- Who may sign in needs the database: nobody could take it back.
  CONSTRAINT breaker_control_postgresql CHECK (name <> 'postgresql' OR state <> 'forced_open')
);
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(BREAKER_CONTROLS)
