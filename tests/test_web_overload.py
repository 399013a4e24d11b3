"""More comes than can be served: who cannot be served in time hears so at once, and who is urgent goes first.

Health is answered whatever happens.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from flask import Flask

from deploy import buffered_worker, waiting_room
from fleet import metrics
from fleet.admission import EXTENSION, Admission
from fleet.embedded.server import usable_port
from fleet.rules.priorities import Priority

ROOT = Path(__file__).parents[1]
THREADS, WAIT_S, WORK_S, REPORT_S = 4, 2.0, 0.2, 0.6
ORIGIN = "https://console.example"


class Toy:
    """An application of which every answer takes its time, but for health; it counts what it did."""

    def __init__(self) -> None:
        pattern = re.compile(rb"(GET /health[? ])|(GET /return[? ])|(GET /report[? ])")
        admission = Admission(
            pattern, longest_wait_s=WAIT_S, most_waiting=400, most_deferrable=2, headers={}, cors_origins=(ORIGIN,)
        )
        self.extensions = {EXTENSION: admission}
        self.done: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        time.sleep({"/health": 0, "/done": 0, "/report": REPORT_S}.get(path, WORK_S))
        self.done[path] += 1
        self.done["busy"] = int(metrics.BUSY._value.get())
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(self.done).encode()]


toy = Toy()


@dataclass(frozen=True)
class Reply:
    """What a client got, and after how many seconds."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


