"""Probes, metrics, and the published API."""

import hmac
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import flask_openapi_swagger
import redis
from flask import Blueprint, current_app, request, send_from_directory
from flask.typing import ResponseReturnValue

from fleet import metrics, openapi
from fleet.db import db, within
from fleet.errors import NotFound, Unauthenticated, Unavailable
from fleet.http import PUBLIC, Answer, answer, operation, render
from fleet.parsing import View
from fleet.rules.priorities import Priority
from fleet.services import gauges

bp = Blueprint("operations", __name__)

_SWAGGER_FILES = Path(flask_openapi_swagger.__file__).parent / "templates" / "swagger"
_DOCS_CSP = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'"
_PROBE_TIMEOUT_S = 0.5


class Dependency(View):
    name: str
    state: str
    latency_ms: float | None


class Health(View):
    status: str
    dependencies: list[Dependency]


@bp.get("/health/live")
@operation(PUBLIC, answer=Health, unlimited=True, priority=Priority.VITAL)
def live() -> Answer:
    """The process answers."""
    return answer({"status": "ok", "dependencies": []})


@bp.get("/health/ready")
@operation(PUBLIC, answer=Health, unlimited=True, priority=Priority.VITAL)
def ready() -> Answer:
    """Whatever serving needs is up: PostgreSQL. Without Redis the service is degraded and still ready."""
    found = [_probe("postgresql", _ask_postgresql), _probe("redis", _ask_redis)]
    if found[0]["state"] != "up":
        raise Unavailable("PostgreSQL is away")
    return answer({"status": _overall(found), "dependencies": found})


@bp.get("/health")
@operation(PUBLIC, answer=Health, unlimited=True, priority=Priority.VITAL)
def health() -> Answer:
    """Every dependency with its state and latency in milliseconds."""
    found = [_probe("postgresql", _ask_postgresql), _probe("redis", _ask_redis)]
    return answer({"status": _overall(found), "dependencies": found})


@bp.get("/metrics")
@operation(PUBLIC, media=("text/plain",), unlimited=True, problems=("unauthenticated", "not_found"))
def prometheus() -> Answer:
    """All gunicorn workers' figures together, for Prometheus.

    With FLEET_METRICS_TOKEN they go to who sends it as the bearer token; production without one does not show them.
    """
    _only_with_token()
    wiring = current_app.extensions["fleet"]
    text, media = metrics.exposition(gauges.of(wiring.watch, wiring.breakers))
    return Answer(text, content_type=media)


@bp.get("/openapi.json")
@operation(PUBLIC, media=("application/json", "application/problem+json"), unlimited=True)
def openapi_document() -> Answer:
    """The API as OpenAPI 3.1."""
    _only_with_docs()
    return Answer(_published(), mimetype="application/json")


@bp.get("/docs")
def docs() -> ResponseReturnValue:
    """Swagger UI, from files that ship with the service."""
    _only_with_docs()
    return Answer(_DOCS_PAGE, mimetype="text/html", headers={"Content-Security-Policy": _DOCS_CSP})


@bp.get("/docs/<path:name>")
def docs_file(name: str) -> ResponseReturnValue:
    """The files of Swagger UI and the three lines that start it."""
    _only_with_docs()
    if name == "start.js":
        return Answer(_DOCS_START, mimetype="text/javascript")
    return send_from_directory(_SWAGGER_FILES, name)


@cache
def _published() -> bytes:
    return render(openapi.document(current_app))


def _only_with_token() -> None:
    settings = current_app.extensions["fleet"].settings
    if not settings.metrics_token:
        if settings.production:
            raise NotFound()
        return
    sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
    if not hmac.compare_digest(sent, f"Bearer {settings.metrics_token}".encode()):
        raise Unauthenticated()


def _only_with_docs() -> None:
    if not current_app.extensions["fleet"].settings.docs_enabled:
        raise NotFound()


def _probe(name: str, ask: Callable[[], None]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        ask()
    except Exception:
        return {"name": name, "state": "down", "latency_ms": None}
    return {"name": name, "state": "up", "latency_ms": round((time.perf_counter() - started) * 1000, 2)}


def _ask_postgresql() -> None:
    with within(_PROBE_TIMEOUT_S):
        db.one("SELECT 1")


def _ask_redis() -> None:
    settings = current_app.extensions["fleet"].settings
    client = redis.Redis.from_url(
        settings.redis_url, socket_connect_timeout=_PROBE_TIMEOUT_S, socket_timeout=_PROBE_TIMEOUT_S
    )
    with client:
        client.ping()


def _overall(found: list[dict[str, Any]]) -> str:
    states = {item["name"]: item["state"] for item in found}
    if states["postgresql"] != "up":
        return "down"
    return "ok" if states["redis"] == "up" else "degraded"


_DOCS_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Fleet API</title>
<link rel="stylesheet" href="/docs/css/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/js/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_DOCS_START = """SwaggerUIBundle({ url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true });
"""
