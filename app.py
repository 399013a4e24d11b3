"""The application: settings, logs, database, limits, routes. The only importer of blueprints."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Request
from flask.sessions import NullSession, SessionInterface

from fleet import admission, cli, config, logs, metrics, observe, openapi, passwords, problems
from fleet.auth import Tokens
from fleet.blueprints import (
    access,
    api_keys,
    audit,
    branches,
    cache,
    calendar,
    card_events,
    circuit_breakers,
    dead_letters,
    events,
    invoices,
    ledger,
    notifications,
    operations,
    payments,
    people,
    queues,
    recovery,
    rentals,
    second_factors,
    sessions,
    users,
    vehicle_classes,
    vehicles,
    webhooks,
)
from fleet.config import ConfigError, Settings
from fleet.db import db, refuse_superuser, replica
from fleet.limits import Limits
from fleet.parsing import MAX_BODY_BYTES
from fleet.wiring import Wiring

BLUEPRINTS = (
    operations.bp,
    access.bp,
    sessions.bp,
    recovery.bp,
    second_factors.bp,
    users.bp,
    api_keys.bp,
    branches.bp,
    vehicle_classes.bp,
    vehicles.bp,
    calendar.bp,
    rentals.bp,
    people.bp,
    invoices.bp,
    payments.bp,
    card_events.bp,
    ledger.bp,
    events.bp,
    webhooks.bp,
    dead_letters.bp,
    queues.bp,
    circuit_breakers.bp,
    cache.bp,
    audit.bp,
    notifications.bp,
)


class NoSessions(SessionInterface):
    """We keep no cookies: every request has the same session, which refuses to be written."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class Service(Flask):
    """Flask, for functions that are never coroutines and clients that are given no cookies."""

    session_interface = NoSessions()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        # Flask's own asks of each hook and view at each request what kind of function it is.
        return func


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service. Raises ConfigError when the settings are incomplete or unsafe."""
    settings = settings or Settings.load()
    config.use(settings)
    logs.configure(settings.log_level)
    db.configure(settings)
    replica.configure(settings)
    if settings.production:
        refuse_superuser()
    passwords.configure(settings.web_threads)
    app = Service("fleet", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["TRUSTED_HOSTS"] = list(settings.trusted_hosts) or None
    app.url_map.merge_slashes = False
    app.extensions["fleet"] = Wiring(settings, Tokens(settings), Limits(settings))
    metrics.THREADS.set(settings.web_threads)
    observe.register(app, settings)
    problems.register(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    _refuse_unknown_costs(app, settings)
    admission.register(app, settings)
    cli.register(app)
    return app


def _refuse_unknown_costs(app: Flask, settings: Settings) -> None:
    """A name that is misspelt would leave what is heavy as cheap as it was."""
    limited = {rule.endpoint for rule, _, declared, _ in openapi.operations(app) if not declared.unlimited}
    unknown = sorted(settings.costs.keys() - limited)
    if unknown:
        raise ConfigError("refusing to start: RATELIMIT_COSTS names no operation that is limited: " + ", ".join(unknown))
