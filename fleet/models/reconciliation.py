"""Statements that hold the ledger against the facts it tells, over all rows at once."""

# What each invoice should have put on each account, less what its entry did put there: whatever is left over is wrong.
# An entry that was taken back counts for nothing, unless the taking back was itself taken back, and so on.
INVOICES_NOT_IN_LEDGER = """
WITH RECURSIVE undo AS (
    SELECT e.id AS root, r.id AS tip, 1 AS depth
    FROM journal_entry r JOIN journal_entry e ON e.id = r.reverses_id WHERE e.source_type = 'invoice'
    UNION ALL
    SELECT undo.root, r.id, undo.depth + 1 FROM undo JOIN journal_entry r ON r.reverses_id = undo.tip
), undone AS (
    SELECT root FROM undo GROUP BY root HAVING max(depth) %% 2 = 1
), owed (invoice_id, account, currency, amount) AS (
    SELECT id, %(receivable)s, currency, total_amount FROM invoice WHERE status <> 'draft'
    UNION ALL
    SELECT i.id, rule.account, i.currency, -l.net_amount
    FROM invoice i JOIN invoice_line l ON l.invoice_id = i.id
    JOIN unnest(%(types)s::text[], %(accounts)s::text[]) AS rule (type, account) ON rule.type = l.type
    WHERE i.status <> 'draft'
    UNION ALL
    SELECT id, %(tax)s, currency, -tax_amount FROM invoice WHERE status <> 'draft'
    UNION ALL
    SELECT e.source_id, l.account_code, l.currency, CASE l.side WHEN 'debit' THEN -l.amount ELSE l.amount END
    FROM journal_entry e JOIN journal_line l ON l.entry_id = e.id
    WHERE e.source_type = 'invoice' AND e.event = 'issued' AND NOT EXISTS (SELECT 1 FROM undone WHERE root = e.id)
), wrong AS (
    SELECT DISTINCT invoice_id
    FROM (SELECT invoice_id FROM owed GROUP BY invoice_id, account, currency HAVING sum(amount) <> 0) AS left_over
)
SELECT count(*) OVER (), 'invoice', i.id, 'issued', i.number, i.currency, i.total_amount, e.id,
    CASE WHEN e.id IS NULL THEN 'not_posted' WHEN undone.root IS NOT NULL THEN 'reversed' ELSE 'other_amounts' END
FROM wrong JOIN invoice i ON i.id = wrong.invoice_id AND i.status <> 'draft'
LEFT JOIN journal_entry e ON e.source_type = 'invoice' AND e.source_id = i.id AND e.event = 'issued'
LEFT JOIN undone ON undone.root = e.id
ORDER BY i.id LIMIT %(limit)s
"""

# The same for money that came and went: each event of a payment, a refund or a dispute is a fact of its own.
MONEY_NOT_IN_LEDGER = """
WITH RECURSIVE undo AS (
    SELECT e.id AS root, r.id AS tip, 1 AS depth
    FROM journal_entry r JOIN journal_entry e ON e.id = r.reverses_id WHERE e.source_type IN ('payment', 'refund', 'dispute')
    UNION ALL
    SELECT undo.root, r.id, undo.depth + 1 FROM undo JOIN journal_entry r ON r.reverses_id = undo.tip
), undone AS (
    SELECT root FROM undo GROUP BY root HAVING max(depth) %% 2 = 1
), till AS (
    SELECT * FROM unnest(%(methods)s::text[], %(tills)s::text[]) AS till (method, account)
), fact (source_type, source_id, event, currency, amount, debit, credit, fee) AS (
    SELECT 'payment', p.id, 'captured', p.currency, p.amount, till.account, %(receivable)s, 0
    FROM payment p JOIN till ON till.method = p.method WHERE p.captured_at IS NOT NULL
    UNION ALL
    SELECT 'refund', r.id, event.name, p.currency, r.amount, event.debit, event.credit, 0
    FROM refund r JOIN payment p ON p.id = r.payment_id JOIN till ON till.method = p.method
    CROSS JOIN LATERAL (VALUES
        ('requested', true, %(credits)s, %(payable)s),
        ('settled', r.settled_at IS NOT NULL, %(payable)s, till.account),
        ('failed', r.failed_at IS NOT NULL, %(payable)s, %(credits)s),
        ('rejected', r.rejected_at IS NOT NULL, %(payable)s, %(credits)s)
    ) AS event (name, happened, debit, credit) WHERE event.happened
    UNION ALL
    SELECT 'dispute', d.id, event.name, p.currency, d.amount, event.debit, event.credit, event.fee
    FROM dispute d JOIN payment p ON p.id = d.payment_id
    CROSS JOIN LATERAL (VALUES
        ('opened', true, %(receivable)s, %(clearing)s, d.fee_amount),
        ('won', d.status = 'won', %(clearing)s, %(receivable)s, 0),
        ('lost', d.status = 'lost', %(bad_debt)s, %(receivable)s, 0)
    ) AS event (name, happened, debit, credit, fee) WHERE event.happened
), owed (source_type, source_id, event, account, currency, amount) AS (
    SELECT f.source_type, f.source_id, f.event, line.account, f.currency, line.amount
    FROM fact f
    CROSS JOIN LATERAL (VALUES (f.debit, f.amount), (%(fees)s, f.fee), (f.credit, -f.amount - f.fee)) AS line (account, amount)
    UNION ALL
    SELECT e.source_type, e.source_id, e.event, l.account_code, l.currency,
        CASE l.side WHEN 'debit' THEN -l.amount ELSE l.amount END
    FROM journal_entry e JOIN journal_line l ON l.entry_id = e.id
    WHERE e.source_type IN ('payment', 'refund', 'dispute') AND NOT EXISTS (SELECT 1 FROM undone WHERE root = e.id)
), wrong AS (
    SELECT DISTINCT source_type, source_id, event FROM (
        SELECT source_type, source_id, event FROM owed
        GROUP BY source_type, source_id, event, account, currency HAVING sum(amount) <> 0
    ) AS left_over
)
SELECT count(*) OVER (), f.source_type, f.source_id, f.event, NULL, f.currency, f.amount, e.id,
    CASE WHEN e.id IS NULL THEN 'not_posted' WHEN undone.root IS NOT NULL THEN 'reversed' ELSE 'other_amounts' END
FROM wrong JOIN fact f USING (source_type, source_id, event)
LEFT JOIN journal_entry e USING (source_type, source_id, event)
LEFT JOIN undone ON undone.root = e.id
ORDER BY f.source_id, f.event LIMIT %(limit)s
"""

