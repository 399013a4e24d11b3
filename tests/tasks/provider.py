"""A provider of text messages for the tests: takes what it is told to take, and does as it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Provider:
    """What arrived; what is answered; `instead` is done to the connection instead of answering."""

    url: str = ""
    status: int = 202
    headers: dict[str, str] = field(default_factory=dict)
    instead: Any = None
    taken: list[dict[str, Any]] = field(default_factory=list)
    sent_headers: list[dict[str, str]] = field(default_factory=list)


@contextmanager
def provider() -> Iterator[Provider]:
    """A provider on a free port."""
    told = Provider()

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.taken.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            told.sent_headers.append(dict(self.headers))
            if told.instead:
                told.instead(self)
                return
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests look at what arrived."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/messages?account=7"
    try:
        yield told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
