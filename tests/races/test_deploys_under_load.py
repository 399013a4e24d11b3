"""New code comes in while customers reserve, by HUP and instance by instance: no request fails, none is lost or done twice."""

import http.client
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import orjson
import psutil
import pytest

from fleet.embedded import MARK, Databases
from tests.cast import Cast, at, iso
from tests.races.conftest import ROOT
from tests.races.crowd import HOST, Instance
from tests.races.scenes import count, overlaps

COMMAND = [str(Path(sys.executable).with_name("gunicorn")), "--config", "deploy/gunicorn.conf.py", "wsgi:app"]
CLIENTS, WAIT_S = 4, 60


class Customers:
    """Reserve one day after another, each a vehicle of its own, through whichever instance takes the connection.

    As a load balancer does: a refused connection was no request, and goes to the next instance.
    """

    def __init__(self, cast: Cast, instances: list[Instance]) -> None:
        self.instances = instances
        self.statuses: list[int] = []
        self.failures: list[str] = []
        self._headers = {**cast.agent.headers, "Content-Type": "application/json"}
        self._customer = cast.ana.customer_id
        self._vehicles = [cast.vehicle() for _ in range(CLIENTS)]

    @contextmanager
    def at_work(self) -> Iterator[None]:
        over = threading.Event()
        threads = [threading.Thread(target=self._work, args=(number, over)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def _work(self, number: int, over: threading.Event) -> None:
        connection, day = None, 0.0
        while not over.is_set():
            day += 1 / 8
            try:
                connection = connection or self._connected()
                self._reserve(connection, self._vehicles[number], day)
            except (OSError, http.client.HTTPException) as failure:
                self.failures.append(repr(failure))
                over.set()
            # Every second client comes with a new connection each time.
            if connection is not None and (number % 2 or connection.sock is None):
                connection.close()
                connection = None
            time.sleep(0.05)
        if connection is not None:
            connection.close()

    def _reserve(self, connection: http.client.HTTPConnection, vehicle: UUID, day: float) -> None:
        wish = {"customer_id": self._customer, "vehicle_id": vehicle, "start_at": iso(at(day)), "end_at": iso(at(day, 2))}
        headers = {**self._headers, "Idempotency-Key": str(uuid4())}
        connection.request("POST", "/v1/rentals", orjson.dumps(wish), headers)
        response = connection.getresponse()
        response.read()
        self.statuses.append(response.status)

    def _connected(self) -> http.client.HTTPConnection:
        for instance in self.instances * 2:
            connection = http.client.HTTPConnection(HOST, instance.port, timeout=WAIT_S)
            try:
                connection.connect()
            except ConnectionRefusedError:
                continue
            return connection
        raise ConnectionRefusedError


@pytest.mark.slow
def test_a_deploy_under_load_loses_no_reservation_and_makes_none_twice(
    cast: Cast, environment: dict[str, str], databases: Databases, tmp_path: Path
) -> None:
    environment = {**environment, MARK: databases.postgres.environment[MARK], "LOG_LEVEL": "WARNING"}
    directories = [tmp_path / name for name in ("first", "second", "second-again")]
    for directory in directories:
        directory.mkdir()
    instances = [Instance(COMMAND, ROOT, environment, directory) for directory in directories[:2]]
    try:
        for instance in instances:
            instance.await_ready()
        customers = Customers(cast, instances)
        with customers.at_work():
            reload(instances[0])
            # The other one is restarted: in between the first serves alone.
            instances[1].terminate()
            instances[1].await_end()
            instances[1] = Instance(COMMAND, ROOT, environment, directories[2])
            instances[1].await_ready()
    finally:
        for instance in instances:
            instance.terminate()
        for instance in instances:
            instance.await_end()
    assert customers.failures == []
    assert set(customers.statuses) == {201}
    assert count("rental") == count("vehicle_block WHERE live") == count("outbox") == len(customers.statuses) > 50
    assert overlaps() == 0


def reload(instance: Instance) -> None:
    """HUP, and return when the workers of before are gone."""
    master = psutil.Process(instance.pid)
    before = master.children()
    os.kill(instance.pid, signal.SIGHUP)
    _, left = psutil.wait_procs(before, timeout=WAIT_S)
    assert not left
