"""How a statement that travels ahead of another says that who acts is not who was remembered."""

from peewee import PostgresqlDatabase
from playhouse.migrate import SchemaMigrator

REFUSE_ACTOR = """
CREATE FUNCTION refuse_actor() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  RAISE EXCEPTION 'who acts has changed' USING ERRCODE = 'FL001';
END $$;
"""


def up(migrator: SchemaMigrator, db: PostgresqlDatabase) -> None:
    db.execute_sql(REFUSE_ACTOR)
