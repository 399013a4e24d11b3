"""A real PostgreSQL and Redis out of a wheel, for `make run` and the tests. Nothing that a deploy runs imports this.

`python -m fleet.embedded` is `make run`. Tests ask for `scratch_databases()`, or for `databases(directory, ...)` where
the data has to outlive a restart.
"""

from fleet.embedded.databases import Databases, databases, scratch_databases
from fleet.embedded.ownership import MARK, InUse, marked
from fleet.embedded.postgres import Postgres, PostgresReplica
from fleet.embedded.server import Server, StartFailed
from fleet.embedded.valkey import Valkey

__all__ = [
    "MARK",
    "Databases",
    "InUse",
    "Postgres",
    "PostgresReplica",
    "Server",
    "StartFailed",
    "Valkey",
    "databases",
    "marked",
    "scratch_databases",
]
