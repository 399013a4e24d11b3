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
SELECT count(*) OVER (), i.id, i.number, i.currency, i.total_amount, e.id,
    CASE WHEN e.id IS NULL THEN 'not_posted' WHEN undone.root IS NOT NULL THEN 'reversed' ELSE 'other_amounts' END
FROM wrong JOIN invoice i ON i.id = wrong.invoice_id AND i.status <> 'draft'
LEFT JOIN journal_entry e ON e.source_type = 'invoice' AND e.source_id = i.id AND e.event = 'issued'
LEFT JOIN undone ON undone.root = e.id
ORDER BY i.id LIMIT %(limit)s
"""

ENTRIES_WITHOUT_FACT = """
SELECT count(*) OVER (), e.id, e.source_type, e.source_id, e.event
FROM journal_entry e
LEFT JOIN invoice i ON e.source_type = 'invoice' AND i.id = e.source_id AND i.status <> 'draft'
WHERE CASE e.source_type
    WHEN 'invoice' THEN i.id IS NULL OR e.event <> 'issued'
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
