"""Tokens that letters bring (password reset, e-mail verification), and the second factor of those who work here.

Safe beside the release before: that one knows none of it, and a user whom it signs in without a code has none yet.
"""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

ACCOUNT_SAFETY = """
ALTER TABLE user_account ADD COLUMN email_verified_at timestamptz;

-- One row for each token that went out: an attempt at a letter that was repeated brings another token of the same promise.
CREATE TABLE account_token (
  token_hash bytea PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES user_account,
  purpose text NOT NULL,
  promise_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at timestamptz,
  CONSTRAINT account_token_digest CHECK (length(token_hash) = 32),
  CONSTRAINT account_token_purpose CHECK (purpose IN ('password_reset','email_verification')),
  CONSTRAINT account_token_lifetime CHECK (
    expires_at > created_at AND expires_at <= created_at + CASE purpose WHEN 'password_reset' THEN interval '30 minutes'
      ELSE interval '1 day' END
  )
);
CREATE INDEX account_token_user ON account_token (user_id, purpose, promise_id);
CREATE INDEX account_token_over ON account_token (expires_at);

CREATE TABLE second_factor (
  user_id uuid PRIMARY KEY REFERENCES user_account,
  secret bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  confirmed_at timestamptz,
  last_step bigint,
  failures integer NOT NULL DEFAULT 0,
  CONSTRAINT second_factor_failures CHECK (failures >= 0),
  CONSTRAINT second_factor_confirmed_by_code CHECK ((confirmed_at IS NULL) = (last_step IS NULL))
);

-- The step of the last code that was taken only grows: a code works once.
CREATE FUNCTION guard_second_factor() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.secret = OLD.secret AND OLD.last_step IS NOT NULL AND (NEW.last_step IS NULL OR NEW.last_step < OLD.last_step) THEN
    RAISE EXCEPTION 'a code would work again' USING ERRCODE = '23514', CONSTRAINT = 'second_factor_steps_grow';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER second_factor_guarded BEFORE UPDATE ON second_factor FOR EACH ROW EXECUTE FUNCTION guard_second_factor();

CREATE TABLE recovery_code (
  code_hash bytea PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES second_factor ON DELETE CASCADE,
  used_at timestamptz,
  CONSTRAINT recovery_code_digest CHECK (length(code_hash) = 32)
);
CREATE INDEX recovery_code_user ON recovery_code (user_id);
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(ACCOUNT_SAFETY)
