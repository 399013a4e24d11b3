"""The application: settings, logs, database, limits, routes. The only importer of blueprints."""

from flask import Flask

from fleet import cli, config, logs, metrics, observe, problems
from fleet.auth import Tokens
from fleet.blueprints import branches, operations
from fleet.config import Settings
from fleet.db import db
from fleet.limits import Limits
from fleet.parsing import MAX_BODY_BYTES
from fleet.wiring import Wiring

BLUEPRINTS = (operations.bp, branches.bp)


def create_app(settings: Settings | None = None) -> Flask:
    """Wire the service. Raises ConfigError when the settings are incomplete or unsafe."""
    settings = settings or Settings.load()
    config.use(settings)
    logs.configure(settings.log_level)
    db.configure(settings)
    app = Flask("fleet", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["TRUSTED_HOSTS"] = list(settings.trusted_hosts) or None
    app.url_map.merge_slashes = False
    app.extensions["fleet"] = Wiring(settings, Tokens(settings), Limits(app, settings))
    metrics.THREADS.set(settings.web_threads)
    observe.register(app, settings)
    problems.register(app)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    cli.register(app)
    return app