class Clients:
    """Asks the toy, each time on a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, path: str) -> Reply:
        started = time.monotonic()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path, headers={"X-Request-ID": "mine", "Origin": ORIGIN})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, headers, response.read(), time.monotonic() - started)

    def crowd(self, *paths: str) -> list[Reply]:
        """All of them at once."""
        gate = threading.Barrier(len(paths))

        def ask(path: str) -> Reply:
            gate.wait()
            return self.ask(path)

        with ThreadPoolExecutor(len(paths)) as pool:
            return list(pool.map(ask, paths))


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    """gunicorn as it is deployed, in front of the toy, with one process of four threads."""
    port = usable_port(None)
    settings = {"PORT": str(port), "FLEET_ENV": "test", "WEB_CONCURRENCY": "1", "WEB_THREADS": str(THREADS)}
    command = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", f"{__name__}:toy"]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 30
        while usable_port(port) == port and time.monotonic() < deadline:
            time.sleep(0.05)
        clients = Clients(port)
        try:
            clients.ask("/health")  # returns when the process has booted
            yield clients
        finally:
            server.terminate()


def test_a_return_does_not_wait_for_slow_reports(clients: Clients) -> None:
    with ThreadPoolExecutor(6) as pool:
        reports = [pool.submit(clients.ask, "/report") for _ in range(6)]
        time.sleep(REPORT_S / 3)
        returned = clients.crowd("/return", "/return")
        assert {reply.status for reply in returned} == {200}
        assert max(reply.seconds for reply in returned) < WORK_S + 0.3
        assert {report.result().status for report in reports} == {200}  # two at a time


def test_who_cannot_be_served_in_time_hears_so_at_once(clients: Clients) -> None:
    others = ["/work"] * 200
    before = json.loads(clients.ask("/done").body).get("/work", 0)
    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(clients.crowd, *others)
        time.sleep(WAIT_S / 4)
        health = [clients.ask("/health") for _ in range(5)]
        urgent = clients.ask("/return")
        replies = crowd.result()
    assert {reply.status for reply in health} == {200}
    assert max(reply.seconds for reply in health) < 0.8
    assert (urgent.status, urgent.seconds < WAIT_S) == (200, True)
    served = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 503]
    assert len(served) + len(refused) == 200
    assert len(served) >= THREADS * WAIT_S / WORK_S / 2
    assert max(reply.seconds for reply in replies) < len(others) * WORK_S / THREADS / 2  # half of what serving all would take
    assert median(reply.seconds for reply in refused) < WAIT_S * 0.75
    assert {(reply.headers["content-type"], reply.headers["retry-after"]) for reply in refused} == {
        ("application/problem+json", "2")
    }
    assert {reply.headers["access-control-allow-origin"] for reply in refused} == {ORIGIN}
    problem = json.loads(refused[0].body)
    assert (problem["code"], problem["status"], problem["request_id"]) == ("overloaded", 503, "mine")
    assert json.loads(clients.ask("/done").body)["/work"] - before == len(served)


def test_of_a_client_that_hung_up_while_it_waited_nothing_is_done(clients: Clients) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(clients.crowd, *["/work"] * THREADS * 2)
        time.sleep(WORK_S / 4)
        impatient = [http.client.HTTPConnection("127.0.0.1", clients.port) for _ in range(THREADS)]
        for client in impatient:
            client.request("GET", "/gone")
        time.sleep(WORK_S * 3 / 4)
        for client in impatient:
            client.close()
    assert "/gone" not in json.loads(clients.ask("/done").body)


def test_how_many_threads_are_at_work_is_told(clients: Clients) -> None:
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(clients.ask, "/report") for _ in range(2)]
        assert {json.loads(answer.result().body)["busy"] for answer in slow} == {2}
    time.sleep(3 * buffered_worker.LOOK_EVERY_S)
    assert json.loads(clients.ask("/done").body)["busy"] <= 1


def test_the_priorities_are_the_same_on_both_sides() -> None:
    names = ("VITAL", "URGENT", "NORMAL", "DEFERRABLE")
    assert [getattr(waiting_room, name) for name in names] == [Priority[name] for name in names]


@pytest.mark.parametrize(
    ("line", "priority"),
    [
        ("GET /health/ready HTTP/1.1", Priority.VITAL),
        ("GET /health HTTP/1.1", Priority.VITAL),
        ("POST /v1/rentals/01a2/complete HTTP/1.1", Priority.URGENT),
        ("POST /v1/rentals/01a2/activate HTTP/1.1", Priority.URGENT),
        ("POST /v1/payments HTTP/1.1", Priority.URGENT),
        ("GET /v1/payments?limit=5 HTTP/1.1", Priority.DEFERRABLE),
        ("GET /v1/rentals HTTP/1.1", Priority.DEFERRABLE),
        ("GET /v1/%72ent%61ls?from=2026-01-01T00%3A00%3A00Z HTTP/1.1", Priority.DEFERRABLE),
        ("GET /v1/rentals/01a2?x=%2Fv1%2Frentals HTTP/1.1", Priority.NORMAL),
        ("GET /% HTTP/1.1", Priority.NORMAL),
        ("GET /v1/rentals/01a2 HTTP/1.1", Priority.NORMAL),
        ("GET /v1/customers/01a2/export HTTP/1.1", Priority.DEFERRABLE),
        ("GET /v1/availability?start_at=x HTTP/1.1", Priority.NORMAL),
        ("POST /v1/rentals HTTP/1.1", Priority.NORMAL),
        ("GET /healthy HTTP/1.1", Priority.NORMAL),
        ("nonsense", Priority.NORMAL),
    ],
)
def test_a_request_has_the_priority_that_its_operation_declares(app: Flask, line: str, priority: Priority) -> None:
    admission: Admission = app.extensions[EXTENSION]
    assert admission.priority(line.encode()) == priority


class TestARefusal:
    def refused(self, *lines: str, body: bytes = b"") -> Reply:
        """What toy's admission says to the request of these lines, and after how many seconds."""
        received = bytearray("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        started = time.monotonic()
        answer = toy.extensions[EXTENSION].refusal(received, Priority.NORMAL)
        seconds = time.monotonic() - started
        head, _, said = answer.partition(b"\r\n\r\n")
        status, *given = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in given)}
        return Reply(int(status.split(" ")[1]), headers, said, seconds)

    @pytest.mark.parametrize("sent", [f"Origin: {ORIGIN}", f"origin:{ORIGIN}", f"ORIGIN: \t {ORIGIN} \t"])
    def test_a_script_of_an_allowed_origin_may_read_it(self, sent: str) -> None:
        reply = self.refused("GET /work HTTP/1.1", "Host: a", sent)
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert "Retry-After" in reply.headers["access-control-expose-headers"]
        assert reply.headers["vary"] == "Origin"

    @pytest.mark.parametrize(
        "sent", ["Origin: https://evil.example", f"Origin: {ORIGIN}.evil.example", "Origin: null", "Origin:", "Origin: \xff",
                 f"X-Origin: {ORIGIN}", f"X: Origin: {ORIGIN}"]
    )  # fmt: skip
    def test_another_origin_is_told_nothing(self, sent: str) -> None:
        reply = self.refused("GET /work HTTP/1.1", "Host: a", sent)
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["vary"] == "Origin", "a cache must not hand this answer to an origin of the list"

    def test_what_stands_in_the_body_is_no_header(self) -> None:
        body = f"\r\nOrigin: {ORIGIN}\r\nX-Request-ID: forged\r\n".encode()
        reply = self.refused("POST /work HTTP/1.1", "Host: a", body=body)
        assert "access-control-allow-origin" not in reply.headers
        assert reply.headers["x-request-id"] != "forged"

    @pytest.mark.parametrize("header", ["X-Request-ID", "Origin"])
    def test_blanks_without_end_cost_no_time(self, header: str) -> None:
        """A refusal is there to save work: the main loop makes it, and who could keep it busy would stop the process."""
        blanks = f"{header}:" + " " * 4000 + "\rx"
        assert self.refused("GET /work HTTP/1.1", "Host: a", blanks).seconds < 0.5
        assert self.refused("POST /work HTTP/1.1", "Host: a", body=f"\r\n{blanks}".encode()).seconds < 0.5

    def test_it_is_stored_nowhere_as_it_may_have_come_with_credentials(self) -> None:
        assert self.refused("GET /work HTTP/1.1", "Host: a", "Authorization: Bearer x").headers["cache-control"] == "no-store"

    def test_a_refused_head_has_no_body(self) -> None:
        reply = self.refused("HEAD /work HTTP/1.1", "Host: a")
        assert (reply.status, reply.body) == (503, b"")
        assert int(reply.headers["content-length"]) > 0

    def test_each_is_counted_and_a_line_a_second_says_how_many_there_were(self, caplog: pytest.LogCaptureFixture) -> None:
        admission = Admission(re.compile(rb"(x)"), longest_wait_s=1, most_waiting=1, most_deferrable=1, headers={})
        counted = metrics.REFUSED.labels("normal")._value
        before = counted.get()
        with caplog.at_level("WARNING", logger="fleet.admission"):
            for _ in range(5):
                admission.refusal(b"GET /work HTTP/1.1\r\n\r\n", Priority.NORMAL)
            admission._log_again_at = 0  # a second later, or days
            admission.refusal(b"GET /work HTTP/1.1\r\n\r\n", Priority.DEFERRABLE)
        assert counted.get() - before == 5
        assert [line.__dict__["refused_so_far"] for line in caplog.records] == [
            {"normal": 1},
            {"normal": 5, "deferrable": 1},
        ]
