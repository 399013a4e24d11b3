"""Every failure as problem+json (RFC 9457), in one place, with a stable code and nothing of our insides."""

import logging
import traceback
from pathlib import Path
from typing import Any

import orjson
import peewee
from flask import Flask, Response, g
from werkzeug.exceptions import HTTPException, SecurityError

from fleet import errors
from fleet.answers import Answer
from fleet.errors import FleetError
from fleet.rules.lifecycles import IllegalTransition
from fleet.rules.money import AmountTooLarge
from fleet.rules.periods import PeriodError

log = logging.getLogger("fleet.problems")

_FRAMES = 12
# The SQLSTATE class of wrong SQL: what PostgreSQL says of it quotes the statement and no value.
_OUR_SQL = "42"

_BY_STATUS: dict[int, type[FleetError]] = {
    kind.status: kind
    for kind in (
        errors.Unauthenticated, errors.Forbidden, errors.NotFound, errors.MethodNotAllowed, errors.Conflict,
        errors.LengthRequired, errors.BodyTooLarge, errors.UriTooLong, errors.UnsupportedMediaType, errors.RateLimited,
        errors.HeadersTooLarge, errors.Unavailable,
    )
}  # fmt: skip


def document(error: FleetError) -> dict[str, Any]:
    """The problem as RFC 9457 writes it, with our `code`, `request_id` and field `errors`."""
    problem = {
        "type": f"urn:fleet:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail or error.title,
        "code": error.code,
        "request_id": g.get("request_id"),
        **error.extra,
    }
    if error.errors:
        problem["errors"] = [
            {"field": item.field, "code": item.code, "message": item.message} for item in error.errors
        ]
    return problem


def render(error: FleetError) -> Answer:
    body = orjson.dumps(document(error), option=orjson.OPT_UTC_Z)
    return Answer(body, error.status, headers=error.headers, mimetype="application/problem+json")


def register(app: Flask) -> None:
    """Let no error leave the service in any other form."""
    app.register_error_handler(HTTPException, _of_werkzeug)
    app.register_error_handler(Exception, lambda error: render(translate(error)))


def translate(error: Exception) -> FleetError:
    """The failure that an exception means to a client; one that nobody foresaw is logged and says nothing of itself."""
    if isinstance(error, FleetError):
        return error
    if isinstance(error, peewee.PeeweeException):
        return _of_database(error)
    if isinstance(error, IllegalTransition):
        return errors.InvalidState(f"{error}")
    if isinstance(error, PeriodError):
        return errors.Invalid.field("start_at" if error.code == "period_in_past" else "end_at", error.code, f"{error}")
    if isinstance(error, AmountTooLarge):
        return errors.Invalid(f"{error}", code="amount_too_large")
    log.error("unexpected failure", exc_info=error)
    return FleetError()


def _of_database(error: peewee.PeeweeException) -> FleetError:
    """What the database's refusal means; one that no input should reach is logged as ours."""
    known = errors.from_database(error)
    if known is None:
        log.error("unexpected refusal by the database", extra=_names_of(error))
        return FleetError()
    if isinstance(known, errors.Unavailable):
        log.warning("database unavailable", extra={"sqlstate": getattr(getattr(error, "orig", None), "pgcode", None)})
    return known


def _names_of(error: peewee.PeeweeException) -> dict[str, Any]:
    """What is wrong and where, in names only: the driver's own text quotes the whole row, people's data included."""
    driver = getattr(error, "orig", None)
    diagnosis = getattr(driver, "diag", None)
    state = getattr(driver, "pgcode", None) or ""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "error": type(driver or error).__name__,
        "sqlstate": state,
        "said": diagnosis.message_primary if diagnosis and state.startswith(_OUR_SQL) else None,
        **{name: getattr(diagnosis, f"{name}_name", None) for name in ("table", "column", "constraint")},
        "at": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-_FRAMES:]],
    }


def _of_werkzeug(error: HTTPException) -> Response:
    status = error.code or 500
    if status < 400:
        return Response(status=status, headers=error.get_headers())
    if isinstance(error, SecurityError):
        return render(errors.BadRequest("The Host is not one that this service answers to", code="untrusted_host"))
    kind = _BY_STATUS.get(status)
    if kind is None and status < 500:
        return render(errors.BadRequest())
    problem = kind() if kind else FleetError()
    allowed = [value for name, value in error.get_headers() if name == "Allow"]
    problem.headers.update({"Allow": ", ".join(allowed)} if allowed else {})
    return render(problem)
