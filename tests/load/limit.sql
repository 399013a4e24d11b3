-- The limit: everything that a reservation reads and leaves behind, decided inside PostgreSQL in one call. No service can be
-- quicker on these tables; how much of this it reaches is what its round trips, its Python and its HTTP leave.

-- Hands out times that nobody else asks for; sessions take them a thousand at a time, so that this costs nothing.
CREATE SEQUENCE bench.slot CACHE 1000;

-- A plain name means the variable wherever a column has the same one.
CREATE FUNCTION bench.reserve(clerk integer, renter integer, key_number bigint, first_day timestamptz)
RETURNS bytea LANGUAGE plpgsql AS $$
#variable_conflict use_variable
DECLARE
  now_at timestamptz := now();
  mixed bigint := nextval('bench.slot') * 2654435761 % 6000000;
  wanted uuid := bench.id(3, mixed % 2000);
  start_at timestamptz := first_day + interval '6 hours' * (mixed / 2000);
  end_at timestamptz := start_at + interval '4 hours';
  caller text := 'user:' || bench.id(5, clerk);
  sent text := 'key-' || key_number;
  rental_id uuid := uuidv7();
  rental_number text := 'RNT-L-' || nextval('rental_number');
  who record;
  offer record;
  amount bigint;
  answer bytea;
BEGIN
  PERFORM FROM idempotency_record r WHERE r.actor = caller AND r.method = 'POST' AND r.path = '/v1/rentals' AND r.key = sent;
  IF FOUND THEN
    RETURN NULL;
  END IF;
  SELECT c.id, c.status, c.first_name, c.last_name INTO who FROM customer c WHERE c.id = bench.id(4, renter);
  SELECT v.id, v.plate_number, v.make, v.model, v.class_id, v.branch_id, v.currency, coalesce(v.daily_rate, k.daily_rate) AS rate,
    k.turnaround_before_minutes, k.turnaround_after_minutes, k.late_fee_per_hour, k.fuel_fee_per_percent, k.cancellation_fee,
    k.free_cancellation_hours, k.no_show_fee, b.timezone, t.code, t.rate_bps
  INTO offer
  FROM (SELECT * FROM vehicle WHERE id = wanted AND status = 'in_service' FOR SHARE) v
  LEFT JOIN vehicle_class k ON k.id = v.class_id LEFT JOIN branch b ON b.id = v.branch_id LEFT JOIN tax_code t ON t.code = b.tax_code;
  IF NOT FOUND OR who.status <> 'active' THEN
    RETURN NULL;
  END IF;
  amount := offer.rate * greatest(1, ceil(extract(epoch FROM end_at - start_at) / 86400));
  answer := convert_to(json_build_object('id', rental_id, 'number', rental_number, 'status', 'reserved', 'overdue', false,
    'vehicle_id', wanted,
    'vehicle', json_build_object('plate_number', offer.plate_number, 'make', offer.make, 'model', offer.model),
    'class_id', offer.class_id, 'customer_id', who.id,
    'customer', json_build_object('first_name', who.first_name, 'last_name', who.last_name), 'driver_id', NULL,
    'start_at', start_at, 'end_at', end_at, 'hold_expires_at', NULL, 'actual_start_at', NULL, 'actual_end_at', NULL,
    'pickup_branch_id', offer.branch_id, 'dropoff_branch_id', offer.branch_id, 'daily_rate', offer.rate,
    'currency', offer.currency, 'base_amount', amount, 'charges', '[]'::json, 'total_amount', amount, 'deposit_amount', 0,
    'start_odometer_km', NULL, 'end_odometer_km', NULL, 'start_fuel_percent', NULL, 'end_fuel_percent', NULL, 'notes', NULL,
    'cancel_reason', NULL, 'version', 1, 'created_at', now_at, 'updated_at', now_at)::text, 'UTF8');
  WITH block AS (
    INSERT INTO vehicle_block (id, vehicle_id, kind, rental_id, start_at, end_at, occupied, created_by, created_at)
    VALUES (uuidv7(), wanted, 'reservation', rental_id, start_at, end_at,
      tstzrange(start_at - interval '1 minute' * offer.turnaround_before_minutes,
        end_at + interval '1 minute' * offer.turnaround_after_minutes),
      bench.id(5, clerk), now_at)
    ON CONFLICT ON CONSTRAINT vehicle_block_no_overlap DO NOTHING RETURNING 1
  ), booked AS (
    INSERT INTO rental (id, number, status, vehicle_id, class_id, customer_id, start_at, end_at, pickup_branch_id,
      dropoff_branch_id, daily_rate, currency, base_amount, total_amount, deposit_amount, terms, created_by, created_at, updated_at)
    SELECT rental_id, rental_number, 'reserved', wanted, offer.class_id, who.id, start_at, end_at, offer.branch_id,
      offer.branch_id, offer.rate, offer.currency, amount, amount, 0,
      jsonb_build_object('daily_rate', offer.rate, 'currency', offer.currency, 'timezone', offer.timezone, 'grace_minutes', 59,
        'late_fee_per_hour', offer.late_fee_per_hour, 'fuel_fee_per_percent', offer.fuel_fee_per_percent,
        'cancellation_fee', offer.cancellation_fee, 'free_cancellation_hours', offer.free_cancellation_hours,
        'no_show_fee', offer.no_show_fee, 'tax_code', offer.code, 'tax_bps', offer.rate_bps),
      bench.id(5, clerk), now_at, now_at
    FROM block RETURNING id
  ), promise AS (
    INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, payload, request_id)
    SELECT uuidv7(), 'notifications.rental_reserved', 'notifications', 'rental', id, '{}', sent FROM booked
  ), event AS (
    INSERT INTO event (id, type, occurred_at, aggregate_type, aggregate_id, data)
    SELECT uuidv7(), 'rental.reserved', now_at, 'rental', id,
      convert_from(answer, 'UTF8')::jsonb - '{customer,notes,cancel_reason}'::text[] FROM booked
  )
  INSERT INTO idempotency_record (actor, method, path, key, fingerprint, status, headers, body)
  SELECT caller, 'POST', '/v1/rentals', sent, sha256(sent::bytea), 201,
    jsonb_build_object('ETag', '"1"', 'Location', '/v1/rentals/' || id, 'Content-Type', 'application/json'), answer
  FROM booked;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  RETURN answer;
END $$;
