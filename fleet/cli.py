"""The flask command's own commands: migrations, the first admin, the demo, the ledger's proof."""

from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from playhouse.migrations import Runner

from fleet.db import db

MIGRATIONS = Path(__file__).parent / "migrations"
# Any fixed number does, as long as every release of the service asks for the same one.
MIGRATION_LOCK = 7_305_417

database = AppGroup("db", help="Migrate the database.")


def register(app: Flask) -> None:
    app.cli.add_command(database)


@database.command("upgrade")
def upgrade() -> None:
    """Apply the migrations that are missing. Safe when several deploys run it at once."""
    for name in migrate():
        click.echo(f"applied {name}")
    click.echo("the database is up to date")


@database.command("status")
def status() -> None:
    """List the migrations and when each was applied."""
    _connect_as_owner()
    for migration in _runner().status():
        click.echo(f"{migration.name}  {migration.applied or 'pending'}")


def migrate() -> list[str]:
    """Apply what is missing, one transaction a migration, and return the names."""
    _connect_as_owner()
    # Two deploys at once: the second waits here and then finds nothing left to do.
    db.one("SELECT pg_advisory_lock(%s)", (MIGRATION_LOCK,))
    try:
        applied: list[str] = _runner().up()
    finally:
        db.one("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    return applied


def _connect_as_owner() -> None:
    settings = current_app.extensions["fleet"].settings
    db.close()
    db.configure(settings, url=settings.database_migration_url, statement_timeout_ms=0)


def _runner() -> Runner:
    return Runner(db, str(MIGRATIONS))
