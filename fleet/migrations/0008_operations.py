"""What operators see and do: the audit log, and dead letters that are replayed or discarded."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

# CREATE INDEX CONCURRENTLY takes no transaction around it. So each step can be run again where a later one failed.
atomic = False

# NOT VALID: what is there already has only just got these columns, so there is nothing to look through under the table's lock.
# The release before knows none of them. Where its worker confirms late what was discarded here meanwhile, its transaction is
# refused: nothing takes effect, and the letter stays discarded.
LETTERS = """
ALTER TABLE outbox
  ADD COLUMN IF NOT EXISTS first_error_at timestamptz,
  ADD COLUMN IF NOT EXISTS replays integer NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS replayed_at timestamptz,
  ADD COLUMN IF NOT EXISTS discarded_at timestamptz,
  ADD COLUMN IF NOT EXISTS discarded_by text,
  ADD COLUMN IF NOT EXISTS discard_reason text,
  DROP CONSTRAINT IF EXISTS outbox_replays,
  DROP CONSTRAINT IF EXISTS outbox_discarded_is_dead,
  DROP CONSTRAINT IF EXISTS outbox_discarded_by_whom_and_why,
  ADD CONSTRAINT outbox_replays CHECK (replays >= 0 AND (replays = 0) = (replayed_at IS NULL)) NOT VALID,
  ADD CONSTRAINT outbox_discarded_is_dead CHECK (discarded_at IS NULL OR dead_at IS NOT NULL) NOT VALID,
  ADD CONSTRAINT outbox_discarded_by_whom_and_why CHECK (
    (discarded_at IS NULL) = (discarded_by IS NULL) AND (discarded_at IS NULL) = (discard_reason IS NULL)
    AND length(discarded_by) BETWEEN 1 AND 200 AND length(discard_reason) BETWEEN 1 AND 1000
  ) NOT VALID;
"""

# A promise gets into these when it ends: while it waits they cost nothing.
INDEXES = {
    # What was confirmed in the last minutes: how far behind the workers are, and how much they do.
    "outbox_confirmed": "(confirmed_at) WHERE confirmed_at IS NOT NULL",
    # The list of dead letters, newest first, discarded ones included.
    "outbox_dead_letters": "(id) WHERE dead_at IS NOT NULL",
    # What alerts count, in place of outbox_dead: half a year of discarded ones is not in the way.
    "outbox_open_letters": "(dead_at) WHERE dead_at IS NOT NULL AND discarded_at IS NULL",
}

AUDIT = """
CREATE TABLE audit_event (
  id uuid PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now(),
  actor text NOT NULL,
  action text NOT NULL,
  object_type text NOT NULL,
  object_id text NOT NULL,
  before jsonb,
  after jsonb,
  request_id text,
  address text,
  CONSTRAINT audit_event_actor CHECK (actor ~ '^(user|key|cli|system):.+$' AND length(actor) <= 200),
  CONSTRAINT audit_event_action CHECK (action ~ '^[a-z_]+([.][a-z_]+)+$' AND length(action) <= 100),
  CONSTRAINT audit_event_object CHECK (
    object_type ~ '^[a-z_]+$' AND length(object_type) <= 100 AND length(object_id) BETWEEN 1 AND 200
  ),
  CONSTRAINT audit_event_states CHECK (
    coalesce(jsonb_typeof(before), 'object') = 'object' AND coalesce(jsonb_typeof(after), 'object') = 'object'
  ),
  CONSTRAINT audit_event_origin CHECK (length(request_id) <= 200 AND length(address) <= 200)
);
CREATE INDEX audit_event_by_actor ON audit_event (actor, id DESC);
CREATE INDEX audit_event_by_action ON audit_event (action, id DESC);
CREATE INDEX audit_event_by_object ON audit_event (object_type, object_id, id DESC);
CREATE TRIGGER audit_event_kept BEFORE UPDATE OR DELETE ON audit_event
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_event_never_emptied BEFORE TRUNCATE ON audit_event
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(LETTERS)
    for name, definition in INDEXES.items():
        # One that was left half-built is there, and of no use.
        db.execute_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        db.execute_sql(f"CREATE INDEX CONCURRENTLY {name} ON outbox {definition}")
    db.execute_sql("DROP INDEX CONCURRENTLY IF EXISTS outbox_dead")
    with db.atomic():
        db.execute_sql(AUDIT)
