"""Rentals and the one calendar that every use of a vehicle shares."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

RENTALS = """
CREATE SEQUENCE rental_number;

CREATE TABLE rental (
  id uuid PRIMARY KEY,
  number text NOT NULL,
  status text NOT NULL,
  vehicle_id uuid NOT NULL REFERENCES vehicle,
  class_id uuid REFERENCES vehicle_class,
  customer_id uuid NOT NULL REFERENCES customer,
  start_at timestamptz NOT NULL,
  end_at timestamptz NOT NULL,
  hold_expires_at timestamptz,
  actual_start_at timestamptz,
  actual_end_at timestamptz,
  pickup_branch_id uuid REFERENCES branch,
  dropoff_branch_id uuid REFERENCES branch,
  daily_rate bigint NOT NULL,
  currency text NOT NULL,
  base_amount bigint NOT NULL,
  total_amount bigint NOT NULL,
  deposit_amount bigint NOT NULL DEFAULT 0,
  terms jsonb NOT NULL,
  start_odometer_km integer,
  end_odometer_km integer,
  start_fuel_percent integer,
  end_fuel_percent integer,
  notes text,
  cancel_reason text,
  created_by uuid REFERENCES user_account,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT rental_status CHECK (
    status IN ('held','reserved','active','completed','cancelled','no_show','expired')
  ),
  CONSTRAINT rental_period CHECK (end_at - start_at BETWEEN interval '1 hour' AND interval '365 days'),
  CONSTRAINT rental_hold_expires CHECK (status <> 'held' OR hold_expires_at IS NOT NULL),
  CONSTRAINT rental_handed_over CHECK (
    status NOT IN ('active','completed') OR (actual_start_at IS NOT NULL AND start_odometer_km IS NOT NULL)
  ),
  CONSTRAINT rental_returned CHECK (
    status <> 'completed' OR (actual_end_at IS NOT NULL AND end_odometer_km IS NOT NULL)
  ),
  CONSTRAINT rental_returned_after_start CHECK (actual_end_at >= actual_start_at),
  CONSTRAINT rental_odometer CHECK (
    start_odometer_km BETWEEN 0 AND 10000000 AND end_odometer_km BETWEEN start_odometer_km AND 10000000
  ),
  CONSTRAINT rental_fuel CHECK (start_fuel_percent BETWEEN 0 AND 100 AND end_fuel_percent BETWEEN 0 AND 100),
  CONSTRAINT rental_currency CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT rental_amounts CHECK (
    daily_rate BETWEEN 1 AND 1000000000000 AND base_amount BETWEEN 0 AND 1000000000000
    AND total_amount BETWEEN 0 AND 1000000000000 AND deposit_amount BETWEEN 0 AND 1000000000000
  )
);
CREATE UNIQUE INDEX rental_number_key ON rental (number);
CREATE UNIQUE INDEX rental_vehicle_out_once ON rental (vehicle_id) WHERE status = 'active';
CREATE INDEX rental_customer ON rental (customer_id, id DESC);
CREATE INDEX rental_pickup_branch ON rental (pickup_branch_id, id DESC);
CREATE INDEX rental_by_status ON rental (status, id DESC);
CREATE INDEX rental_vehicle ON rental (vehicle_id, id DESC);
CREATE INDEX rental_held ON rental (hold_expires_at) WHERE status = 'held';
CREATE INDEX rental_reserved ON rental (start_at) WHERE status = 'reserved';
CREATE INDEX rental_active ON rental (end_at) WHERE status = 'active';
CREATE TRIGGER rental_version BEFORE UPDATE ON rental FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER rental_transition BEFORE UPDATE OF status ON rental
  FOR EACH ROW EXECUTE FUNCTION guard_transition('rental');
CREATE TRIGGER rental_kept BEFORE DELETE ON rental FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rental_never_emptied BEFORE TRUNCATE ON rental FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
INSERT INTO lifecycle_transition VALUES
  ('rental','held','reserved'), ('rental','held','expired'), ('rental','held','cancelled'),
  ('rental','reserved','active'), ('rental','reserved','cancelled'), ('rental','reserved','no_show'),
  ('rental','active','completed');
"""

CALENDAR = """
-- Everything that occupies a vehicle is one row here. Live rows are few: a finished one leaves the indexes by live = false.
CREATE TABLE vehicle_block (
  id uuid PRIMARY KEY,
  vehicle_id uuid NOT NULL REFERENCES vehicle,
  kind text NOT NULL,
  rental_id uuid REFERENCES rental,
  start_at timestamptz NOT NULL,
  end_at timestamptz NOT NULL,
  occupied tstzrange NOT NULL,
  live boolean NOT NULL DEFAULT true,
  reason text,
  created_by uuid REFERENCES user_account,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT vehicle_block_kind CHECK (
    kind IN ('hold','reservation','rental','maintenance','manual','transfer')
  ),
  CONSTRAINT vehicle_block_of_rental CHECK ((kind IN ('hold','reservation','rental')) = (rental_id IS NOT NULL)),
  CONSTRAINT vehicle_block_period CHECK (end_at > start_at),
  -- An empty range conflicts with nothing, and an unbounded one with everything: both would be a hole in the calendar.
  CONSTRAINT vehicle_block_occupied CHECK (
    NOT isempty(occupied) AND lower_inc(occupied) AND NOT upper_inc(occupied)
    AND lower(occupied) IS NOT NULL AND upper(occupied) IS NOT NULL
    AND lower(occupied) <= start_at AND upper(occupied) >= end_at
  ),
  CONSTRAINT vehicle_block_no_overlap EXCLUDE USING gist (vehicle_id WITH =, occupied WITH &&) WHERE (live)
);
CREATE UNIQUE INDEX vehicle_block_rental_key ON vehicle_block (rental_id);
CREATE INDEX vehicle_block_vehicle ON vehicle_block (vehicle_id, start_at);
CREATE INDEX vehicle_block_live_end ON vehicle_block (vehicle_id, end_at) WHERE live;

-- How the statement that writes a reservation says that it wrote none: its COMMIT, sent along with it, is then not reached.
CREATE FUNCTION refuse_overlap() RETURNS uuid LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RAISE EXCEPTION 'the vehicle is taken' USING ERRCODE = '23P01', CONSTRAINT = 'vehicle_block_no_overlap';
END $$;

CREATE TABLE rental_charge (
  id uuid PRIMARY KEY,
  rental_id uuid NOT NULL REFERENCES rental,
  type text NOT NULL,
  description text NOT NULL,
  amount bigint NOT NULL,
  created_by uuid REFERENCES user_account,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT rental_charge_type CHECK (
    type IN ('fuel','damage','late_fee','cleaning','toll','fine','other')
  ),
  CONSTRAINT rental_charge_amount CHECK (amount BETWEEN 1 AND 1000000000000)
);
CREATE INDEX rental_charge_rental ON rental_charge (rental_id, id);
CREATE TRIGGER rental_charge_kept BEFORE UPDATE OR DELETE ON rental_charge
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER rental_charge_never_emptied BEFORE TRUNCATE ON rental_charge
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(RENTALS)
    db.execute_sql(CALENDAR)
