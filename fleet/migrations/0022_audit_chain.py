"""The audit log as a chain: each event is sealed after its commit, by a hash that covers the one before it.

Safe beside the release before: what that one writes waits in `audit_unsealed` as well, because a trigger puts it there.
"""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

CHAIN = """
CREATE TABLE audit_seal (
  position bigint PRIMARY KEY,
  event_id uuid NOT NULL,
  key_id bytea NOT NULL,
  previous bytea NOT NULL,
  hash bytea NOT NULL,
  CONSTRAINT audit_seal_counts CHECK (position > 0),
  CONSTRAINT audit_seal_lengths CHECK (length(key_id) = 8 AND length(previous) = 32 AND length(hash) = 32),
  -- Deferrable, because what retention removes goes as a whole: the events first, then their seals.
  CONSTRAINT audit_seal_event_id_fkey FOREIGN KEY (event_id) REFERENCES audit_event DEFERRABLE INITIALLY IMMEDIATE
);
CREATE UNIQUE INDEX audit_seal_event_key ON audit_seal (event_id);

-- Where the chain begins since retention removed what was before: the newest row counts.
CREATE TABLE audit_anchor (
  position bigint PRIMARY KEY,
  key_id bytea NOT NULL,
  hash bytea NOT NULL,
  mac bytea NOT NULL,
  made_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT audit_anchor_lengths CHECK (length(key_id) = 8 AND length(hash) = 32 AND length(mac) = 32)
);

-- What has no seal yet. A transaction that commits late puts its events here late, so none is ever passed by.
CREATE TABLE audit_unsealed (
  event_id uuid PRIMARY KEY,
  CONSTRAINT audit_unsealed_event_id_fkey FOREIGN KEY (event_id) REFERENCES audit_event
);
"""

GUARDS = """
CREATE FUNCTION await_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO audit_unsealed SELECT id FROM added;
  RETURN NULL;
END $$;
CREATE TRIGGER audit_event_awaits_seal AFTER INSERT ON audit_event REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION await_seal();

CREATE FUNCTION guard_unsealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (SELECT 1 FROM audit_seal WHERE event_id = OLD.event_id) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'an event waits until it is sealed' USING ERRCODE = '23001', CONSTRAINT = 'audit_unsealed_kept';
END $$;
CREATE TRIGGER audit_unsealed_kept BEFORE UPDATE OR DELETE ON audit_unsealed
  FOR EACH ROW EXECUTE FUNCTION guard_unsealed();

-- A seal continues the chain, stays as it is, and goes only with all before it, behind an anchor.
CREATE FUNCTION guard_seal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.position > coalesce((SELECT max(position) FROM audit_anchor), 0) AND NEW.previous = coalesce(
      (SELECT hash FROM audit_seal WHERE position = NEW.position - 1),
      (SELECT hash FROM audit_anchor WHERE position = NEW.position - 1),
      CASE WHEN NEW.position = 1 THEN decode(repeat('00', 32), 'hex') END
    ) THEN
      RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a seal continues the chain' USING ERRCODE = '23514', CONSTRAINT = 'audit_seal_chained';
  ELSIF TG_OP = 'DELETE' AND OLD.position <= (SELECT max(position) FROM audit_anchor) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'a seal stays as it is' USING ERRCODE = '23001', CONSTRAINT = 'audit_seal_kept';
END $$;
CREATE TRIGGER audit_seal_kept BEFORE INSERT OR UPDATE OR DELETE ON audit_seal
  FOR EACH ROW EXECUTE FUNCTION guard_seal();

CREATE FUNCTION guard_audit_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' AND EXISTS (
    SELECT 1 FROM audit_seal
    WHERE event_id = OLD.id AND position <= (SELECT max(position) FROM audit_anchor)
  ) THEN
    RETURN OLD;
  END IF;
  RAISE EXCEPTION 'an audit event stays as it is' USING ERRCODE = '23001', CONSTRAINT = 'audit_event_kept';
END $$;
DROP TRIGGER audit_event_kept ON audit_event;
CREATE TRIGGER audit_event_kept BEFORE UPDATE OR DELETE ON audit_event
  FOR EACH ROW EXECUTE FUNCTION guard_audit_event();

CREATE FUNCTION guard_anchor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM audit_seal WHERE position = NEW.position AND hash = NEW.hash) THEN
    RETURN NEW;
  END IF;
  RAISE EXCEPTION 'an anchor is the last seal that goes' USING ERRCODE = '23514', CONSTRAINT = 'audit_anchor_sealed';
END $$;
CREATE TRIGGER audit_anchor_sealed BEFORE INSERT ON audit_anchor FOR EACH ROW EXECUTE FUNCTION guard_anchor();
CREATE TRIGGER audit_anchor_kept BEFORE UPDATE OR DELETE ON audit_anchor
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

NEVER_EMPTIED = """
CREATE TRIGGER {table}_never_emptied BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


# One that no driver can read would make the whole log unreadable. NOT VALID: so far all times came from the service's clock.
READABLE = """
ALTER TABLE audit_event ADD CONSTRAINT audit_event_at CHECK (at BETWEEN '2000-01-01Z' AND '9999-01-01Z') NOT VALID;
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(CHAIN)
    db.execute_sql(READABLE)
    db.execute_sql(GUARDS)
    for table in ("audit_seal", "audit_anchor", "audit_unsealed"):
        db.execute_sql(NEVER_EMPTIED.format(table=table))
    # The new trigger holds the table's writers off until the commit: whatever is written before is seen here.
    db.execute_sql("INSERT INTO audit_unsealed SELECT id FROM audit_event")
