"""A Redis that the tests may stop, freeze, fill and empty, and applications on it."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from app import create_app
from fleet import breakers, config, logs, passwords
from fleet.cache import Cache
from fleet.config import Settings
from fleet.db import db
from fleet.embedded import Valkey

AppWith = Callable[..., Flask]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    directory = tmp_path_factory.mktemp("valkey")
    server = Valkey(directory / "valkey", owner=directory, port=None, durable=False)
    yield server
    server.stop()


@pytest.fixture
def redis(server: Valkey) -> Iterator[Valkey]:
    """The server, running and empty, and a breaker that has not heard of what happened to it in other tests."""
    server.stop()
    server.start()
    breakers._registry.named.pop("redis-cache", None)
    yield server
    breakers._registry.named.pop("redis-cache", None)


@pytest.fixture
def own_settings(app: Flask, settings: Settings, redis: Valkey) -> Settings:
    return dataclasses.replace(settings, redis_url=redis.url)


@pytest.fixture
def one(own_settings: Settings) -> Cache:
    """The cache of one process."""
    return Cache(own_settings)


@pytest.fixture
def other(own_settings: Settings) -> Cache:
    """The cache of another one: all that they share is Redis."""
    return Cache(own_settings)


@pytest.fixture
def app_with(app: Flask, settings: Settings, own_settings: Settings) -> Iterator[AppWith]:
    """Makes applications on the server that differ by some settings; the process is put back afterwards."""

    def make(**changes: Any) -> Flask:
        return create_app(dataclasses.replace(own_settings, **changes))

    yield make
    config.use(settings)
    logs.configure(settings.log_level)
    db.configure(settings)
    passwords.configure(settings.web_threads)


@pytest.fixture
def client(redis: Valkey) -> Iterator[Redis]:
    """Somebody who looks into the server and changes its settings."""
    with Redis.from_url(redis.url) as client:
        yield client


def fill(client: Redis) -> None:
    """It takes no write that needs memory."""
    client.config_set("maxmemory", "1")


@pytest.fixture
def processes_environment(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """What the processes of the asynchronous side need to join the test."""
    inherited = {name: value for name, value in os.environ.items() if name not in environment}
    return {**inherited, **environment, "FLEET_MAIL_DIR": str(tmp_path / "mail"), "REMAP_SIGTERM": "SIGQUIT"}
