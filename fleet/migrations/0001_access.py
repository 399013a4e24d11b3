"""Users, their sessions and machine keys; the guards that every later table shares."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

SHARED_GUARDS = """
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- A row's version counts its updates, whoever makes them, so that an ETag never stands for two contents.
CREATE FUNCTION count_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.version := OLD.version + 1;
  NEW.updated_at := now();
  RETURN NEW;
END $$;

CREATE TABLE lifecycle_transition (
  thing text NOT NULL,
  from_status text NOT NULL,
  to_status text NOT NULL,
  CONSTRAINT lifecycle_transition_pkey PRIMARY KEY (thing, from_status, to_status)
);

CREATE FUNCTION guard_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.status IS DISTINCT FROM OLD.status AND NOT EXISTS (
    SELECT 1 FROM lifecycle_transition
    WHERE thing = TG_ARGV[0] AND from_status = OLD.status AND to_status = NEW.status
  ) THEN
    RAISE EXCEPTION '%% cannot go from %% to %%', TG_ARGV[0], OLD.status, NEW.status
      USING ERRCODE = '23514', CONSTRAINT = TG_ARGV[0] || '_transition';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '%% rows are kept as they are: %% refused', TG_TABLE_NAME, TG_OP
    USING ERRCODE = '23001', CONSTRAINT = TG_TABLE_NAME || '_kept';
END $$;
"""

USERS = """
CREATE TABLE user_account (
  id uuid PRIMARY KEY,
  email text NOT NULL,
  password_hash text NOT NULL,
  first_name text NOT NULL,
  last_name text NOT NULL,
  phone text,
  roles text[] NOT NULL,
  deactivated_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT user_email_lower CHECK (email = lower(email)),
  CONSTRAINT user_roles_known CHECK (
    cardinality(roles) >= 1
    AND roles <@ ARRAY['admin','fleet_manager','rental_agent','maintenance_staff','accountant','driver','customer']
  )
);
CREATE UNIQUE INDEX user_email_key ON user_account (email);
CREATE TRIGGER user_account_version BEFORE UPDATE ON user_account FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER user_account_kept BEFORE DELETE ON user_account FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE user_session (
  id uuid PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES user_account,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_used_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at timestamptz,
  end_reason text,
  CONSTRAINT session_end_has_reason CHECK ((ended_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX user_session_live ON user_session (user_id) WHERE ended_at IS NULL;
CREATE INDEX user_session_over ON user_session (least(ended_at, expires_at));

-- One row for each refresh token ever handed out: a used one shown again betrays a theft.
CREATE TABLE refresh_token (
  token_hash bytea PRIMARY KEY,
  session_id uuid NOT NULL REFERENCES user_session ON DELETE CASCADE,
  issued_at timestamptz NOT NULL DEFAULT now(),
  used_at timestamptz
);
CREATE INDEX refresh_token_session ON refresh_token (session_id);
CREATE INDEX refresh_token_age ON refresh_token (issued_at);

CREATE TABLE login_throttle (
  account_hash bytea PRIMARY KEY,
  failures integer NOT NULL,
  last_failure_at timestamptz NOT NULL,
  CONSTRAINT login_throttle_counts CHECK (failures > 0)
);

CREATE TABLE api_key (
  id uuid PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES user_account,
  name text NOT NULL,
  prefix text NOT NULL,
  key_hash bytea NOT NULL,
  permissions text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  last_used_at timestamptz,
  revoked_at timestamptz
);
CREATE UNIQUE INDEX api_key_hash_key ON api_key (key_hash);
CREATE INDEX api_key_user ON api_key (user_id, id DESC);
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(SHARED_GUARDS)
    db.execute_sql(USERS)
