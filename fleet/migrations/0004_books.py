"""Invoices with gapless numbers, and the double-entry ledger that nothing can rewrite."""

from datetime import date

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

INVOICES = """
CREATE TABLE document_counter (
  series text PRIMARY KEY,
  last_number bigint NOT NULL DEFAULT 0,
  CONSTRAINT document_counter_counts CHECK (last_number >= 0)
);

-- A counter that goes back gives a number twice, and one that is lost starts again at 1.
CREATE FUNCTION guard_counter() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' OR NEW.series <> OLD.series OR NEW.last_number <= OLD.last_number THEN
    RAISE EXCEPTION 'a document counter only counts up'
      USING ERRCODE = '23001', CONSTRAINT = 'document_counter_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER document_counter_kept BEFORE UPDATE OR DELETE ON document_counter
  FOR EACH ROW EXECUTE FUNCTION guard_counter();
CREATE TRIGGER document_counter_never_emptied BEFORE TRUNCATE ON document_counter
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE invoice (
  id uuid PRIMARY KEY,
  number text,
  status text NOT NULL DEFAULT 'draft',
  customer_id uuid NOT NULL REFERENCES customer,
  rental_id uuid REFERENCES rental,
  currency text NOT NULL,
  net_amount bigint NOT NULL,
  tax_amount bigint NOT NULL,
  total_amount bigint NOT NULL,
  settled_amount bigint NOT NULL DEFAULT 0,
  credited_amount bigint NOT NULL DEFAULT 0,
  issued_at timestamptz,
  due_at timestamptz,
  issued_txid bigint,
  version integer NOT NULL DEFAULT 1,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT invoice_status CHECK (status IN ('draft','open','paid','void','written_off')),
  CONSTRAINT invoice_currency CHECK (currency ~ '^[A-Z]{3}$'),
  CONSTRAINT invoice_amounts CHECK (
    net_amount BETWEEN 0 AND 1000000000000 AND tax_amount BETWEEN 0 AND 1000000000000
    AND total_amount = net_amount + tax_amount AND total_amount <= 1000000000000
  ),
  CONSTRAINT invoice_not_oversettled CHECK (
    settled_amount >= 0 AND credited_amount >= 0 AND settled_amount + credited_amount <= total_amount
  ),
  CONSTRAINT invoice_paid_in_full CHECK (status <> 'paid' OR settled_amount + credited_amount = total_amount),
  CONSTRAINT invoice_void_by_credit CHECK (status <> 'void' OR credited_amount = total_amount),
  CONSTRAINT invoice_number_at_issue CHECK ((status = 'draft') = (number IS NULL)),
  CONSTRAINT invoice_dates_at_issue CHECK (
    (status = 'draft') = (issued_at IS NULL) AND (status = 'draft') = (due_at IS NULL)
  )
);
CREATE UNIQUE INDEX invoice_number_key ON invoice (number);
CREATE INDEX invoice_customer ON invoice (customer_id, id DESC);
CREATE INDEX invoice_by_status ON invoice (status, id DESC);
CREATE INDEX invoice_rental ON invoice (rental_id);
CREATE TRIGGER invoice_version BEFORE UPDATE ON invoice FOR EACH ROW EXECUTE FUNCTION count_version();
CREATE TRIGGER invoice_transition BEFORE UPDATE OF status ON invoice
  FOR EACH ROW EXECUTE FUNCTION guard_transition('invoice');
CREATE TRIGGER invoice_kept BEFORE DELETE ON invoice FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_never_emptied BEFORE TRUNCATE ON invoice
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
INSERT INTO lifecycle_transition VALUES
  ('invoice','draft','open'), ('invoice','open','paid'), ('invoice','open','written_off'), ('invoice','open','void');

CREATE TABLE invoice_line (
  invoice_id uuid NOT NULL REFERENCES invoice,
  position integer NOT NULL,
  type text NOT NULL,
  rule text NOT NULL,
  description text NOT NULL,
  quantity integer NOT NULL,
  unit_amount bigint NOT NULL,
  net_amount bigint NOT NULL,
  tax_code text NOT NULL REFERENCES tax_code,
  tax_bps integer NOT NULL,
  tax_amount bigint NOT NULL,
  CONSTRAINT invoice_line_pkey PRIMARY KEY (invoice_id, position),
  CONSTRAINT invoice_line_amounts CHECK (
    quantity > 0 AND unit_amount BETWEEN 0 AND 1000000000000 AND net_amount = quantity * unit_amount
    AND tax_amount BETWEEN 0 AND net_amount AND tax_bps BETWEEN 0 AND 10000
  )
);
CREATE TRIGGER invoice_line_kept BEFORE UPDATE OR DELETE ON invoice_line
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER invoice_line_never_emptied BEFORE TRUNCATE ON invoice_line
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- An issued invoice says the same for ever: only its status and what was settled or credited on it may move.
CREATE FUNCTION guard_issued_invoice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' OR OLD.status = 'draft' THEN
    NEW.issued_txid := CASE WHEN NEW.status <> 'draft' THEN txid_current() END;
  ELSIF
    (NEW.id, NEW.number, NEW.customer_id, NEW.rental_id, NEW.currency, NEW.net_amount, NEW.tax_amount,
     NEW.issued_at, NEW.due_at, NEW.issued_txid)
    IS DISTINCT FROM
    (OLD.id, OLD.number, OLD.customer_id, OLD.rental_id, OLD.currency, OLD.net_amount, OLD.tax_amount,
     OLD.issued_at, OLD.due_at, OLD.issued_txid)
  THEN
    RAISE EXCEPTION 'an issued invoice is corrected by a credit note'
      USING ERRCODE = '23001', CONSTRAINT = 'invoice_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER invoice_issued_kept BEFORE INSERT OR UPDATE ON invoice
  FOR EACH ROW EXECUTE FUNCTION guard_issued_invoice();

CREATE FUNCTION guard_invoice_sum() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  billed uuid;
BEGIN
  IF TG_TABLE_NAME = 'invoice' THEN billed := NEW.id; ELSE billed := NEW.invoice_id; END IF;
  IF EXISTS (
    SELECT 1 FROM invoice WHERE id = billed AND status <> 'draft' AND (net_amount, tax_amount) <>
      (SELECT coalesce(sum(net_amount), 0)::bigint, coalesce(sum(tax_amount), 0)::bigint
       FROM invoice_line WHERE invoice_id = billed)
  ) THEN
    RAISE EXCEPTION 'the lines of invoice %% do not add up to its total', billed
      USING ERRCODE = '23514', CONSTRAINT = 'invoice_adds_up';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER invoice_adds_up AFTER INSERT OR UPDATE ON invoice DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.status <> 'draft') EXECUTE FUNCTION guard_invoice_sum();
-- The lines ask too: SET CONSTRAINTS can bring the invoice's own question forward, to before its last line.
CREATE CONSTRAINT TRIGGER invoice_line_adds_up AFTER INSERT ON invoice_line DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION guard_invoice_sum();

-- A line that joins an issued invoice later would change what was issued.
CREATE FUNCTION guard_line_in_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- FOR SHARE: a draft that is being issued lets this line wait, and then finds it too late.
  PERFORM 1 FROM invoice
  WHERE id = NEW.invoice_id AND (status = 'draft' OR issued_txid = txid_current()) FOR SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the invoice is issued' USING ERRCODE = '23001', CONSTRAINT = 'invoice_line_kept';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER invoice_line_in_time BEFORE INSERT ON invoice_line
  FOR EACH ROW EXECUTE FUNCTION guard_line_in_time();
"""

