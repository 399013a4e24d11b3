-- A big fleet's past: 5,000 vehicles, 20,000 customers who all have accounts, 94,700 rentals that are over. Identifiers can be
-- computed from a number, here and in Python. What is open is in big_fleet_open.sql.

CREATE FUNCTION pg_temp.id(kind integer, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
  SELECT ('00000000-0000-7000-80' || lpad(kind::text, 2, '0') || '-' || lpad(n::text, 12, '0'))::uuid
$$;

INSERT INTO branch (id, code, name, timezone, currency)
SELECT pg_temp.id(1, n), 'B' || n, 'Branch ' || n, 'Europe/Lisbon', 'EUR' FROM generate_series(0, 49) n;

INSERT INTO vehicle_class (id, code, name, daily_rate, currency, turnaround_after_minutes)
SELECT pg_temp.id(2, n), 'C' || n, 'Class ' || n, 3000 + 500 * n, 'EUR', 60 FROM generate_series(0, 9) n;

INSERT INTO vehicle (id, plate_number, vin, make, model, year, class_id, branch_id, currency)
SELECT pg_temp.id(3, n), 'PL-' || n, 'VIN' || n, 'Make ' || n % 12, 'Model ' || n % 60, 2024,
  pg_temp.id(2, n / 50 % 10), pg_temp.id(1, n % 50), 'EUR'
FROM generate_series(0, 4999) n;

INSERT INTO user_account (id, email, password_hash, first_name, last_name, roles)
SELECT pg_temp.id(5, n), 'user-' || n || '@example.com', 'never used', 'User', 'Number ' || n, '{customer}'
FROM generate_series(0, 19999) n;

INSERT INTO customer (id, user_id, first_name, last_name, email, phone, driver_license_number, driver_license_expiry)
SELECT pg_temp.id(4, n), pg_temp.id(5, n), 'First ' || n % 500, 'Last ' || n, 'renter-' || n || '@example.com', '+351210000000',
  'L' || n, '2099-12-31'
FROM generate_series(0, 19999) n;

INSERT INTO user_session (id, user_id, expires_at)
SELECT pg_temp.id(6, n), pg_temp.id(5, n), now() + interval '30 days' FROM generate_series(0, 19999) n;

INSERT INTO api_key (id, user_id, name, prefix, key_hash, permissions, expires_at)
SELECT pg_temp.id(10, n), pg_temp.id(5, n), 'Key', 'flk', int4send(n), '{}', now() + interval '30 days'
FROM generate_series(0, 19999) n;

INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body)
SELECT 'user:' || pg_temp.id(5, n % 400), 'POST', '/v1/rentals', 'key-' || n, int4send(n), 201, '{}', convert_to(repeat('x', 1000), 'UTF8')
FROM generate_series(0, 19999) n;

CREATE FUNCTION pg_temp.rent(state text, numbers int4range, vehicles integer, first interval, length interval, every interval)
RETURNS void LANGUAGE sql AS $$
  WITH made AS (
    INSERT INTO rental (id, number, status, vehicle_id, class_id, customer_id, start_at, end_at, hold_expires_at,
      actual_start_at, start_odometer_km, actual_end_at, end_odometer_km, pickup_branch_id, dropoff_branch_id,
      daily_rate, currency, base_amount, total_amount, terms)
    SELECT pg_temp.id(7, n), 'RNT-' || n, state, pg_temp.id(3, k % vehicles), pg_temp.id(2, k % vehicles / 50 % 10),
      pg_temp.id(4, n * 7919::bigint % 20000), t.start_at, t.start_at + length,
      CASE WHEN state = 'held' THEN now() + interval '1 minute' * (k - 20) END,
      CASE WHEN state IN ('active', 'completed') THEN t.start_at END, CASE WHEN state IN ('active', 'completed') THEN 1000 END,
      CASE WHEN state = 'completed' THEN t.start_at + length END, CASE WHEN state = 'completed' THEN 1400 END,
      pg_temp.id(1, k % 50), pg_temp.id(1, k % 50), 4000, 'EUR', 8000, 8000, '{"daily_rate": 4000, "currency": "EUR"}'
    FROM (SELECT n, n - lower(numbers) AS k FROM generate_series(lower(numbers), upper(numbers) - 1) n) counted,
      LATERAL (SELECT now() + first + every * (k / vehicles) + interval '1 minute' * (k % 1440) AS start_at) t
    RETURNING *
  )
  INSERT INTO vehicle_block (id, vehicle_id, kind, rental_id, start_at, end_at, occupied, live)
  SELECT gen_random_uuid(), vehicle_id, CASE status WHEN 'held' THEN 'hold' WHEN 'reserved' THEN 'reservation' ELSE 'rental' END,
    id, start_at, end_at, tstzrange(start_at, end_at + interval '1 hour'), status <> 'completed'
  FROM made
$$;

-- Each vehicle was out every 24 days.
SELECT pg_temp.rent('completed', '[0,94700)', 5000, '-500 days', '3 days', '24 days');
