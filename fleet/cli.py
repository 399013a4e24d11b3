"""The flask command's own commands: migrations, the first admin, the demo, the ledger's proof."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import peewee
from flask import Flask, current_app
from flask.cli import AppGroup, with_appcontext
from playhouse.migrations import Runner

from fleet import cli_audit, cli_dead_letters, cli_secrets, demo, grants, problems
from fleet.cli_operator import operator, problems_said
from fleet.config import DEMO_PASSWORD
from fleet.db import connect_as_owner, db
from fleet.errors import FleetError
from fleet.parsing import read_email
from fleet.services import reconciliation, second_factors, users

MIGRATIONS = Path(__file__).parent / "migrations"
# Any fixed number does, as long as every release of the service asks for the same one.
MIGRATION_LOCK = 7_305_417
MIGRATION_POLL_S = 0.2
# Behind a migration that waits for a table everybody waits who comes later: it gives up soon, lets them pass, tries again.
MIGRATION_LOCK_TIMEOUT_S, MIGRATION_TRIES, MIGRATION_PAUSE_S = 2, 60, 0.5
_LOCK_NOT_AVAILABLE = "55P03"

database = AppGroup("db", help="Migrate the database.")
books = AppGroup("ledger", help="Examine the books.")


def register(app: Flask) -> None:
    app.cli.add_command(database)
    app.cli.add_command(create_admin)
    app.cli.add_command(remove_second_factor)
    app.cli.add_command(books)
    app.cli.add_command(seed_demo)
    app.cli.add_command(cli_dead_letters.letters)
    app.cli.add_command(cli_secrets.group)
    app.cli.add_command(cli_audit.log)


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
    """Apply what is missing, one transaction a migration, and return the names; then give the lesser roles what they may do.

    Raises peewee.OperationalError when a table is in use by one transaction for longer than all tries together.
    """
    settings = current_app.extensions["fleet"].settings
    _connect_as_owner()
    # Two deploys at once: the second asks until it gets the lock, and then finds nothing left to do. Waiting for it inside a
    # statement would hold a snapshot, which CREATE INDEX CONCURRENTLY in the first one waits for: a deadlock.
    while db.one("SELECT pg_try_advisory_lock(%s)", (MIGRATION_LOCK,)) != (True,):
        time.sleep(MIGRATION_POLL_S)
    try:
        db.execute_sql(f"SET lock_timeout = '{MIGRATION_LOCK_TIMEOUT_S}s'")
        pending = [migration.name for migration in _runner().status() if not migration.applied]
        grants.expect_tables(settings)
        _apply_all()
        grants.apply(settings)
    finally:
        db.one("SELECT pg_advisory_unlock(%s)", (MIGRATION_LOCK,))
    return pending


def _apply_all() -> None:
    for tries_left in reversed(range(MIGRATION_TRIES)):
        try:
            _runner().up()
        except peewee.OperationalError as error:
            if getattr(getattr(error, "orig", None), "pgcode", None) != _LOCK_NOT_AVAILABLE or not tries_left:
                raise
            time.sleep(MIGRATION_PAUSE_S)
        else:
            return


def _connect_as_owner() -> None:
    connect_as_owner(current_app.extensions["fleet"].settings)


def _runner() -> Runner:
    return Runner(db, str(MIGRATIONS))


@click.command("create-admin")
@click.argument("email")
@click.option("--first-name", default="Admin", show_default=True)
@click.option("--last-name", default="Fleet", show_default=True)
def create_admin(email: str, first_name: str, last_name: str) -> None:
    """Add an admin. The password comes from FLEET_ADMIN_PASSWORD, or else from standard input."""
    try:
        address = read_email(email)
        users.create_admin(operator(), email=address, password=_password(), first_name=first_name, last_name=last_name)
    except (FleetError, peewee.PeeweeException) as error:
        problem = problems.translate(error)
        taken = problem.code == "duplicate"
        raise click.ClickException(f"there is a user {email} already" if taken else f"{problem}") from None
    click.echo(f"{address} is an admin now")


@click.command("remove-second-factor")
@click.argument("email")
def remove_second_factor(email: str) -> None:
    """Let a user sign in without a code again, such as the last admin, whose telephone is lost."""
    with problems_said():
        second_factors.remove_by_operator(operator(), email=read_email(email))
    click.echo("no code is asked for any more")


def _password() -> str:
    given = os.environ.get("FLEET_ADMIN_PASSWORD")
    if given:
        return given
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))
    piped = sys.stdin.readline().removesuffix("\n")
    if not piped:
        raise click.ClickException("no password: set FLEET_ADMIN_PASSWORD, or pipe it in")
    return piped


@books.command("prove")
def prove() -> None:
    """Check every entry, the trial balance and every fact against the ledger. Exits with 1 when anything is wrong."""
    with problems_said():
        proof = reconciliation.prove()
    for check in proof.checks:
        click.echo(f"{check.claim:<45} {'ok' if not check.wrong else f'{check.wrong} wrong'}")
    for currency, debit, credit in proof.trial_balance:
        click.echo(f"{f'trial balance {currency}':<45} debit {debit}, credit {credit}")
    if not proof.holds:
        raise click.exceptions.Exit(1)


@click.command("seed-demo")
@click.option("--if-empty", is_flag=True, help="Do nothing, and say so, when there are vehicles already.")
@with_appcontext
def seed_demo(if_empty: bool) -> None:
    """Fill an empty database with a rental company and a year of its history."""
    settings = current_app.extensions["fleet"].settings
    if settings.production:
        raise click.ClickException("the demo has published passwords, so production does without it")
    if not demo.is_empty():
        if if_empty:
            click.echo("the demo's data is there already")
            return
        raise click.ClickException("the database is not empty")
    _connect_as_owner()
    counts = demo.seed(os.environ.get("FLEET_ADMIN_PASSWORD") or DEMO_PASSWORD, progress=_with_bar)
    click.echo("seeded " + ", ".join(f"{count} {table}" for table, count in counts.items()))


def _with_bar(items: Sequence[Any], label: str) -> Iterator[Any]:
    with click.progressbar(items, label=f"{label:<18}") as bar:
        yield from bar
