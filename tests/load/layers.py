"""What each layer of a reservation costs, called one by one in one process, and how many statements requests send.

`python -m tests.load.layers FILE [PART ...]` is a process of its own with the environment of a web worker; it writes JSON to
FILE: {"layers_us": {name: [elapsed, own]}, "statements": {name: count}}, or the named of these two parts.
"""

import io
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import orjson
from flask import Flask, Response, g
from psycopg2 import extensions

from app import create_app
from fleet import clock, http, limits, metrics
from fleet.blueprints.rentals import ReserveRental
from fleet.config import Settings
from fleet.db import db
from fleet.http import stored
from fleet.idempotency import Claim
from fleet.parsing import read_body
from fleet.services import actors, reservations
from tests.load.renting import Clerks, random_rental, random_vehicle

BATCHES, CALLS = 5, 150
OURS = 1_000_000  # times from here on are asked for by nobody else
Environ = dict[str, Any]


def main(output: str, *parts: str) -> None:
    """Measure and write."""
    settings = Settings.load()
    app = create_app(settings)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(io.StringIO())
    clerks = Clerks(settings)
    measures: dict[str, Callable[[Flask, Clerks], Any]] = {"layers_us": layers, "statements": statements}
    Path(output).write_text(json.dumps({name: measures[name](app, clerks) for name in parts or measures}))


def layers(app: Flask, clerks: Clerks) -> dict[str, tuple[float, float]]:
    """Microseconds of each layer, elapsed and of our own processor; the rest is waiting for PostgreSQL or Redis."""
    wiring = app.extensions["fleet"]
    token = clerks.credential().removeprefix("Bearer ")
    claims = wiring.tokens.verify(token, at=clock.now())
    actor = actors.of_session(claims)
    fresh = (clerks.free_slot(number) for number in range(OURS, 2 * OURS))
    raw = next(fresh)
    keys = iter(range(1_000_000))
    names = iter(range(1_000_000))

    def reserve() -> None:
        claim = Claim(actor.name, "POST", "/layers", f"layer-{next(keys)}", b"0" * 32)
        wish = read_body(ReserveRental, next(fresh)).as_wish()
        reservations.reserve(actor, wish, claim=claim, answer_of=lambda document: stored(http.answer(_plain(document), 201)))

    with app.test_request_context("/v1/rentals", method="POST", data=raw, headers={"Idempotency-Key": "a-key"}):
        g.actor = actor
        return {
            "a whole reservation": _us(lambda: _call(app, _environ(clerks, next(fresh)))),
            "Flask alone, a hello": _us(_hello()),
            "token, already verified": _us(lambda: wiring.tokens.verify(token, at=clock.now())),
            "who acts (1 statement)": _us(lambda: actors.of_session(claims)),
            "limit, in Redis": _us(lambda: wiring.limits.check(limits.AUTHENTICATED, f"layer-{next(names) // 400}")),
            "parse and validate": _us(lambda: read_body(ReserveRental, raw)),
            "idempotency: claim, fingerprint": _us(lambda: http.claim_of_request(required=True)),
            "reserve: parse, 2 statements, commit": _us(reserve),
            "log line": _us(_log_line),
            "metrics": _us(_observe),
        }


def statements(app: Flask, clerks: Clerks) -> dict[str, int]:
    """How many statements a request sends, BEGIN and COMMIT not."""
    slots = iter(range(2 * OURS, 3 * OURS))
    asked: dict[str, Callable[[], Environ]] = {
        "reservation": lambda: _environ(clerks, clerks.free_slot(next(slots))),
        "list": lambda: _environ(clerks, b"", "/v1/rentals?limit=50"),
        "rental": lambda: _environ(clerks, b"", random_rental()),
        "vehicle": lambda: _environ(clerks, b"", random_vehicle()),
    }
    counts = {}
    db.connection().cursor_factory = _Counting
    for name, ask in asked.items():
        # The session is remembered and the statement prepared, as they mostly are.
        first = ask()
        _call(app, first)
        _Counting.sent.clear()
        _call(app, {**ask(), "HTTP_AUTHORIZATION": first["HTTP_AUTHORIZATION"]})
        counts[name] = len(_Counting.sent)
    return counts


class _Counting(extensions.cursor):
    """A cursor that counts the statements that clients wait for: what a prepared statement is made with is not one."""

    sent: ClassVar[list[str]] = []

    def execute(self, query: Any, vars: Any = None) -> None:
        if not str(query).removeprefix("BEGIN;").startswith(("PREPARE", "BEGIN", "COMMIT", "ROLLBACK")):
            self.sent.append(query)
        super().execute(query, vars)


def _environ(clerks: Clerks, body: bytes, target: str = "/v1/rentals") -> Environ:
    path, _, query = target.partition("?")
    return {
        "REQUEST_METHOD": "POST" if body else "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "127.0.0.1",
        "HTTP_AUTHORIZATION": clerks.credential(),
        "HTTP_IDEMPOTENCY_KEY": clock.new_id().hex,
        "CONTENT_TYPE": "application/json" if body else "",
        "CONTENT_LENGTH": str(len(body)) if body else "",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
    }


def _call(app: Flask, environ: Environ) -> bytes:
    """One request, from the server's door to the last byte. Raises RuntimeError unless it succeeds."""
    answer = Response.from_app(app, environ, buffered=True)
    if not 200 <= answer.status_code < 300:
        raise RuntimeError(f"{environ['PATH_INFO']} answered {answer.status}: {answer.get_data(as_text=True)}")
    return answer.get_data()


def _hello() -> Callable[[], bytes]:
    bare = Flask("bare")
    bare.add_url_rule("/hello", view_func=lambda: {"hello": "world"})
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/hello", "QUERY_STRING": "", "SERVER_NAME": "x", "SERVER_PORT": "80"}
    return lambda: _call(bare, {**environ, "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "HTTP_HOST": "x"})


def _log_line() -> None:
    said = {"method": "POST", "operation": "layers", "status": 201, "duration_ms": 1.23, "actor": "user:x", "traceparent": None}
    logging.getLogger("fleet.request").info("request", extra=said)


def _observe() -> None:
    metrics.latency_of("layers").observe(0.001)
    metrics.answers_of("layers", 201).inc()


def _plain(document: dict[str, Any]) -> Any:
    return orjson.Fragment(orjson.dumps(document))


def _us(call: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of one call, elapsed and on our own processor: the quickest batch, because whatever disturbs only adds."""
    call()
    batches = []
    for _ in range(BATCHES):
        started, worked = time.perf_counter(), time.thread_time()
        for _ in range(CALLS):
            call()
        batches.append((1e6 * (time.perf_counter() - started) / CALLS, 1e6 * (time.thread_time() - worked) / CALLS))
    return min(elapsed for elapsed, _ in batches), min(own for _, own in batches)


if __name__ == "__main__":
    main(*sys.argv[1:])
