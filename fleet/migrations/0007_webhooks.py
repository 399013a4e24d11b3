"""Who is told of events, and each telling of each event with what became of it."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

WEBHOOKS = """
CREATE TABLE webhook_endpoint (
  id uuid PRIMARY KEY,
  url text NOT NULL,
  event_types text[],
  description text,
  enabled boolean NOT NULL DEFAULT true,
  disabled_reason text,
  disabled_at timestamptz,
  secret bytea,
  previous_secret bytea,
  previous_secret_until timestamptz,
  created_by uuid REFERENCES user_account,
  deleted_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT webhook_endpoint_url CHECK (url ~* '^https?://' AND length(url) <= 2048),
  CONSTRAINT webhook_endpoint_some_types CHECK (cardinality(event_types) > 0),
  CONSTRAINT webhook_endpoint_disabled_when CHECK (enabled = (disabled_at IS NULL)),
  CONSTRAINT webhook_endpoint_disabled_why CHECK (enabled = (disabled_reason IS NULL)),
  CONSTRAINT webhook_endpoint_reason CHECK (disabled_reason IN ('by_hand','gone','failing','deleted')),
  CONSTRAINT webhook_endpoint_secret_while_there CHECK ((secret IS NULL) = (deleted_at IS NOT NULL)),
  CONSTRAINT webhook_endpoint_deleted_is_off CHECK (deleted_at IS NULL OR NOT enabled),
  CONSTRAINT webhook_endpoint_previous_secret CHECK ((previous_secret IS NULL) = (previous_secret_until IS NULL))
);
CREATE TRIGGER webhook_endpoint_version BEFORE UPDATE ON webhook_endpoint
  FOR EACH ROW EXECUTE FUNCTION count_version();
-- Its deliveries are the record of what was sent: it goes by `deleted_at`, and its secret with it.
CREATE TRIGGER webhook_endpoint_kept BEFORE DELETE ON webhook_endpoint FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- Apart from the endpoint, whose version counts what people edit.
CREATE TABLE webhook_health (
  endpoint_id uuid PRIMARY KEY REFERENCES webhook_endpoint,
  failing_since timestamptz,
  failures integer NOT NULL DEFAULT 0,
  rest_until timestamptz,
  last_success_at timestamptz,
  last_failure_at timestamptz,
  slow boolean NOT NULL DEFAULT false,
  CONSTRAINT webhook_health_failing CHECK ((failing_since IS NULL) = (failures = 0)),
  CONSTRAINT webhook_health_counts CHECK (failures >= 0)
) WITH (fillfactor = 50);

CREATE TABLE webhook_delivery (
  id uuid PRIMARY KEY,
  endpoint_id uuid NOT NULL REFERENCES webhook_endpoint,
  event_id uuid NOT NULL REFERENCES event,
  status text NOT NULL DEFAULT 'queued',
  attempts integer NOT NULL DEFAULT 0,
  attempts_before integer NOT NULL DEFAULT 0,
  next_attempt_at timestamptz NOT NULL DEFAULT now(),
  leased_until timestamptz,
  last_attempt_at timestamptz,
  delivered_at timestamptz,
  dead_at timestamptz,
  response_status integer,
  last_error text,
  duration_ms integer,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT webhook_delivery_status CHECK (status IN ('queued','retrying','delivered','dead')),
  CONSTRAINT webhook_delivery_delivered_when CHECK ((status = 'delivered') = (delivered_at IS NOT NULL)),
  CONSTRAINT webhook_delivery_dead_when CHECK ((status = 'dead') = (dead_at IS NOT NULL)),
  CONSTRAINT webhook_delivery_attempts CHECK (attempts >= attempts_before AND attempts_before >= 0),
  CONSTRAINT webhook_delivery_answer CHECK (response_status BETWEEN 100 AND 999),
  CONSTRAINT webhook_delivery_once UNIQUE (event_id, endpoint_id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX webhook_delivery_due ON webhook_delivery (endpoint_id, next_attempt_at) WHERE status IN ('queued','retrying');
CREATE INDEX webhook_delivery_leased ON webhook_delivery (endpoint_id) WHERE leased_until IS NOT NULL;
CREATE INDEX webhook_delivery_listed ON webhook_delivery (endpoint_id, id DESC);
CREATE INDEX webhook_delivery_dead ON webhook_delivery (endpoint_id, id DESC) WHERE status = 'dead';
CREATE TRIGGER webhook_delivery_transition BEFORE UPDATE OF status ON webhook_delivery
  FOR EACH ROW EXECUTE FUNCTION guard_transition('webhook_delivery');
INSERT INTO lifecycle_transition VALUES
  ('webhook_delivery','queued','delivered'), ('webhook_delivery','queued','retrying'), ('webhook_delivery','queued','dead'),
  ('webhook_delivery','retrying','delivered'), ('webhook_delivery','retrying','dead'),
  ('webhook_delivery','dead','queued');
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(WEBHOOKS)
