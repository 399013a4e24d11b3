"""What may be kept and logged of an exception. Not its own words: drivers and servers repeat names and addresses in them."""

import traceback

import peewee

from fleet.errors import FleetError
from fleet.gateways.mail import MailError
from fleet.gateways.sms import SmsError

_OURS = ("fleet.", "tasks.")
# SQLSTATE class 57P: shut down or crashed; 53300: too many connections. Without a state there was nobody to send one.
_AWAY_STATES = ("57P", "53300")


def cause_of(error: BaseException) -> str:
    """The kind of the error, its code where it has one, and the line of ours where it came up."""
    return " ".join(part for part in (type(error).__name__, _detail(error), _place(error)) if part)


def database_is_away(error: BaseException) -> bool:
    """Whether the error says that PostgreSQL cannot be reached, rather than that it refuses one statement."""
    if not isinstance(error, peewee.OperationalError | peewee.InterfaceError):
        return False
    state = _sqlstate(error)
    return state is None or state.startswith(_AWAY_STATES)


def _detail(error: BaseException) -> str:
    if isinstance(error, FleetError):
        return error.code
    if isinstance(error, MailError | SmsError):
        return f"({error})"
    if isinstance(error, peewee.PeeweeException):
        diagnosis = getattr(getattr(error, "orig", None), "diag", None)
        return " ".join(filter(None, (_sqlstate(error), getattr(diagnosis, "constraint_name", None))))
    return ""


def _sqlstate(error: BaseException) -> str | None:
    return getattr(getattr(error, "orig", None), "pgcode", None)


def _place(error: BaseException) -> str:
    ours = [
        f"{module}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if (module := frame.f_globals.get("__name__", "")).startswith(_OURS)
    ]
    return f"at {ours[-1]}" if ours else ""
