"""The database: one connection a thread, deadlines on the wire, prepared statements, one kind of transaction.

Each thread keeps its own connection, because a pool's check-out costs more than most reads. A dead connection is found by
the first statement sent on it, which is then sent once more on a fresh one; nothing that may have had an effect is repeated,
but for a transaction that PostgreSQL has undone as a whole. Lists and reports may come from a read replica.
"""

from fleet.db.database import AssumptionFailed, Database, Row, connect_as_owner, db, refuse_superuser
from fleet.db.replicas import replica
from fleet.db.statements import Statement
from fleet.db.transactions import atomic, committed, patience, transaction
from fleet.db.wire import Connection, NoAnswer, within

__all__ = [
    "AssumptionFailed",
    "Connection",
    "Database",
    "NoAnswer",
    "Row",
    "Statement",
    "atomic",
    "committed",
    "connect_as_owner",
    "db",
    "patience",
    "refuse_superuser",
    "replica",
    "transaction",
    "within",
]
