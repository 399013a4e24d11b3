"""Payments, refunds and disputes: money that comes in, goes back, and is taken back by the cardholder's bank."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

# What a pending card payment asks for is kept from everybody else until it is captured or failed.
INVOICE = """
ALTER TABLE invoice ADD COLUMN pending_amount bigint NOT NULL DEFAULT 0;
ALTER TABLE invoice DROP CONSTRAINT invoice_not_oversettled,
  ADD CONSTRAINT invoice_not_oversettled CHECK (
    settled_amount >= 0 AND credited_amount >= 0 AND pending_amount >= 0
    AND settled_amount + credited_amount + pending_amount <= total_amount
  ),
  ADD CONSTRAINT invoice_owner_currency UNIQUE (id, customer_id, currency);
"""

PAYMENT = """
CREATE TABLE payment (
  id uuid PRIMARY KEY,
  status text NOT NULL,
  invoice_id uuid NOT NULL,
  customer_id uuid NOT NULL,
  currency text NOT NULL,
  amount bigint NOT NULL,
  refunded_amount bigint NOT NULL DEFAULT 0,
  method text NOT NULL,
  reference text,
  recorded_by uuid REFERENCES user_account,
  captured_at timestamptz,
  failed_at timestamptz,
  failure_code text,
  gateway_reference text,
  claim bytea,
  request_print bytea,
  attempt_ends_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT payment_status CHECK (status IN ('pending','captured','failed','disputed','lost')),
  CONSTRAINT payment_method CHECK (method IN ('cash','bank_transfer','wallet','card')),
  CONSTRAINT payment_gateway_only_for_cards CHECK (
    method = 'card' OR (status = 'captured' AND gateway_reference IS NULL)
  ),
  CONSTRAINT payment_amount CHECK (amount BETWEEN 1 AND 1000000000000),
  CONSTRAINT payment_captured_at CHECK ((captured_at IS NOT NULL) = (status IN ('captured','disputed','lost'))),
  CONSTRAINT payment_failure CHECK (
    (failed_at IS NOT NULL) = (status = 'failed') AND (failure_code IS NOT NULL) = (status = 'failed')
  ),
  CONSTRAINT payment_not_overrefunded CHECK (
    refunded_amount BETWEEN 0 AND CASE WHEN captured_at IS NULL THEN 0 ELSE amount END
  ),
  CONSTRAINT payment_claim CHECK ((claim IS NULL) = (request_print IS NULL)),
  CONSTRAINT payment_of_invoice FOREIGN KEY (invoice_id, customer_id, currency)
    REFERENCES invoice (id, customer_id, currency)
);
CREATE UNIQUE INDEX payment_gateway_reference_key ON payment (gateway_reference);
CREATE UNIQUE INDEX payment_claim_key ON payment (claim);
CREATE INDEX payment_by_invoice ON payment (invoice_id, id DESC);
CREATE INDEX payment_by_customer ON payment (customer_id, id DESC);
CREATE INDEX payment_by_status ON payment (status, id DESC);
CREATE INDEX payment_pending ON payment (attempt_ends_at) WHERE status = 'pending';
CREATE TRIGGER payment_version BEFORE UPDATE ON payment FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER payment_transition BEFORE UPDATE OF status ON payment
  FOR EACH ROW EXECUTE FUNCTION guard_transition('payment');

-- What was asked for is what was paid: only the state, its times, what was refunded and what the gateway says may move.
CREATE FUNCTION guard_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.invoice_id, NEW.customer_id, NEW.currency, NEW.amount, NEW.method, NEW.recorded_by, NEW.created_at)
    IS DISTINCT FROM
    (OLD.id, OLD.invoice_id, OLD.customer_id, OLD.currency, OLD.amount, OLD.method, OLD.recorded_by, OLD.created_at)
    OR (OLD.captured_at IS NOT NULL AND NEW.captured_at IS DISTINCT FROM OLD.captured_at)
    OR (OLD.gateway_reference IS NOT NULL AND NEW.gateway_reference IS DISTINCT FROM OLD.gateway_reference)
  THEN
    RAISE EXCEPTION 'a payment is corrected by a refund' USING ERRCODE = '23001', CONSTRAINT = 'payment_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER payment_fixed BEFORE UPDATE ON payment FOR EACH ROW EXECUTE FUNCTION guard_payment();
CREATE TRIGGER payment_kept BEFORE DELETE ON payment FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payment_never_emptied BEFORE TRUNCATE ON payment FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
INSERT INTO lifecycle_transition VALUES
  ('payment','pending','captured'), ('payment','pending','failed'), ('payment','captured','disputed'),
  ('payment','disputed','captured'), ('payment','disputed','lost');
