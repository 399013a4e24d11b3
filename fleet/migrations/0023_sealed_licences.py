"""Licence numbers may be sealed, and are then found by a digest.

Safe beside the release before: it knows neither column, and none is filled before LICENCE_KEY is set, which only this release
reads. CREATE INDEX CONCURRENTLY takes no transaction around it, so each step can be run again where a later one failed.
"""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

atomic = False

COLUMNS = """
ALTER TABLE customer
  ADD COLUMN IF NOT EXISTS driver_license_sealed bytea,
  ADD COLUMN IF NOT EXISTS driver_license_digest bytea,
  ALTER COLUMN driver_license_number DROP NOT NULL;
ALTER TABLE customer DROP CONSTRAINT IF EXISTS customer_driver_license_stored;
-- In the clear or sealed, and never both: who forgets one of the two, as at an erasure, is refused.
ALTER TABLE customer ADD CONSTRAINT customer_driver_license_stored CHECK (
  (driver_license_number IS NULL) = (driver_license_sealed IS NOT NULL)
  AND (driver_license_sealed IS NULL) = (driver_license_digest IS NULL)
) NOT VALID;
"""
NAME = "customer_driver_license_digest_key"


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    with db.atomic():
        db.execute_sql(COLUMNS)
    db.execute_sql("ALTER TABLE customer VALIDATE CONSTRAINT customer_driver_license_stored")
    # One that was left half-built is there, and of no use.
    db.execute_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}")
    db.execute_sql(f"CREATE UNIQUE INDEX CONCURRENTLY {NAME} ON customer (driver_license_digest)")
