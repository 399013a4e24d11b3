"""What the tests of the asynchronous side share: an empty outbox and an empty broker."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from flask import Flask

from fleet.embedded import Databases
from tasks import app as celery_app
from tasks.broker import Broker


@pytest.fixture(autouse=True)
def configured(app: Flask) -> None:
    """Breakers and tasks ask for the settings in use: without this only a file that another one came before would have any."""


@pytest.fixture
def broker(databases: Databases, fresh_database: None) -> Iterator[Broker]:
    """The broker with empty queues."""
    with redis.Redis.from_url(databases.redis_url) as client:
        client.flushdb()
    broker = Broker(celery_app)
    yield broker
    broker.close()


@pytest.fixture
def processes_environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """What real processes of the asynchronous side need to join the test."""
    inherited = {name: value for name, value in os.environ.items() if name not in environment}
    return {
        **inherited,
        **environment,
        "FLEET_MAIL_DIR": str(tmp_path / "mail"),
        "LOG_LEVEL": "INFO",
        "REMAP_SIGTERM": "SIGQUIT",
        "PYTHONWARNINGS": "default",
    }