ENTRIES_WITHOUT_FACT = """
SELECT count(*) OVER (), e.id, e.source_type, e.source_id, e.event
FROM journal_entry e
LEFT JOIN invoice i ON e.source_type = 'invoice' AND i.id = e.source_id AND i.status <> 'draft'
LEFT JOIN payment p ON e.source_type = 'payment' AND p.id = e.source_id
LEFT JOIN refund r ON e.source_type = 'refund' AND r.id = e.source_id
LEFT JOIN dispute d ON e.source_type = 'dispute' AND d.id = e.source_id
WHERE CASE e.source_type
    WHEN 'invoice' THEN i.id IS NULL OR e.event <> 'issued'
    WHEN 'payment' THEN p.captured_at IS NULL OR e.event <> 'captured'
    WHEN 'refund' THEN r.id IS NULL OR CASE e.event
        WHEN 'requested' THEN false WHEN 'settled' THEN r.settled_at IS NULL WHEN 'failed' THEN r.failed_at IS NULL
        WHEN 'rejected' THEN r.rejected_at IS NULL ELSE true
    END
    WHEN 'dispute' THEN d.id IS NULL OR NOT (e.event = 'opened' OR (e.event = d.status AND d.closed_at IS NOT NULL))
    WHEN 'manual' THEN e.source_id <> e.id OR e.event <> 'posted'
    WHEN 'entry' THEN e.source_id IS DISTINCT FROM e.reverses_id OR e.event <> 'reversed'
    ELSE true
END
ORDER BY e.id LIMIT %(limit)s
"""

TRIAL_BALANCE = """
SELECT currency, coalesce(sum(amount) FILTER (WHERE side = 'debit'), 0)::bigint,
    coalesce(sum(amount) FILTER (WHERE side = 'credit'), 0)::bigint
FROM journal_line GROUP BY currency ORDER BY currency
"""

# Each counts rows that the constraints should have made impossible: a proof does not take their word for it.
ENTRIES_OUT_OF_BALANCE = """
SELECT count(DISTINCT entry_id) FROM (
    SELECT entry_id FROM journal_line GROUP BY entry_id, currency
    HAVING sum(CASE side WHEN 'debit' THEN amount ELSE -amount END) <> 0
) AS unbalanced
"""

ENTRIES_WITHOUT_LINES = """
SELECT count(*) FROM (
    SELECT e.id FROM journal_entry e LEFT JOIN journal_line l ON l.entry_id = e.id
    GROUP BY e.id HAVING count(l.entry_id) < 2
) AS incomplete
"""

LINES_OF_ANOTHER_DAY = """
SELECT count(*) FROM journal_line l JOIN journal_entry e ON e.id = l.entry_id WHERE l.booked_on <> e.booked_on
"""

REVERSALS_THAT_LEAVE_SOMETHING = """
SELECT count(DISTINCT reversal) FROM (
    SELECT r.id AS reversal FROM journal_entry r JOIN journal_line l ON l.entry_id IN (r.id, r.reverses_id)
    WHERE r.reverses_id IS NOT NULL
    GROUP BY r.id, l.account_code, l.currency
    HAVING sum(CASE l.side WHEN 'debit' THEN l.amount ELSE -l.amount END) <> 0
) AS left_over
"""

INVOICES_THAT_DO_NOT_ADD_UP = """
SELECT count(*) FROM (
    SELECT i.id FROM invoice i LEFT JOIN invoice_line l ON l.invoice_id = i.id WHERE i.status <> 'draft'
    GROUP BY i.id HAVING coalesce(sum(l.net_amount), 0) <> i.net_amount OR coalesce(sum(l.tax_amount), 0) <> i.tax_amount
) AS wrong
"""

INVOICE_NUMBERS_MISSING = """
SELECT coalesce((SELECT last_number FROM document_counter WHERE series = 'invoice'), 0)
    - (SELECT count(number) FROM invoice)
"""

# What an invoice says of its payments against the payments themselves.
INVOICES_NOT_SETTLED_BY_THEIR_PAYMENTS = """
SELECT count(*) FROM invoice i LEFT JOIN (
    SELECT invoice_id, coalesce(sum(amount) FILTER (WHERE captured_at IS NOT NULL), 0) AS captured,
        coalesce(sum(amount) FILTER (WHERE status = 'pending'), 0) AS pending
    FROM payment GROUP BY invoice_id
) p ON p.invoice_id = i.id
WHERE i.settled_amount <> coalesce(p.captured, 0) OR i.pending_amount <> coalesce(p.pending, 0)
"""

PAYMENTS_NOT_REFUNDED_BY_THEIR_REFUNDS = """
SELECT count(*) FROM payment p LEFT JOIN (
    SELECT payment_id, sum(amount) AS amount FROM refund WHERE status NOT IN ('failed', 'rejected') GROUP BY payment_id
) r ON r.payment_id = p.id
WHERE p.refunded_amount <> coalesce(r.amount, 0)
"""
