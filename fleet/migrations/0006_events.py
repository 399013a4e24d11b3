"""What happened, for others to read: written with its fact, put in order afterwards."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

EVENTS = """
CREATE TABLE event (
  id uuid PRIMARY KEY,
  insert_order bigint GENERATED ALWAYS AS IDENTITY,
  -- Given by the sequencer after the commit; until then nobody reads the event.
  position bigint,
  type text NOT NULL,
  occurred_at timestamptz NOT NULL,
  aggregate_type text NOT NULL,
  aggregate_id uuid NOT NULL,
  schema_version integer NOT NULL DEFAULT 1,
  data jsonb NOT NULL,
  CONSTRAINT event_named CHECK (type ~ '^[a-z_]+[.][a-z_]+$'),
  CONSTRAINT event_position_counts CHECK (position > 0),
  CONSTRAINT event_version_counts CHECK (schema_version > 0),
  CONSTRAINT event_data_object CHECK (jsonb_typeof(data) = 'object')
) WITH (autovacuum_vacuum_scale_factor = 0.02);
-- A fact pays for two of these; the others only know what has its place.
CREATE INDEX event_unplaced ON event (insert_order) WHERE position IS NULL;
CREATE UNIQUE INDEX event_position_key ON event (position) WHERE position IS NOT NULL;
CREATE INDEX event_by_type ON event (type, position) WHERE position IS NOT NULL;

-- An event is written once, gets its place once, and is forgotten only when it is old.
CREATE FUNCTION guard_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.position IS NOT NULL AND OLD.occurred_at < now() - interval '80 days' THEN
      RETURN OLD;
    END IF;
  ELSIF OLD.position IS NULL AND
    (NEW.id, NEW.insert_order, NEW.type, NEW.occurred_at, NEW.aggregate_type, NEW.aggregate_id, NEW.schema_version,
     NEW.data)
    IS NOT DISTINCT FROM
    (OLD.id, OLD.insert_order, OLD.type, OLD.occurred_at, OLD.aggregate_type, OLD.aggregate_id, OLD.schema_version,
     OLD.data)
  THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'an event stays as it happened' USING ERRCODE = '23001', CONSTRAINT = 'event_kept';
END $$;
CREATE TRIGGER event_kept BEFORE UPDATE OR DELETE ON event FOR EACH ROW EXECUTE FUNCTION guard_event();
CREATE TRIGGER event_never_emptied BEFORE TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(EVENTS)
