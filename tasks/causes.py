"""What may be kept and logged of an exception. Not its own words: drivers and servers repeat names and addresses in them."""

import traceback

import peewee

from fleet.errors import FleetError
from fleet.gateways.mail import MailError
from fleet.gateways.sms import SmsError
from fleet.outages import sqlstate

_OURS = ("fleet.", "tasks.")


def cause_of(error: BaseException) -> str:
    """The kind of the error, its code where it has one, and the line of ours where it came up."""
    return " ".join(part for part in (type(error).__name__, _detail(error), _place(error)) if part)


def _detail(error: BaseException) -> str:
    if isinstance(error, FleetError):
        return error.code
    if isinstance(error, MailError | SmsError):
        return f"({error})"
    if isinstance(error, peewee.PeeweeException):
        diagnosis = getattr(getattr(error, "orig", None), "diag", None)
        return " ".join(filter(None, (sqlstate(error), getattr(diagnosis, "constraint_name", None))))
    return ""


def _place(error: BaseException) -> str:
    ours = [
        f"{module}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (module := frame.f_globals.get("__name__", "")).startswith(_OURS)
    ]
    return f"at {ours[-1]}" if ours else ""
