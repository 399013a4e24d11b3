-- A small company whose identifiers can be computed from a number, and what the drills need inside the database: gates at which
-- a COMMIT waits, a switch that makes one statement slow, and a table that shows how often an effect took place.

CREATE FUNCTION drill_id(kind integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('00000000-0000-7000-80' || lpad(kind::text, 2, '0') || '-' || lpad(n::text, 12, '0'))::uuid
$$;

INSERT INTO tax_code (code, name, rate_bps) VALUES ('VAT-23', 'VAT', 2300);
INSERT INTO branch (id, code, name, timezone, currency, tax_code)
VALUES (drill_id(1, 0), 'LIS', 'Lisbon', 'Europe/Lisbon', 'EUR', 'VAT-23');
INSERT INTO vehicle_class (id, code, name, daily_rate, currency, late_fee_per_hour, cancellation_fee, no_show_fee)
VALUES (drill_id(2, 0), 'COMPACT', 'Compact', 4500, 'EUR', 1200, 2000, 4500);
INSERT INTO vehicle (id, plate_number, make, model, year, class_id, branch_id, currency)
SELECT drill_id(3, n), 'PL-' || n, 'Renault', 'Clio', 2024, drill_id(2, 0), drill_id(1, 0), 'EUR' FROM generate_series(0, 9999) n;
INSERT INTO customer (id, first_name, last_name, email, phone, driver_license_number, driver_license_expiry)
SELECT drill_id(4, n), 'Renter', 'Number ' || n, 'renter-' || n || '@example.com', '+351210000000', 'L' || n, '2099-12-31'
FROM generate_series(0, 49) n;
INSERT INTO user_account (id, email, password_hash, first_name, last_name, roles)
SELECT drill_id(5, n), 'clerk-' || n || '@example.com', 'never used', 'Clerk', 'Number ' || n, '{admin}' FROM generate_series(0, 99) n;
INSERT INTO user_session (id, user_id, expires_at)
SELECT drill_id(6, n), drill_id(5, n), now() + interval '30 days' FROM generate_series(0, 99) n;

CREATE TABLE drill_effect (message_id uuid NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE TABLE drill_switch (slow_s double precision NOT NULL);
INSERT INTO drill_switch VALUES (0);
-- For the service's triggers and the drills' consumer. Nobody else gives these rights: `db upgrade` ran before.
GRANT INSERT ON drill_effect TO fleet_runtime;
GRANT SELECT ON drill_switch TO fleet_runtime;

-- Whoever holds the advisory lock of the gate keeps every COMMIT waiting that would make such a row visible.
CREATE FUNCTION drill_gate() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::bigint);
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER drill_gate AFTER INSERT ON rental DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION drill_gate(1);
CREATE CONSTRAINT TRIGGER drill_gate AFTER INSERT ON journal_entry DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION drill_gate(2);
CREATE CONSTRAINT TRIGGER drill_gate AFTER UPDATE OF publishes ON outbox DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.publishes > OLD.publishes) EXECUTE FUNCTION drill_gate(3);

CREATE FUNCTION drill_slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_sleep(slow_s) FROM drill_switch WHERE slow_s > 0;
  RETURN NEW;
END $$;
CREATE TRIGGER drill_slow BEFORE INSERT ON rental FOR EACH ROW EXECUTE FUNCTION drill_slow();
CREATE CONSTRAINT TRIGGER drill_gate AFTER UPDATE OF status ON webhook_delivery DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'delivered') EXECUTE FUNCTION drill_gate(4);
CREATE CONSTRAINT TRIGGER drill_gate AFTER UPDATE OF status ON payment DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'captured') EXECUTE FUNCTION drill_gate(5);
CREATE CONSTRAINT TRIGGER drill_gate AFTER UPDATE OF status ON refund DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status = 'settled') EXECUTE FUNCTION drill_gate(6);
