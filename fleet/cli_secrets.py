"""`flask --app wsgi secrets`: the part of a rotation of SECRET_KEY that the database holds."""

import click
from flask.cli import AppGroup

from fleet.cli_operator import operator, problems_said
from fleet.services import secrets

group = AppGroup("secrets", help="Rotate what lies encrypted in the database.")


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
