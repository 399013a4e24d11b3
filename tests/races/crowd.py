"""Instances of the service as processes, and a crowd of clients before them."""

import os
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from tests.cast import Person

HOST = "127.0.0.1"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
ANSWER_TIMEOUT_S = 60


class Instance:
    """One gunicorn of one worker with eight threads, on a free port."""

    def __init__(self, command: Sequence[str], root: Path, environment: dict[str, str], directory: Path) -> None:
        self.port = _free_port()
        self._log = directory / "log"
        own = {"HOST": HOST, "PORT": str(self.port), "WEB_CONCURRENCY": "1", "WEB_THREADS": "8"}
        metrics = {"PROMETHEUS_MULTIPROC_DIR": str(directory / "metrics")}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=root, env={**os.environ, **environment, **own, **metrics}, stdout=log, stderr=log
            )

    def await_ready(self) -> None:
        """Return when it answers that it is ready."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.1)

    @property
    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    @property
    def pid(self) -> int:
        return self._process.pid

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def await_end(self) -> None:
        """Return when it is gone."""
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        with closing(HTTPConnection(HOST, self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/health/ready")
                return connection.getresponse().status == 200
            except (OSError, HTTPException):
                return False


@dataclass(frozen=True)
class Request:
    """One call of somebody's. Without a key it gets a fresh one."""

    person: Person
    method: str
    path: str
    body: Any = None
    version: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @cached_property
    def json(self) -> Any:
        return orjson.loads(self.content)

    @property
    def said(self) -> tuple[int, str | None]:
        """The status and the problem's code."""
        return self.status, self.json["code"] if self.status >= 400 else None


class Crowd:
    """Clients that all speak at the same moment, each on a connection of its own."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = ports

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        """Send all at once, spread over the instances; the replies come in the order of the requests."""
        tokens = {id(item.person): item.person.headers for item in requests}
        gate = threading.Barrier(len(requests))
        with ThreadPoolExecutor(len(requests)) as pool:
            calls = [
                pool.submit(_send, self._ports[number % len(self._ports)], item, tokens[id(item.person)], gate)
                for number, item in enumerate(requests)
            ]
            return [call.result() for call in calls]


def tally(replies: Sequence[Reply]) -> Counter[tuple[int, str | None]]:
    """How many replies said what."""
    return Counter(reply.said for reply in replies)


def mixed(*rivals: Sequence[Request]) -> list[Request]:
    """The rivals' requests in turns, so that each instance gets some of every rival's at the same time."""
    turns = [list(turn) for turn in zip(*rivals, strict=True)]
    return [item for number, turn in enumerate(turns) for item in (turn if number % 2 else reversed(turn))]


def _send(port: int, item: Request, headers: dict[str, str], gate: threading.Barrier) -> Reply:
    with closing(HTTPConnection(HOST, port, timeout=ANSWER_TIMEOUT_S)) as connection:
        sent = {**headers, "Idempotency-Key": item.key or str(uuid4())}
        if item.version is not None:
            sent["If-Match"] = f'"{item.version}"'
        if item.body is not None:
            sent["Content-Type"] = "application/json"
        gate.wait(ANSWER_TIMEOUT_S)
        connection.request(item.method, item.path, None if item.body is None else orjson.dumps(item.body), sent)
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
