"""What every route shares. `operation` declares a route once: who may call it, what it takes, what it answers.

The declaration is enforced here in one fixed order (who, how often, may they, what do they say, was it said before) and
published by `fleet.openapi`, so that the document and the behaviour cannot differ.
"""

import functools
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from flask import current_app, g, request
from flask.globals import request_ctx
from pydantic import BaseModel

from fleet import clock, config, errors, idempotency, limits, problems
from fleet.answers import Answer
from fleet.auth import API_KEY_PREFIX, Actor, Claims
from fleet.db import AssumptionFailed, committed, replica
from fleet.errors import BadRequest, FleetError, PreconditionRequired
from fleet.idempotency import Claim, Given, StoredAnswer
from fleet.parsing import Input, Query, View, read_body, read_query
from fleet.rules.addresses import network_of
from fleet.rules.priorities import Priority
from fleet.services import actors

Route = Callable[..., Answer]
Q = TypeVar("Q", bound=Query)

PUBLIC = "public"
_JSON = "application/json"
_JSON_OPTIONS = orjson.OPT_UTC_Z
_KEY = re.compile(r"[!-~]{1,255}")
_KEPT_HEADERS = ("Location", "ETag")
_KEPT_REFUSALS = {402, 404, 409, 422}
_WITH_BODY = {"POST", "PUT", "PATCH"}
_MOST_QUERY_BYTES = 256


@dataclass(frozen=True)
class Operation:
    """A route's declaration."""

    permission: str
    body: type[Input] | None = None
    query: type[Query] | None = None
    answer: type[BaseModel] | None = None
    status: int = 200
    listed: bool = False
    report: bool = False
    idempotent: bool = False
    key_required: bool = False
    claimed_by_service: bool = False
    if_match: bool = False
    tier: str = limits.AUTHENTICATED
    priority: Priority | None = None  # see fleet.admission
    unlimited: bool = False
    cost: int = 1
    any_body: bool = False
    identity: bool = False  # the answer may show a licence number
    problems: tuple[str, ...] = ()
    media: tuple[str, ...] = field(default=(_JSON,))

    @property
    def counted_in(self) -> str:
        """The tier of its limit: by address where nobody need say who they are."""
        return limits.PUBLIC if self.permission == PUBLIC and self.tier == limits.AUTHENTICATED else self.tier


def operation(permission: str, **declared: Any) -> Callable[[Callable[..., Answer]], Route]:
    """Make a function a route: `permission` is what the caller must hold, or PUBLIC."""
    declaration = Operation(permission, **declared)

    def declare(route: Callable[..., Answer]) -> Route:
        @functools.wraps(route)
        def guarded(**path: Any) -> Answer:
            return _guard(declaration, route, path)

        guarded.operation = declaration  # type: ignore[attr-defined]  # functions take attributes; their type does not say so
        return guarded

    return declare


def _guard(declared: Operation, route: Route, path: dict[str, Any]) -> Answer:
    if declared.permission == PUBLIC:
        g.actor = None
        if not declared.unlimited:
            _count_address(declared.counted_in, _cost(declared))
        return _serve(declared, route, path)
    actor = _remembered()
    if actor is not None:
        with suppress(AssumptionFailed), actors.assumed(actor):
            return _serve_as(actor, declared, route, path)
    g.actor = None  # whom we remembered did not act
    return _serve_as(_authenticate(), declared, route, path)


def _serve_as(actor: Actor, declared: Operation, route: Route, path: dict[str, Any]) -> Answer:
    state = g._get_current_object()
    if state.get("standing") is None:  # once a request, though it may be served over
        if declared.tier == limits.AUTH_STRICT:
            _count_address(declared.tier, _cost(declared))
        else:
            _count(declared.tier, actor.name, _cost(declared))
    state.actor = actor
    actor.must(declared.permission)
    return _serve(declared, route, path)


def _serve(declared: Operation, route: Route, path: dict[str, Any]) -> Answer:
    # The request itself, here and below: each use of its proxy takes as long as reading a header.
    sent = request_ctx.request
    if declared.query is not None:
        path["query"] = _query(declared.query, sent.query_string)
    elif sent.query_string:
        _query(Query, sent.query_string)
    if declared.body is not None:
        raw = body_bytes()
        left_out = not raw and sent.method == "POST" and declared.body.may_be_left_out()
        path["body"] = read_body(declared.body, b"{}" if left_out else raw)
    elif not declared.any_body and sent.method in _WITH_BODY and body_bytes() not in {b"", b"{}"}:
        read_body(Input, sent.get_data())
    if declared.listed or declared.report:
        return replica.read(functools.partial(route, **path))
    if not declared.idempotent:
        return route(**path)
    return _once(declared, route, path)


