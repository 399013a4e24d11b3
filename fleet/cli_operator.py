"""Who is at the keyboard, how what they type is read, and how they are told what went wrong."""

import getpass
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import peewee
from pydantic import TypeAdapter, ValidationError

from fleet import problems
from fleet.errors import FleetError


def operator() -> str:
    """The name of whoever runs a command, as far as the system knows: for the audit log, also as where the act came from."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return f"cli:{os.getuid()}"


def read_by(adapter: TypeAdapter[Any]) -> Callable[..., Any]:
    """A callback of click that reads an option as the API reads the field."""

    def read(_: click.Context, __: click.Parameter, raw: str | None) -> Any:
        if raw is None:
            return None
        try:
            return adapter.validate_python(raw)
        except ValidationError as error:
            raise click.BadParameter(error.errors()[0]["msg"]) from None

    return read


@contextmanager
def problems_said() -> Iterator[None]:
    """End the command with a line that says what clients of the API would be told, and no traceback."""
    try:
        yield
    except (FleetError, peewee.PeeweeException) as error:
        raise click.ClickException(f"{problems.translate(error)}") from None
