"""`flask --app wsgi dead-letters`: what /admin/dead-letters does, for whoever is on the machine, also when the web is away."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import click
import orjson
from flask.cli import AppGroup
from pydantic import TypeAdapter

from fleet import clock
from fleet.auth import Actor
from fleet.cli_operator import operator, problems_said, read_by
from fleet.errors import FleetError
from fleet.models.dead_letters import Chosen
from fleet.parsing import Instant, Line, read_email
from fleet.services import actors, dead_letters
from fleet.services.dead_letters import MOST_AT_ONCE, Handled, Letter

letters = AppGroup("dead-letters", help="Look at dead letters, replay or discard them. Every act is in the audit log.")

_LIST_LIMIT = 50
_instant: TypeAdapter[datetime] = TypeAdapter(Instant)
_line: TypeAdapter[str] = TypeAdapter(Line)

_FILTERS = (
    click.option("--topic", help="Such as accounting.post_invoice."),
    click.option("--queue"),
    click.option("--from", "since", callback=read_by(_instant), help="Dead since then, such as 2026-11-26T08:00:00Z."),
    click.option("--to", "until", callback=read_by(_instant), help="Dead before then."),
    click.option("--cause", help="The class of the cause, or words of the last error."),
)
_ACTS = (
    click.argument("ids", nargs=-1, type=click.UUID),
    click.option("--all", "everything", is_flag=True, help="All dead letters, where no filter narrows them."),
    click.option("--as", "email", help="The user who does it; else it is cli:<you>."),
    click.option("--json", "as_json", is_flag=True, help="Say it as JSON."),
)


def _with(options: tuple[Any, ...]) -> Callable[[Any], Any]:
    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@letters.command("list")
@_with(_FILTERS)
@click.option("--status", type=click.Choice(["dead", "discarded"]), default="dead", show_default=True)
@click.option("--limit", type=click.IntRange(1, 1000), default=_LIST_LIMIT, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_letters(status: str, limit: int, as_json: bool, **filters: Any) -> None:
    """List dead letters; those promised last come first."""
    with problems_said():
        found = dead_letters.listed("cli", chosen=Chosen(**filters, status=status), after=None, limit=limit)
    for letter in found[:limit]:
        click.echo(_json(letter) if as_json else _line_of(letter))
    if not as_json:
        click.echo(f"{min(len(found), limit)} shown" + (", there are more" if len(found) > limit else ""))


@letters.command("show")
@click.argument("letter_id", type=click.UUID)
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def show(letter_id: UUID, as_json: bool) -> None:
    """Show everything about one letter."""
    with problems_said():
        letter = dead_letters.shown("cli", letter_id)
    if as_json:
        click.echo(_json(letter))
        return
    for name, value in letter.items():
        click.echo(f"{name:<16} {_json(value) if isinstance(value, dict) else '-' if value is None else value}")


@letters.command("replay")
@_with(_ACTS)
@_with(_FILTERS)
@click.option("--status", type=click.Choice(["dead", "discarded"]), default="dead", show_default=True)
def replay(status: str, email: str | None, **asked: Any) -> None:
    """Try letters again, those named by their IDS or all that the filters choose."""
    with problems_said():
        who, origin = _actor(email, "dead_letters.replay"), operator()
        one = partial(dead_letters.replay, who, address=origin)
        many = partial(dead_letters.replay_chosen, who, everything=True, address=origin)
        _act("replayed", one, many, status=status, **asked)


@letters.command("discard")
@_with(_ACTS)
@_with(_FILTERS)
@click.option("--reason", required=True, callback=read_by(_line), help="Why; kept with the letter and in the audit log.")
def discard(reason: str, email: str | None, **asked: Any) -> None:
    """Close letters without their work, those named by their IDS or all that the filters choose. Deletes nothing."""
    with problems_said():
        who, origin = _actor(email, "dead_letters.discard"), operator()
        one = partial(dead_letters.discard, who, reason=reason, address=origin)
        many = partial(dead_letters.discard_chosen, who, reason=reason, everything=True, address=origin)
        _act("discarded", one, many, status="dead", **asked)


def _act(
    done: str,
    one: Callable[[UUID], object],
    many: Callable[..., Handled],
    *,
    ids: tuple[UUID, ...],
    everything: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    chosen = Chosen(**filters)
    if bool(ids) == (chosen.narrows or everything):
        raise click.UsageError("name letters by their ids, or choose them by filters, or say --all")
    refused: dict[str, str] = {}
    count = sum(_each(ids, one, refused)) if ids else sum(_batches(chosen, many))
    for letter_id, problem in refused.items():
        click.echo(f"{letter_id}: {problem}", err=True)
    click.echo(_json({done: count, "refused": refused}) if as_json else f"{count} {done}")
    if refused:
        raise click.exceptions.Exit(1)


def _each(ids: tuple[UUID, ...], one: Callable[[UUID], object], refused: dict[str, str]) -> Iterator[int]:
    with click.progressbar(ids, label="dead letters", file=sys.stderr) as bar:
        for letter_id in bar:
            try:
                one(letter_id)
                yield 1
            except FleetError as error:
                refused[f"{letter_id}"] = f"{error}"


def _batches(chosen: Chosen, many: Callable[..., Handled]) -> Iterator[int]:
    """What dies from now on is not meant: a letter that dies again at once would be replayed for ever."""
    now = clock.now()
    chosen = replace(chosen, until=min(chosen.until or now, now))
    with click.progressbar(length=dead_letters.counted(chosen), label="dead letters", file=sys.stderr) as bar:
        more = True
        while more:
            letters_done, more = many(chosen=chosen, limit=MOST_AT_ONCE)
            bar.update(letters_done)
            yield letters_done


def _actor(email: str | None, permission: str) -> Actor | str:
    """Who answers for the act. Raises Forbidden for a user whose roles do not allow it."""
    if email is None:
        return operator()
    actor = actors.of_email(read_email(email))
    if actor is None:
        raise click.ClickException(f"there is no active user {email}")
    actor.must(permission)
    return actor


def _line_of(letter: Letter) -> str:
    died = f"{letter['dead_at']:%Y-%m-%d %H:%M:%S}"
    error = letter["discard_reason"] if letter["status"] == "discarded" else letter["last_error"]
    return f"{letter['id']}  {died}  {letter['topic']:<32} {letter['deliveries']:>2}  {error}"


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_UTC_Z).decode()