# --- who and how often ------------------------------------------------------------------------------------------------


def client_address() -> str:
    """The peer's address, or the one that the outermost of our TRUSTED_PROXIES saw: never what the client says."""
    hops = current_app.extensions["fleet"].settings.trusted_proxies
    if hops:
        seen = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
        if len(seen) >= hops:
            return seen[-hops]
    return request.remote_addr or "unknown"


def _remembered() -> Actor | None:
    credential = _credential()
    if not credential or credential.startswith(API_KEY_PREFIX):
        return None
    try:
        return actors.remembered(_claims(credential))
    except errors.Unauthenticated:
        return None


def _authenticate() -> Actor:
    credential = _credential()
    try:
        if not credential:
            raise errors.Unauthenticated()
        if credential.startswith(API_KEY_PREFIX):
            return actors.of_api_key(credential)
        return actors.of_session(_claims(credential))
    except errors.Unauthenticated:
        _count_address(limits.PUBLIC)  # whatever the operation costs: it was not begun
        raise


def _credential() -> str:
    """What follows the scheme Bearer; empty where nothing or another scheme was sent."""
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    return credential if scheme.lower() == "bearer" else ""


def _claims(token: str) -> Claims:
    claims: Claims = current_app.extensions["fleet"].tokens.verify(token, at=clock.now())
    return claims


def _count(tier: str, caller: str, cost: int) -> None:
    """Count the call. Raises RateLimited. The headers of every answer come from `g.standing`."""
    g.standing = standing = current_app.extensions["fleet"].limits.check(tier, caller, cost=cost)
    if standing is not None and standing.refused:
        raise limits.refusal(standing)


def _count_address(tier: str, cost: int = 1) -> None:
    _count(tier, network_of(client_address()), cost)


def _cost(declared: Operation) -> int:
    costs: dict[str, int] = current_app.extensions["fleet"].limits.costs
    return costs.get(request.endpoint or "", declared.cost) if costs else declared.cost


# --- what they say ----------------------------------------------------------------------------------------------------


def _query(model: type[Q], raw: bytes) -> Q:
    """The request's query string, which `raw` is, as `model`. Raises Invalid, BadRequest for bytes that are no UTF-8."""
    kept = model.recurs and len(raw) <= _MOST_QUERY_BYTES
    read: Callable[..., Q] = _recent_query if kept else _recent_query.__wrapped__
    return read(model, raw)


@functools.lru_cache(maxsize=512)
def _recent_query(model: type[Q], raw: bytes) -> Q:
    """What clients asked is frozen: it need not be taken apart each time."""
    try:
        arguments = list(request.args.items(multi=True))
    except UnicodeDecodeError:
        raise BadRequest("The query string is not UTF-8") from None
    return read_query(model, arguments)


def body_bytes() -> bytes:
    """The JSON body's bytes. Raises UnsupportedMediaType, LengthRequired; too long a body is refused before it is read."""
    sent = request_ctx.request
    environ = sent.environ
    if "HTTP_TRANSFER_ENCODING" in environ and sent.content_length is None:
        # A chunked body has no length to check, and werkzeug would silently cut it at the cap.
        raise errors.LengthRequired()
    raw = sent.get_data()
    if environ.get("CONTENT_TYPE") == _JSON and "HTTP_CONTENT_ENCODING" not in environ:
        return raw  # as nearly everybody sends it: taking the header apart costs as much as checking the token
    if raw and (sent.mimetype != _JSON or "HTTP_CONTENT_ENCODING" in environ):
        raise errors.UnsupportedMediaType()
    if sent.mimetype_params.get("charset", "utf-8").lower() != "utf-8":
        raise errors.UnsupportedMediaType()
    return raw


def if_match(*, required: bool = True) -> int | None:
    """The version that the client read, from If-Match. Raises PreconditionRequired where it must be sent and is not.

    A tag that is no version of ours gives -1, which matches no row.
    """
    sent = request.headers.get("If-Match")
    if sent is None:
        if required:
            raise PreconditionRequired()
        return None
    if sent.strip() == "*":
        return None
    tag = sent.strip().strip('"')
    return int(tag) if tag.isascii() and tag.isdigit() and len(tag) < 10 else -1


# --- what is answered -------------------------------------------------------------------------------------------------


def shape(view: type[View], row: Any) -> dict[str, Any]:
    """The fields of `view`, from a model instance or from a row that a listing read."""
    if isinstance(row, dict):
        return {name: row[name] for name in view.model_fields}
    return {name: getattr(row, name) for name in view.model_fields}


def render(payload: Any) -> bytes:
    return orjson.dumps(payload, option=_JSON_OPTIONS)


