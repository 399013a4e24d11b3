"""`flask --app wsgi secrets`: the part of a change of SECRET_KEY or LICENCE_KEY that the database holds."""

import click
from flask.cli import AppGroup

from fleet import config
from fleet.cli_operator import operator, problems_said
from fleet.services import licences, secrets

group = AppGroup("secrets", help="Encrypt what lies in the database, or under another key.")


@group.command("reseal")
def reseal() -> None:
    """Seal anew, under SECRET_KEY, what lies under one of SECRET_KEY_PREVIOUS. Exits with 1 when something cannot be opened."""
    with problems_said():
        outcome = secrets.reseal(operator())
    click.echo(f"sealed anew: {outcome.resealed}")
    for place in outcome.unreadable:
        click.echo(f"no key opens {place}", err=True)
    if outcome.unreadable:
        raise click.exceptions.Exit(1)


@group.command("seal-licences")
def seal_licences() -> None:
    """Seal the licence numbers that are in the clear, and find them by LICENCE_KEY. Exits with 1 when one could not be."""
    if not config.current().licence_key:
        raise click.ClickException("LICENCE_KEY is not set")
    with problems_said():
        outcome = licences.seal_all(operator())
    click.echo(f"sealed: {outcome.sealed}")
    for customer_id in outcome.taken:
        click.echo(f"another customer has the licence number of {customer_id}", err=True)
    for customer_id in outcome.unreadable:
        click.echo(f"no key opens the licence number of {customer_id}", err=True)
    if outcome.taken or outcome.unreadable:
        raise click.exceptions.Exit(1)
