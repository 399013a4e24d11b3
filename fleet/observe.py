"""Around every request: its id, its log line, its metrics, its headers. One pass before, one pass after."""

import logging
import re
import time

from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers

from fleet import clock, deadline, logs, metrics
from fleet.config import Settings
from fleet.http import client_address

log = logging.getLogger("fleet.request")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_LOWERED = [(name, name.lower(), value) for name, value in _HEADERS.items()]
_HTTPS_ONLY = {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"}
_EXPOSED_HEADERS = (
    "ETag, Idempotency-Replayed, Link, Location, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, Retry-After, "
    "X-Request-ID"
)
_PREFLIGHT_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, traceparent, "
    "X-Idempotency-Key, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Max-Age": "600",
}


def register(app: Flask, settings: Settings) -> None:
    deadline_s = settings.request_deadline_ms / 1000

    @app.before_request
    def begin() -> None:
        deadline.begin(deadline_s)
        _begin()

    @app.after_request
    def end(response: Response) -> Response:
        _finish_headers(response.headers, settings)
        _record(response)
        return response

    @app.teardown_request
    def leave(_: BaseException | None) -> None:
        deadline.end()


def constant_headers(settings: Settings) -> dict[str, str]:
    """The headers that every answer has, whatever it is."""
    return {**_HEADERS, **(_HTTPS_ONLY if settings.production else {})}


def _begin() -> None:
    # Not by their proxies, which look at every use for whose request it is: twenty times in this module alone.
    state, environ = g._get_current_object(), request.environ
    state.started = time.perf_counter()
    sent = environ.get("HTTP_X_REQUEST_ID", "")
    state.request_id = sent if REQUEST_ID.fullmatch(sent) else clock.new_id().hex
    trace = environ.get("HTTP_TRACEPARENT", "")
    state.traceparent = trace if _TRACEPARENT.fullmatch(trace) else None
    said = {"request_id": state.request_id, logs.CLIENT_ADDRESS: client_address()}
    logs.enter(**said, **({"traceparent": trace} if state.traceparent else {}))


def _finish_headers(headers: Headers, settings: Settings) -> None:
    state = g._get_current_object()
    given = {name.lower() for name, _ in headers}
    more = [("X-Request-ID", state.get("request_id", ""))]
    more += [(name, value) for name, lowered, value in _LOWERED if lowered not in given]
    if state.get("actor") and "cache-control" not in given:
        more.append(("Cache-Control", "no-store"))
    if settings.production:
        more += _HTTPS_ONLY.items()
    standing = state.get("standing")
    if standing is not None:
        more += standing.headers().items()
    # Not by `add`: it would ask of each of these whether it is text without a line break, and they are ours.
    headers._list += more
    if settings.cors_origins:
        _share_with_origins(headers, settings.cors_origins)


def _share_with_origins(headers: Headers, allowed: tuple[str, ...]) -> None:
    shared = sharing_headers(allowed, request.headers.get("Origin"))
    for name, value in shared.items():
        headers.add(name, value)
    if len(shared) > 1 and request.method == "OPTIONS":
        headers.update(_PREFLIGHT_HEADERS)


def sharing_headers(allowed: tuple[str, ...], origin: str | None) -> dict[str, str]:
    """CORS (Fetch standard) by exact list, without credentials: scripts of other origins send a bearer token or nothing."""
    if not allowed:
        return {}
    # On every answer, or a cache would hand what one origin may not read to another, and the other way round.
    shared = {"Vary": "Origin"}
    if origin and origin in allowed:
        shared |= {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": _EXPOSED_HEADERS}
    return shared


def _record(response: Response) -> None:
    state, now = g._get_current_object(), time.perf_counter()
    elapsed_s = now - state.get("started", now)
    operation = request.endpoint or "unknown"
    metrics.latency_of(operation).observe(elapsed_s)
    metrics.answers_of(operation, response.status_code).inc()
    actor = state.get("actor")
    log.info(
        "request",
        extra={
            "method": request.method,
            "operation": operation,
            "status": response.status_code,
            "duration_ms": round(elapsed_s * 1000, 2),
            "actor": actor.name if actor else None,
            "traceparent": state.get("traceparent"),
        },
    )
