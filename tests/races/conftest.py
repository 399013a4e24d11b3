"""The two ways to be at once: made to meet in this process, or in a crowd before two instances of the service."""

import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask

from fleet import clock
from fleet.embedded import MARK, Databases
from fleet.services import outbox
from tests.cast import Cast
from tests.races.crowd import Crowd, Instance
from tests.races.meeting import Meeting, install_clock
from tests.tasks.outboxes import dead_letter

ROOT = Path(__file__).parents[2]
INSTANCES = 2


@pytest.fixture(autouse=True)
def deadlocks_show(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deadlock that the service heals by itself would hide that a lock or the order of locks is missing."""
    if "heals" not in request.fixturenames:
        monkeypatch.setattr("fleet.db.transactions.UNDONE_FOR_ANOTHER", set())


@pytest.fixture
def heals() -> None:
    """The service does again what PostgreSQL undid, as it does outside of the races."""


@pytest.fixture
def meet(monkeypatch: pytest.MonkeyPatch) -> Meeting:
    """Runs two use cases so that the second comes while the first stands at its dangerous point."""
    install_clock(monkeypatch)
    return Meeting(monkeypatch)


@pytest.fixture
def promised(cast: Cast) -> UUID:
    """The id of a promise that is due."""
    return outbox.promise("accounting.post_invoice", "invoice", clock.new_id())


@pytest.fixture
def letter(cast: Cast) -> str:
    """The id of a dead letter."""
    return dead_letter()


@pytest.fixture(scope="session")
def instances(
    app: Flask, environment: dict[str, str], databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Instance]]:
    """Two gunicorns on one database, as two machines would run them."""
    command = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", "wsgi:app"]
    # The mark lets the next run of the tests end what this one leaves behind when it is killed.
    mark = {MARK: databases.postgres.environment[MARK]}
    started = [
        Instance(command, ROOT, {**environment, **mark}, tmp_path_factory.mktemp(f"instance{number}"))
        for number in range(INSTANCES)
    ]
    try:
        for instance in started:
            instance.await_ready()
        yield started
    finally:
        for instance in started:
            instance.terminate()
        for instance in started:
            instance.await_end()


@pytest.fixture
def crowd(instances: list[Instance]) -> Crowd:
    """Sends many requests at the same moment, spread over the instances."""
    return Crowd([instance.port for instance in instances])
