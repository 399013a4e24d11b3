"""`flask --app wsgi audit`: prove that the audit log is whole, give it away, let old parts of it go."""

from datetime import datetime, timedelta

import click
import orjson
from flask import current_app
from flask.cli import AppGroup
from pydantic import TypeAdapter

from fleet import clock
from fleet.cli_operator import problems_said, read_by
from fleet.config import Settings
from fleet.db import connect_as_owner
from fleet.parsing import Instant
from fleet.services import audit, audit_chain
from fleet.services.audit_chain import Problem, Proof

log = AppGroup("audit", help="Prove that the audit log is whole, export it, let old parts of it go.")

_instant: TypeAdapter[datetime] = TypeAdapter(Instant)
HASH_BYTES = 32


def _read_hash(_: click.Context, __: click.Parameter, raw: str | None) -> bytes | None:
    if raw is None:
        return None
    try:
        hash_ = bytes.fromhex(raw)
    except ValueError:
        hash_ = b""
    if len(hash_) != HASH_BYTES:
        raise click.BadParameter(f"must be {2 * HASH_BYTES} hexadecimal digits")
    return hash_


@log.command("verify")
@click.option("--head", "expected_head", callback=_read_hash, help="A head noted earlier, which must still be in the chain.")
def verify(expected_head: bytes | None) -> None:
    """Walk the whole chain and say where it is broken. Exits with 1 when anything is wrong."""
    with problems_said():
        proof = audit_chain.verify(expected_head=expected_head)
    _say(proof)
    if not proof.holds:
        raise click.exceptions.Exit(1)


@log.command("export")
@click.option("--from", "since", callback=read_by(_instant), help="What happened since then, such as 2026-11-26T08:00:00Z.")
@click.option("--to", "until", callback=read_by(_instant), help="What happened before then.")
def export(since: datetime | None, until: datetime | None) -> None:
    """Print the events with their seals, oldest first, one JSON object a line."""
    with problems_said():
        for event in audit.exported(since=since, until=until):
            click.echo(orjson.dumps(event, option=orjson.OPT_UTC_Z))


@log.command("prune")
def prune() -> None:
    """Remove the sealed beginning of the log that is older than AUDIT_KEEP_DAYS. Needs the owner's DATABASE_MIGRATION_URL."""
    settings = _settings()
    if not settings.audit_keep_days:
        raise click.ClickException("AUDIT_KEEP_DAYS is not set: the audit log is kept for ever")
    with problems_said():
        connect_as_owner(settings)
        gone = audit_chain.prune(before=clock.now() - timedelta(days=settings.audit_keep_days))
    click.echo(f"{gone} events removed")


def _say(proof: Proof) -> None:
    last = proof.head.position
    click.echo(f"sealed    {proof.sealed} events" + (f", places {proof.first} to {last}" if proof.sealed else ""))
    click.echo(f"head      {proof.head.hash.hex()}")
    click.echo(f"unsealed  {proof.waiting}" + (f", the oldest for {proof.waiting_s:.0f} s" if proof.waiting else ""))
    for problem in proof.problems:
        click.echo(f"BROKEN    {_line_of(problem)}")
    if proof.holds:
        click.echo("the chain is whole")


def _line_of(problem: Problem) -> str:
    place = "" if problem.position is None else f"place {problem.position}: "
    return f"{place}{problem.what}" + (f" ({problem.event_id})" if problem.event_id else "")


def _settings() -> Settings:
    settings: Settings = current_app.extensions["fleet"].settings
    return settings
