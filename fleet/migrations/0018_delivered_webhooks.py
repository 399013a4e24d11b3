"""What was delivered to webhooks in the last minutes: how far behind their queue is, and how much it does."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

# CREATE INDEX CONCURRENTLY takes no transaction around it.
atomic = False

NAME = "webhook_delivery_delivered"


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    # One that was left half-built is there, and of no use.
    db.execute_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
    # A delivery gets into it when it ends: while it waits it costs nothing.
    db.execute_sql(f"CREATE INDEX CONCURRENTLY {NAME} ON webhook_delivery (delivered_at) WHERE delivered_at IS NOT NULL")
