"""A stampede on the real thing: five hundred clients, two web processes, one query."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from fleet.embedded import Databases, Valkey
from fleet.embedded.server import usable_port
from tests.cast import Cast, Person
from tests.load.http_load import Outcome, drive, request
from tests.source import ROOT
from tests.tasks.crew import await_, waiting_for_locks

CLIENTS = 500


@pytest.fixture
def port(environment: dict[str, str], redis: Valkey, app: object, tmp_path: Path) -> Iterator[int]:
    """gunicorn as it is deployed, with two processes of eight threads."""
    port = usable_port(None)
    settings = {**environment, "REDIS_URL": redis.url, "PORT": str(port), "WEB_CONCURRENCY": "2", "WEB_THREADS": "8"}
    command = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", "wsgi:app"]
    paths = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings, **paths}, stderr=subprocess.DEVNULL) as process:
        try:
            await_(lambda: listening(port))
            yield port
        finally:
            process.terminate()


@pytest.mark.slow
def test_five_hundred_who_miss_at_once_are_one_query(cast: Cast, port: int, databases: Databases) -> None:
    warm = [asked(cast.agent, f"/v1/branches/{cast.lisbon}") for _ in range(64)]
    assert drive(port, warm, clients=32).only(200)
    found: list[Outcome] = []
    crowd = [asked(cast.agent, f"/v1/vehicles/{cast.corolla}")] * CLIENTS
    with psycopg2.connect(databases.superuser_url) as lock, lock.cursor() as cursor:
        cursor.execute("LOCK vehicle IN ACCESS EXCLUSIVE MODE")  # whoever reads it waits
        rush = threading.Thread(target=lambda: found.append(drive(port, crowd, clients=CLIENTS)))
        rush.start()
        await_(lambda: waiting_for_locks(databases, saying="vehicle_by_id"))
        time.sleep(0.15)  # all threads of both processes have got to it
        reading = waiting_for_locks(databases, saying="vehicle_by_id")
    lock.close()
    rush.join()
    assert reading == 1
    assert found[0].only(200)
    told = looks(port, cast.manager)["vehicles"]
    assert told["misses"] + told["hits"] + told["errors"] == CLIENTS
    # On a machine that is busy with other things a thread may wait longer than anybody has patience for.
    assert told["hits"] >= CLIENTS - 5


def asked(person: Person, path: str) -> bytes:
    return request("GET", path, Authorization=person.headers["Authorization"])


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def looks(port: int, manager: Person) -> dict[str, Any]:
    """What /admin/cache tells, whichever process answers."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/admin/cache", headers=manager.headers)
        told = json.loads(connection.getresponse().read())
    return {row["namespace"]: row for row in told["namespaces"]}