def json_headers(version: int | None, location: str | None) -> dict[str, str]:
    headers = {"Content-Type": _JSON}
    if location is not None:
        headers["Location"] = location
    if version is not None:
        headers["ETag"] = f'"{version}"'
    return headers


def answer(
    payload: Any = None, status: int = 200, *, version: int | None = None, location: str | None = None
) -> Answer:
    """A JSON answer; with `version` it carries the ETag and honours If-None-Match."""
    if payload is None:
        return Answer(status=204)
    response = Answer.of(render(payload), status, json_headers(version, location))
    if version is not None and request.method in {"GET", "HEAD"} and _is_known(f'"{version}"'):
        response.status_code = 304
        response.set_data(b"")
    return response


def _is_known(tag: str) -> bool:
    """Whether If-None-Match names this tag: alone, in a list, marked as weak, or as `*` (RFC 9110, 13.1.2)."""
    sent = request.headers.get("If-None-Match")
    if sent is None:
        return False
    return not {tag, "*"}.isdisjoint(part.strip().removeprefix("W/") for part in sent.split(","))


def page_answer(found: tuple[dict[str, Any], str | None]) -> Answer:
    """A page of a list, with the Link to the next one (RFC 8288)."""
    payload, following = found
    response = answer(payload)
    if following:
        response.headers["Link"] = f'<{following}>; rel="next"'
    return response


# --- was it said before -----------------------------------------------------------------------------------------------


def claim_of_request(*, required: bool) -> Claim | None:
    """The caller's claim on the idempotency key that came with the request, if one came.

    Raises BadRequest `idempotency_key_required`, and Invalid for a key that is not 1..255 visible ASCII characters.
    """
    sent = request_ctx.request
    key = sent.environ.get("HTTP_IDEMPOTENCY_KEY", sent.environ.get("HTTP_X_IDEMPOTENCY_KEY"))
    if key is None:
        if required:
            raise BadRequest("Send an Idempotency-Key with this request", code="idempotency_key_required")
        return None
    if not _KEY.fullmatch(key):
        raise errors.Invalid.field("Idempotency-Key", "invalid_key", "must be 1 to 255 visible ASCII characters")
    actor = g.actor
    claimant = actor.name if actor else f"address:{client_address()}"
    media = _JSON if sent.environ.get("CONTENT_TYPE") == _JSON else sent.mimetype or ""
    said = sent.get_data(), sent.query_string, media
    prints = [idempotency.fingerprint(*said, key=secret) for secret in current_app.extensions["fleet"].fingerprint_keys]
    return Claim(claimant, sent.method, sent.path, key, prints[0], tuple(prints[1:]))


def made(payload: Any, *, version: int, location: str) -> StoredAnswer:
    """The answer to what made something, as it is given and kept."""
    return StoredAnswer(201, json_headers(version, location), render(payload))


def told(given: Given) -> Answer:
    """A kept answer as it goes out: the first time, or again to the letter and marked as such."""
    first = given.answer
    return replay(first) if given.replayed else Answer.of(first.body, first.status, first.headers)


def stored(response: Answer) -> StoredAnswer:
    """The answer as it is kept for a replay."""
    kept = {name: response.headers[name] for name in (*_KEPT_HEADERS, "Content-Type") if name in response.headers}
    return StoredAnswer(response.status_code, kept, response.get_data())


def replay(first: StoredAnswer) -> Answer:
    """The first answer again, to the letter, and marked as such."""
    return Answer.of(first.body, first.status, {**first.headers, "Idempotency-Replayed": "true"})


def _once(declared: Operation, route: Callable[..., Answer], path: dict[str, Any]) -> Answer:
    claim = claim_of_request(required=declared.key_required)
    if claim is None:
        return route(**path)
    try:
        if declared.claimed_by_service:
            return route(**path, claim=claim)
        return committed(functools.partial(_claimed, claim, declared, route, path))
    except AssumptionFailed:
        raise
    except Exception as error:
        return refused_once(claim, problems.translate(error))


def _claimed(claim: Claim, declared: Operation, route: Callable[..., Answer], path: dict[str, Any]) -> Answer:
    """The first answer to the claim, or the route's own, which is kept with what the route did. Within a transaction."""
    first = claim.take()
    if first is not None:
        return replay(first)
    response = route(**path)
    claim.keep(stored(response), sealed=declared.identity and bool(config.current().licence_key))
    return response


def refused_once(claim: Claim, error: FleetError) -> Answer:
    """A refusal is an answer too and is kept, apart from the effect that was rolled back.

    Not so what may heal by itself, nor a stale or missing If-Match: with the right one the same request may go through.
    """
    if error.status not in _KEPT_REFUSALS or error.code.startswith("idempotency_"):
        raise error
    response = problems.render(error)
    first = claim.keep_refusal(stored(response))
    return response if first is None else replay(first)
