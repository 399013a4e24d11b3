-- A fleet of a size that a city has: 20 branches, 2,000 vehicles, 20,000 customers, 5,000 rentals, 400 counter clerks, and
-- what yesterday left in the tables that are emptied again and again. Plans for empty tables would be of another kind.
-- Identifiers can be computed from a number, here and in Python, so that requests can be rendered without asking.

CREATE SCHEMA bench;

CREATE FUNCTION bench.id(kind integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT ('00000000-0000-7000-80' || lpad(kind::text, 2, '0') || '-' || lpad(n::text, 12, '0'))::uuid
$$;

INSERT INTO tax_code (code, name, rate_bps) VALUES ('VAT-23', 'VAT', 2300);

INSERT INTO branch (id, code, name, timezone, currency, tax_code)
SELECT bench.id(1, n), 'B' || n, 'Branch ' || n, (ARRAY['Europe/Lisbon','Europe/Berlin','America/New_York','Asia/Tokyo'])[1 + n % 4],
  'EUR', 'VAT-23'
FROM generate_series(0, 19) n;

INSERT INTO vehicle_class (id, code, name, daily_rate, currency, late_fee_per_hour, fuel_fee_per_percent, cancellation_fee,
  no_show_fee, turnaround_after_minutes)
SELECT bench.id(2, n), 'C' || n, 'Class ' || n, 3000 + 500 * n, 'EUR', 1200, 100, 2000, 4500, 60
FROM generate_series(0, 7) n;

INSERT INTO vehicle (id, plate_number, vin, make, model, year, class_id, branch_id, currency, odometer_km, fuel_type, transmission,
  color, passenger_capacity)
SELECT bench.id(3, n), 'PL-' || n, 'VIN' || lpad(n::text, 14, '0'), 'Make ' || n % 12, 'Model ' || n % 60, 2020 + n % 6,
  bench.id(2, n / 20 % 8), bench.id(1, n % 20), 'EUR', 1000 + n * 7, 'petrol', 'manual', 'white', 5
FROM generate_series(0, 1999) n;

INSERT INTO customer (id, first_name, last_name, email, phone, driver_license_number, driver_license_expiry)
SELECT bench.id(4, n), 'First ' || n % 500, 'Last ' || n, 'renter-' || n || '@example.com', '+351210000000', 'L' || n, '2099-12-31'
FROM generate_series(0, 19999) n;

INSERT INTO user_account (id, email, password_hash, first_name, last_name, roles)
SELECT bench.id(5, n), 'clerk-' || n || '@example.com', 'never used', 'Clerk', 'Number ' || n, '{rental_agent}'
FROM generate_series(0, 399) n;

INSERT INTO user_session (id, user_id, expires_at)
SELECT bench.id(6, n), bench.id(5, n), now() + interval '30 days' FROM generate_series(0, 399) n;

-- Three fifths are history, the rest is to come: one in the next week for nearly every vehicle.
CREATE TEMPORARY TABLE planned AS
SELECT n, bench.id(7, n) AS id, bench.id(3, n % 2000) AS vehicle_id, n < 3000 AS over,
  date_trunc('hour', now()) + CASE
    WHEN n < 3000 THEN interval '1 day' * (-10 - 5 * (n / 2000)) - interval '1 hour' * (n % 48)
    ELSE interval '1 day' * (2 + n % 7) + interval '1 hour' * (n % 24)
  END AS start_at
FROM generate_series(0, 4999) n;

INSERT INTO rental (id, number, status, vehicle_id, class_id, customer_id, start_at, end_at, actual_start_at, actual_end_at,
  pickup_branch_id, dropoff_branch_id, daily_rate, currency, base_amount, total_amount, terms, start_odometer_km,
  end_odometer_km, start_fuel_percent, end_fuel_percent, created_by)
SELECT p.id, 'RNT-2000-' || lpad(p.n::text, 6, '0'), CASE WHEN over THEN 'completed' ELSE 'reserved' END, p.vehicle_id, v.class_id,
  bench.id(4, p.n % 20000), start_at, start_at + interval '2 days', CASE WHEN over THEN start_at END,
  CASE WHEN over THEN start_at + interval '2 days' END, v.branch_id, v.branch_id, 4000, 'EUR', 8000, 8000,
  '{"daily_rate": 4000, "currency": "EUR", "timezone": "Europe/Lisbon", "grace_minutes": 59, "late_fee_per_hour": 1200,
    "fuel_fee_per_percent": 100, "cancellation_fee": 2000, "free_cancellation_hours": 24, "no_show_fee": 4500,
    "tax_code": "VAT-23", "tax_bps": 2300}',
  CASE WHEN over THEN 1000 END, CASE WHEN over THEN 1400 END, CASE WHEN over THEN 100 END, CASE WHEN over THEN 90 END,
  bench.id(5, p.n % 400)
FROM planned p JOIN vehicle v ON v.id = p.vehicle_id ORDER BY p.n;

INSERT INTO vehicle_block (id, vehicle_id, kind, rental_id, start_at, end_at, occupied, live, created_by)
SELECT bench.id(8, n), vehicle_id, CASE WHEN over THEN 'rental' ELSE 'reservation' END, id, start_at, start_at + interval '2 days',
  tstzrange(start_at, start_at + interval '2 days 1 hour'), NOT over, bench.id(5, n % 400)
FROM planned;

INSERT INTO rental_charge (id, rental_id, type, description, amount)
SELECT bench.id(9, n), id, 'cleaning', 'Cleaning', 2500 FROM planned WHERE over;

INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body, created_at)
SELECT 'user:' || bench.id(5, n % 400), 'POST', '/v1/rentals', 'yesterday-' || n, sha256(n::text::bytea), 201, '{"ETag": "\"1\""}',
  convert_to(repeat('x', 1000), 'UTF8'), now() - interval '1 hour' * (n % 24)
FROM generate_series(0, 19999) n;

INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, created_at, next_attempt_at, publishes, deliveries, confirmed_at)
SELECT bench.id(10, n), 'notifications.rental_reserved', 'notifications', 'rental', bench.id(7, n % 5000),
  now() - interval '1 hour' * (n % 24), now() - interval '1 hour' * (n % 24), 1, 1, now() - interval '1 hour' * (n % 24)
FROM generate_series(0, 19999) n;

SELECT setval('rental_number', 10000);
DROP TABLE planned;
