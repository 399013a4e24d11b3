"""Branches, classes, vehicles, their odometers and the customers who rent them."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

PLACES = """
CREATE TABLE tax_code (
  code text PRIMARY KEY,
  name text NOT NULL,
  rate_bps integer NOT NULL,
  CONSTRAINT tax_code_rate CHECK (rate_bps BETWEEN 0 AND 10000)
);
INSERT INTO tax_code (code, name, rate_bps) VALUES ('NONE', 'No tax', 0);

CREATE TABLE branch (
  id uuid PRIMARY KEY,
  code text NOT NULL,
  name text NOT NULL,
  timezone text NOT NULL,
  currency text NOT NULL,
  tax_code text NOT NULL DEFAULT 'NONE' REFERENCES tax_code,
  address text,
  phone text,
  email text,
  opening_hours jsonb NOT NULL DEFAULT '{}',
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT branch_currency CHECK (currency ~ '^[A-Z]{3}$')
);
CREATE UNIQUE INDEX branch_code_key ON branch (code);
CREATE TRIGGER branch_version BEFORE UPDATE ON branch FOR EACH ROW EXECUTE FUNCTION count_version();

CREATE TABLE vehicle_class (
  id uuid PRIMARY KEY,
  code text NOT NULL,
  name text NOT NULL,
  description text,
  daily_rate bigint,
  currency text NOT NULL,
  late_fee_per_hour bigint NOT NULL DEFAULT 0,
  fuel_fee_per_percent bigint NOT NULL DEFAULT 0,
  cancellation_fee bigint NOT NULL DEFAULT 0,
  free_cancellation_hours integer NOT NULL DEFAULT 24,
  no_show_fee bigint NOT NULL DEFAULT 0,
  turnaround_before_minutes integer NOT NULL DEFAULT 0,
  turnaround_after_minutes integer NOT NULL DEFAULT 0,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT vehicle_class_currency CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT vehicle_class_amounts CHECK (
    daily_rate BETWEEN 1 AND 1000000000000
    AND late_fee_per_hour BETWEEN 0 AND 1000000000000 AND fuel_fee_per_percent BETWEEN 0 AND 1000000000000
    AND cancellation_fee BETWEEN 0 AND 1000000000000 AND no_show_fee BETWEEN 0 AND 1000000000000
  ),
  CONSTRAINT vehicle_class_minutes CHECK (
    turnaround_before_minutes BETWEEN 0 AND 1440 AND turnaround_after_minutes BETWEEN 0 AND 1440
    AND free_cancellation_hours BETWEEN 0 AND 8760
  )
);
CREATE UNIQUE INDEX vehicle_class_code_key ON vehicle_class (code);
CREATE UNIQUE INDEX vehicle_class_id_currency ON vehicle_class (id, currency);
CREATE TRIGGER vehicle_class_version BEFORE UPDATE ON vehicle_class FOR EACH ROW EXECUTE FUNCTION count_version();
"""

VEHICLES = """
CREATE TABLE vehicle (
  id uuid PRIMARY KEY,
  plate_number text NOT NULL,
  vin text,
  make text NOT NULL,
  model text NOT NULL,
  year integer NOT NULL,
  class_id uuid,
  branch_id uuid REFERENCES branch,
  status text NOT NULL DEFAULT 'in_service',
  fuel_type text,
  transmission text,
  color text,
  passenger_capacity integer,
  odometer_km integer NOT NULL DEFAULT 0,
  odometer_epoch integer NOT NULL DEFAULT 1,
  initial_odometer_km integer NOT NULL DEFAULT 0,
  daily_rate bigint,
  currency text NOT NULL,
  retired_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  -- A vehicle without a rate of its own is priced by its class, so both must speak of the same money.
  CONSTRAINT vehicle_of_class FOREIGN KEY (class_id, currency) REFERENCES vehicle_class (id, currency),
  CONSTRAINT vehicle_status CHECK (status IN ('onboarding','in_service','out_of_service','sold','written_off')),
  CONSTRAINT vehicle_year CHECK (year BETWEEN 1900 AND 2100),
  CONSTRAINT vehicle_currency CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT vehicle_daily_rate CHECK (daily_rate BETWEEN 1 AND 1000000000000),
  CONSTRAINT vehicle_rate_somewhere CHECK (daily_rate IS NOT NULL OR class_id IS NOT NULL),
  CONSTRAINT vehicle_odometer CHECK (odometer_km BETWEEN 0 AND 10000000),
  CONSTRAINT vehicle_seats CHECK (passenger_capacity BETWEEN 1 AND 100),
  CONSTRAINT vehicle_retired_is_out CHECK (retired_at IS NULL OR status <> 'in_service')
);
CREATE UNIQUE INDEX vehicle_plate_number_key ON vehicle (plate_number);
CREATE UNIQUE INDEX vehicle_vin_key ON vehicle (vin);
CREATE INDEX vehicle_class_branch ON vehicle (class_id, branch_id, id DESC) WHERE status = 'in_service';
CREATE INDEX vehicle_branch ON vehicle (branch_id, id DESC);
CREATE TRIGGER vehicle_version BEFORE UPDATE ON vehicle FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER vehicle_transition BEFORE UPDATE OF status ON vehicle
  FOR EACH ROW EXECUTE FUNCTION guard_transition('vehicle');