LEDGER = """
CREATE TABLE ledger_account (
  code text PRIMARY KEY,
  name text NOT NULL,
  kind text NOT NULL,
  normal_side text NOT NULL,
  contra boolean NOT NULL DEFAULT false,
  active boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT ledger_account_code CHECK (code ~ '^[0-9]{4}$'),
  CONSTRAINT ledger_account_kind CHECK (kind IN ('asset','liability','equity','revenue','expense')),
  CONSTRAINT ledger_account_normal_side CHECK (normal_side IN ('debit','credit')),
  CONSTRAINT ledger_account_contra CHECK (
    contra = ((kind IN ('asset','expense')) <> (normal_side = 'debit'))
  )
);
CREATE TRIGGER ledger_account_kept BEFORE DELETE ON ledger_account FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE fiscal_period (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  span daterange NOT NULL,
  closed_at timestamptz,
  CONSTRAINT fiscal_period_bounded CHECK (
    NOT isempty(span) AND lower(span) IS NOT NULL AND upper(span) IS NOT NULL
  ),
  CONSTRAINT fiscal_period_no_overlap EXCLUDE USING gist (span WITH &&)
);

CREATE TABLE journal_entry (
  id uuid PRIMARY KEY,
  booked_on date NOT NULL,
  memo text NOT NULL,
  source_type text NOT NULL,
  source_id uuid NOT NULL,
  event text NOT NULL,
  line_count integer NOT NULL,
  reverses_id uuid REFERENCES journal_entry,
  recorded_by uuid REFERENCES user_account,
  txid bigint NOT NULL DEFAULT txid_current(),
  created_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT journal_entry_line_count CHECK (line_count BETWEEN 2 AND 1000),
  CONSTRAINT journal_entry_source_key UNIQUE (source_type, source_id, event),
  CONSTRAINT journal_entry_reversed_once UNIQUE (reverses_id)
);
CREATE INDEX journal_entry_booked_on ON journal_entry (booked_on, id DESC);

CREATE TABLE journal_line (
  entry_id uuid NOT NULL REFERENCES journal_entry,
  position integer NOT NULL,
  booked_on date NOT NULL,
  account_code text NOT NULL REFERENCES ledger_account,
  side text NOT NULL,
  amount bigint NOT NULL,
  currency text NOT NULL,
  CONSTRAINT journal_line_pkey PRIMARY KEY (entry_id, position),
  CONSTRAINT journal_line_side CHECK (side IN ('debit','credit')),
  CONSTRAINT journal_line_amount CHECK (amount BETWEEN 1 AND 1000000000000),
  CONSTRAINT journal_line_currency CHECK (currency ~ '^[A-Z]{3}$')
);
-- Balances and reports are read from this index alone.
CREATE INDEX journal_line_account ON journal_line (account_code, booked_on) INCLUDE (currency, side, amount);

-- These look at all rows of a statement together: the worker posts hundreds of entries with one, and asking row by row
-- would take most of its time.
CREATE FUNCTION guard_period_open() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  outside date;
BEGIN
  IF EXISTS (SELECT 1 FROM added WHERE txid <> txid_current() OR created_at <> now()) THEN
    RAISE EXCEPTION 'an entry belongs to the transaction that writes it'
      USING ERRCODE = '23001', CONSTRAINT = 'journal_entry_kept';
  END IF;
  -- FOR SHARE: a period being closed waits for this posting, or this posting finds it closed.
  PERFORM 1 FROM fiscal_period
  WHERE closed_at IS NULL AND EXISTS (SELECT 1 FROM (SELECT DISTINCT booked_on FROM added) AS d WHERE booked_on <@ span)
  ORDER BY id FOR SHARE;
  SELECT booked_on INTO outside FROM (SELECT DISTINCT booked_on FROM added) AS d
  WHERE NOT EXISTS (SELECT 1 FROM fiscal_period WHERE span @> d.booked_on AND closed_at IS NULL) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'no open fiscal period on %%', outside
      USING ERRCODE = '23514', CONSTRAINT = 'journal_entry_period_open';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER journal_entry_period_open AFTER INSERT ON journal_entry REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION guard_period_open();

-- Lines join their entry in its own transaction only, and bear a copy of its day: neither can change, so they never differ.
CREATE FUNCTION guard_line_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  unusable text;
BEGIN
  IF EXISTS (
    SELECT 1 FROM (
      SELECT entry_id, min(position) AS first, max(position) AS last, min(booked_on) AS day, max(booked_on) AS last_day
      FROM added GROUP BY entry_id
    ) AS its
    -- A subquery and no join, so that entries are always found by their key and never by reading all of them.
    WHERE NOT coalesce((
      SELECT e.txid = txid_current() AND e.created_at = now() AND its.first >= 1 AND its.last <= e.line_count
        AND its.day = e.booked_on AND its.last_day = e.booked_on
      FROM journal_entry e WHERE e.id = its.entry_id
    ), false)
  ) THEN
    RAISE EXCEPTION 'the entry is sealed, or announced no such line'
      USING ERRCODE = '23001', CONSTRAINT = 'journal_line_kept';
  END IF;
  SELECT account_code INTO unusable
  FROM (SELECT DISTINCT account_code FROM added) AS used LEFT JOIN ledger_account a ON a.code = used.account_code
  WHERE a.active IS NOT true LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'account %% is not active', unusable
      USING ERRCODE = '23514', CONSTRAINT = 'journal_line_account_active';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER journal_line_sealed AFTER INSERT ON journal_line REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION guard_line_sealed();

-- An entry announces how many lines it has. Once they are all there, which is checked with the balance, every position is
-- taken: no line can follow, not even when SET CONSTRAINTS brings this question forward.
CREATE FUNCTION guard_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (
    SELECT coalesce(sum(lines), 0) <> NEW.line_count OR bool_or(difference <> 0) FROM (
      SELECT count(*) AS lines, sum(CASE side WHEN 'debit' THEN amount ELSE -amount END) AS difference
      FROM journal_line WHERE entry_id = NEW.id GROUP BY currency
    ) AS by_currency
  ) THEN
    RAISE EXCEPTION 'journal entry %% does not balance', NEW.id
      USING ERRCODE = '23514', CONSTRAINT = 'journal_entry_balanced';
  END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER journal_entry_balanced AFTER INSERT ON journal_entry DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION guard_balanced();

CREATE TRIGGER journal_entry_kept BEFORE UPDATE OR DELETE ON journal_entry
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_line_kept BEFORE UPDATE OR DELETE ON journal_line
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_entry_never_emptied BEFORE TRUNCATE ON journal_entry
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_line_never_emptied BEFORE TRUNCATE ON journal_line
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

# A frozen copy of the chart: a later account comes by a later migration or over the API.
CHART = """
1000 Cash|asset|debit
1010 Bank|asset|debit
1020 Wallets|asset|debit
1040 Card clearing|asset|debit
1050 Driver cash in transit|asset|debit
1100 Accounts receivable|asset|debit
1130 Due from staff|asset|debit
1190 Allowance for doubtful accounts|asset|credit
1310 Input tax|asset|debit
1400 Parts|asset|debit
1500 Vehicles|asset|debit
1600 Accumulated depreciation|asset|credit
2000 Accounts payable|liability|credit
2100 Customer deposits|liability|credit
2110 Customer advances|liability|credit
2120 Customer credits|liability|credit
2200 Output tax|liability|credit
2300 Refunds payable|liability|credit
2400 Deferred revenue|liability|credit
3000 Owner equity|equity|credit
3100 Retained earnings|equity|credit
4000 Rental|revenue|credit
4010 Extras|revenue|credit
4100 Late fees|revenue|credit
4200 Damage recovery|revenue|credit
4300 Fuel and cleaning|revenue|credit
4320 Tolls and fines recovered|revenue|credit
4330 One-way|revenue|credit
4400 Cancellation and no-show|revenue|credit
4500 Forfeited deposits|revenue|credit
4910 Allowances|revenue|debit
5000 Maintenance|expense|debit
5100 Depreciation|expense|debit
5200 Fuel|expense|debit
5210 Tolls and fines|expense|debit
5300 Insurance|expense|debit
5400 Salaries|expense|debit
5500 Processing fees|expense|debit
5600 Bad debt|expense|debit
5610 Cash over and short|expense|debit
5700 Exchange difference|expense|debit
5800 Disposal result|expense|debit
5950 Rounding|expense|debit
"""
CONTRA = {"1190", "1600", "4910"}
FIRST_FISCAL_YEAR, LAST_FISCAL_YEAR = 2020, 2060


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(INVOICES)
    db.execute_sql(LEDGER)
    for row in CHART.strip().splitlines():
        heading, kind, normal_side = row.split("|")
        code, name = heading.split(" ", 1)
        db.execute_sql(
            "INSERT INTO ledger_account (code, name, kind, normal_side, contra) VALUES (%s, %s, %s, %s, %s)",
            (code, name, kind, normal_side, code in CONTRA),
        )
    for year in range(FIRST_FISCAL_YEAR, LAST_FISCAL_YEAR + 1):
        db.execute_sql(
            "INSERT INTO fiscal_period (span) VALUES (daterange(%s, %s))", (date(year, 1, 1), date(year + 1, 1, 1))
        )
