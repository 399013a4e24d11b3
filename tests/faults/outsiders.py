"""Others whom the service depends on, or who depend on it: receivers of webhooks, and readers of the event stream.

The mail server is in mailbox.py, the card gateway in tests/stripe_server.py. Each keeps account of what it saw, and its mood
can be spoilt.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import orjson

from fleet.embedded.server import HOST
from tests.faults.evidence import Heard, Reading

if TYPE_CHECKING:
    from tests.faults.clients import Client

TOO_LONG_S = 60
PAGE = 100


@dataclass
class Hooks:
    """Receivers of webhooks, one for each path, and how they feel."""

    rng: random.Random
    url: str = ""
    refuses: float = 0.0  # the share of requests that get a 500
    hangs: bool = False
    gone: bool = False  # connections end without an answer
    spoilt: int = 0
    heard: dict[str, Heard] = field(default_factory=dict)  # by path

    def answer(self, path: str, webhook_id: str, body: bytes) -> int | None:
        """The status of the answer; None for none at all."""
        heard = self.heard[path]
        heard.asked[webhook_id] += 1
        if orjson.loads(body)["id"] != webhook_id:
            heard.mistaken.append(webhook_id)
        if self.hangs or self.gone:
            self.spoilt += 1
            until = time.monotonic() + TOO_LONG_S
            while self.hangs and time.monotonic() < until:
                time.sleep(0.1)
            return None
        if self.rng.random() < self.refuses:
            self.spoilt += 1
            return 500
        heard.taken[webhook_id] += 1
        return 204


@contextmanager
def hooks(rng: random.Random) -> Iterator[Hooks]:
    """Receivers on a free port."""
    told = Hooks(rng)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = told.answer(self.path, self.headers["webhook-id"], body)
            if status is not None:
                with suppress(OSError):
                    self.send_response(status)
                    self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    told.url = f"http://{HOST}:{server.server_port}"
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


class Reader:
    """Somebody who reads the event stream as fast as it goes, and goes on where they were when an answer did not come."""

    def __init__(self, client: "Client", after: int) -> None:
        self.reading = Reading(f"reader {client.name}", after)
        self.failures = 0
        self._client = client
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def finish(self) -> Reading:
        """Read what is left, and return all of it."""
        self._stopping.set()
        self._thread.join()
        self._client.hang_up()
        return self.reading

    def _go_on(self) -> None:
        while True:
            last_page = self._stopping.is_set()  # asked before the page is: what is there by then is read
            status, page = self._client.look(f"/v1/events?after={self._position}&limit={PAGE}")
            if status == 200:
                self.reading.read += [(event["sequence"], event["id"]) for event in page["data"]]
            else:
                self.failures += 1
            if last_page and status == 200 and not page["data"]:
                return
            self._stopping.wait(0.02)
            if status != 200:
                time.sleep(0.1)

    @property
    def _position(self) -> int:
        return self.reading.read[-1][0] if self.reading.read else self.reading.after