-- What the vehicle came with is the floor of every later reading, however it was entered.
CREATE FUNCTION keep_initial_odometer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.initial_odometer_km := NEW.odometer_km;
  RETURN NEW;
END $$;
CREATE TRIGGER vehicle_initial_odometer BEFORE INSERT ON vehicle
  FOR EACH ROW EXECUTE FUNCTION keep_initial_odometer();
INSERT INTO lifecycle_transition VALUES
  ('vehicle','onboarding','in_service'),
  ('vehicle','in_service','out_of_service'), ('vehicle','out_of_service','in_service'),
  ('vehicle','in_service','sold'), ('vehicle','out_of_service','sold'),
  ('vehicle','in_service','written_off'), ('vehicle','out_of_service','written_off');

CREATE TABLE odometer_reading (
  id uuid PRIMARY KEY,
  vehicle_id uuid NOT NULL REFERENCES vehicle ON DELETE RESTRICT,
  epoch integer NOT NULL,
  reading_km integer NOT NULL,
  measured_at timestamptz NOT NULL,
  source text NOT NULL,
  recorded_by uuid REFERENCES user_account,
  voided_at timestamptz,
  void_reason text,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT odometer_reading_km CHECK (reading_km BETWEEN 0 AND 10000000),
  CONSTRAINT odometer_reading_source CHECK (source IN ('manual','handover','return')),
  CONSTRAINT odometer_void_has_reason CHECK ((voided_at IS NULL) = (void_reason IS NULL))
);
CREATE INDEX odometer_reading_vehicle ON odometer_reading (vehicle_id, epoch, measured_at);
CREATE INDEX odometer_reading_newest ON odometer_reading (vehicle_id, id DESC);

-- Two readings typed at once could each look in order alone: the vehicle's lock makes the second one see the first.
CREATE FUNCTION guard_odometer() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  held vehicle;
BEGIN
  SELECT * INTO held FROM vehicle WHERE id = NEW.vehicle_id FOR NO KEY UPDATE;
  IF (NEW.epoch = 1 AND NEW.measured_at >= held.created_at AND NEW.reading_km < held.initial_odometer_km) OR EXISTS (
    SELECT 1 FROM odometer_reading
    WHERE vehicle_id = NEW.vehicle_id AND epoch = NEW.epoch AND voided_at IS NULL
      AND ((measured_at <= NEW.measured_at AND reading_km > NEW.reading_km)
        OR (measured_at >= NEW.measured_at AND reading_km < NEW.reading_km))
  ) THEN
    RAISE EXCEPTION 'odometer reading out of sequence'
      USING ERRCODE = '23514', CONSTRAINT = 'odometer_sequence';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER odometer_sequence BEFORE INSERT ON odometer_reading
  FOR EACH ROW EXECUTE FUNCTION guard_odometer();

CREATE FUNCTION guard_reading_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.voided_at IS NOT NULL
    OR (NEW.vehicle_id, NEW.epoch, NEW.reading_km, NEW.measured_at, NEW.source, NEW.recorded_by, NEW.created_at)
       IS DISTINCT FROM
       (OLD.vehicle_id, OLD.epoch, OLD.reading_km, OLD.measured_at, OLD.source, OLD.recorded_by, OLD.created_at)
  THEN
    RAISE EXCEPTION 'a reading is voided, never edited'
      USING ERRCODE = '23001', CONSTRAINT = 'odometer_reading_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER odometer_reading_kept BEFORE UPDATE ON odometer_reading
  FOR EACH ROW EXECUTE FUNCTION guard_reading_kept();
CREATE TRIGGER odometer_reading_never_deleted BEFORE DELETE ON odometer_reading
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER odometer_reading_never_emptied BEFORE TRUNCATE ON odometer_reading
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

CUSTOMERS = """
CREATE TABLE customer (
  id uuid PRIMARY KEY,
  user_id uuid REFERENCES user_account,
  first_name text NOT NULL,
  last_name text NOT NULL,
  email text NOT NULL,
  phone text NOT NULL,
  driver_license_number text NOT NULL,
  driver_license_expiry date NOT NULL,
  address text,
  date_of_birth date,
  language text NOT NULL DEFAULT 'en',
  status text NOT NULL DEFAULT 'active',
  erased_at timestamptz,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT customer_status CHECK (status IN ('active','deactivated')),
  CONSTRAINT customer_email_lower CHECK (email = lower(email)),
  CONSTRAINT customer_erased_is_deactivated CHECK (erased_at IS NULL OR status = 'deactivated')
);
CREATE UNIQUE INDEX customer_email_key ON customer (email);
CREATE UNIQUE INDEX customer_driver_license_number_key ON customer (driver_license_number);
CREATE UNIQUE INDEX customer_user_key ON customer (user_id);
-- text_pattern_ops: whatever the database's collation is, the beginning of a name or address is found by these.
CREATE INDEX customer_email_begins ON customer (email text_pattern_ops);
CREATE INDEX customer_name_begins ON customer (lower(first_name || ' ' || last_name) text_pattern_ops);
CREATE INDEX customer_last_name_begins ON customer (lower(last_name) text_pattern_ops);
CREATE TRIGGER customer_version BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER customer_kept BEFORE DELETE ON customer FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER customer_never_emptied BEFORE TRUNCATE ON customer
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(PLACES)
    db.execute_sql(VEHICLES)
    db.execute_sql(CUSTOMERS)