"""

REFUND = """
CREATE TABLE refund (
  id uuid PRIMARY KEY,
  status text NOT NULL,
  payment_id uuid NOT NULL REFERENCES payment,
  amount bigint NOT NULL,
  reason text,
  needs_approval boolean NOT NULL,
  requested_by uuid NOT NULL REFERENCES user_account,
  approved_by uuid REFERENCES user_account,
  approved_at timestamptz,
  sent_at timestamptz,
  settled_at timestamptz,
  failed_at timestamptz,
  failure_code text,
  gateway_reference text,
  attempt_ends_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT refund_status CHECK (status IN ('requested','approved','sent','settled','failed')),
  CONSTRAINT refund_amount CHECK (amount BETWEEN 1 AND 1000000000000),
  CONSTRAINT refund_approved CHECK ((approved_at IS NULL) = (status = 'requested')),
  CONSTRAINT refund_second_person CHECK (
    (approved_by IS NULL OR (needs_approval AND approved_by <> requested_by))
    AND (NOT needs_approval OR status = 'requested' OR approved_by IS NOT NULL)
  ),
  CONSTRAINT refund_sent_at CHECK ((sent_at IS NOT NULL) = (status IN ('sent','settled','failed'))),
  CONSTRAINT refund_settled_at CHECK ((settled_at IS NOT NULL) = (status = 'settled')),
  CONSTRAINT refund_failure CHECK (
    (failed_at IS NOT NULL) = (status = 'failed') AND (failure_code IS NOT NULL) = (status = 'failed')
  )
);
CREATE UNIQUE INDEX refund_gateway_reference_key ON refund (gateway_reference);
CREATE INDEX refund_by_payment ON refund (payment_id, id DESC);
CREATE INDEX refund_sent ON refund (attempt_ends_at) WHERE status = 'sent';
CREATE TRIGGER refund_version BEFORE UPDATE ON refund FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER refund_transition BEFORE UPDATE OF status ON refund
  FOR EACH ROW EXECUTE FUNCTION guard_transition('refund');

CREATE FUNCTION guard_refund() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.payment_id, NEW.amount, NEW.needs_approval, NEW.requested_by, NEW.created_at)
    IS DISTINCT FROM (OLD.id, OLD.payment_id, OLD.amount, OLD.needs_approval, OLD.requested_by, OLD.created_at)
    OR (OLD.approved_at IS NOT NULL AND (NEW.approved_by, NEW.approved_at) IS DISTINCT FROM (OLD.approved_by, OLD.approved_at))
    OR (OLD.settled_at IS NOT NULL AND NEW.settled_at IS DISTINCT FROM OLD.settled_at)
    OR (OLD.failed_at IS NOT NULL AND NEW.failed_at IS DISTINCT FROM OLD.failed_at)
  THEN
    RAISE EXCEPTION 'a refund says the same for ever' USING ERRCODE = '23001', CONSTRAINT = 'refund_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER refund_fixed BEFORE UPDATE ON refund FOR EACH ROW EXECUTE FUNCTION guard_refund();
CREATE TRIGGER refund_kept BEFORE DELETE ON refund FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER refund_never_emptied BEFORE TRUNCATE ON refund FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
INSERT INTO lifecycle_transition VALUES
  ('refund','requested','approved'), ('refund','approved','sent'), ('refund','sent','settled'), ('refund','sent','failed');
"""

DISPUTE = """
CREATE TABLE dispute (
  id uuid PRIMARY KEY,
  status text NOT NULL,
  payment_id uuid NOT NULL REFERENCES payment,
  amount bigint NOT NULL,
  fee_amount bigint NOT NULL DEFAULT 0,
  reason text,
  gateway_reference text NOT NULL,
  closed_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT dispute_status CHECK (status IN ('open','won','lost')),
  CONSTRAINT dispute_amounts CHECK (
    amount BETWEEN 1 AND 1000000000000 AND fee_amount BETWEEN 0 AND 1000000000000
  ),
  CONSTRAINT dispute_closed_at CHECK ((closed_at IS NULL) = (status = 'open'))
);
CREATE UNIQUE INDEX dispute_gateway_reference_key ON dispute (gateway_reference);
CREATE UNIQUE INDEX dispute_one_open ON dispute (payment_id) WHERE status = 'open';
CREATE INDEX dispute_by_payment ON dispute (payment_id, id DESC);
CREATE TRIGGER dispute_version BEFORE UPDATE ON dispute FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER dispute_transition BEFORE UPDATE OF status ON dispute
  FOR EACH ROW EXECUTE FUNCTION guard_transition('dispute');

CREATE FUNCTION guard_dispute() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (NEW.id, NEW.payment_id, NEW.amount, NEW.fee_amount, NEW.gateway_reference, NEW.created_at)
    IS DISTINCT FROM (OLD.id, OLD.payment_id, OLD.amount, OLD.fee_amount, OLD.gateway_reference, OLD.created_at)
    OR (OLD.closed_at IS NOT NULL AND NEW.closed_at IS DISTINCT FROM OLD.closed_at)
  THEN
    RAISE EXCEPTION 'a dispute says the same for ever' USING ERRCODE = '23001', CONSTRAINT = 'dispute_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER dispute_fixed BEFORE UPDATE ON dispute FOR EACH ROW EXECUTE FUNCTION guard_dispute();
CREATE TRIGGER dispute_kept BEFORE DELETE ON dispute FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER dispute_never_emptied BEFORE TRUNCATE ON dispute FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
INSERT INTO lifecycle_transition VALUES ('dispute','open','won'), ('dispute','open','lost');
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    for sql in (INVOICE, PAYMENT, REFUND, DISPUTE):
        db.execute_sql(sql)
