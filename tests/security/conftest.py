"""One cast for a whole file of tests that spoil nothing for each other, and applications with settings of their own."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from app import create_app
from fleet import config, logs, passwords
from fleet.config import Settings
from fleet.db import db
from tests.cast import Cast
from tests.conftest import Sweeper

AppWith = Callable[..., Flask]


@pytest.fixture(scope="module")
def crew(app: Flask, sweeper: Sweeper) -> Cast:
    """The cast, made once for all tests of a file: hundreds of refusals need no empty database each."""
    sweeper.empty()
    return Cast(app)


@pytest.fixture
def app_with(app: Flask, settings: Settings) -> Iterator[AppWith]:
    """Makes applications that differ from the tests' own by some settings; the process is put back afterwards."""

    def make(**changes: Any) -> Flask:
        return create_app(dataclasses.replace(settings, **changes))

    yield make
    config.use(settings)
    logs.configure(settings.log_level)
    db.configure(settings)
    passwords.configure(settings.web_threads)
