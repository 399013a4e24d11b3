"""How gunicorn serves the app: `gunicorn --config deploy/gunicorn.conf.py wsgi:app`.

Read from the environment: PORT, HOST, WEB_CONCURRENCY (worker processes), WEB_THREADS (threads in each), LOG_LEVEL,
FORWARDED_ALLOW_IPS, PROMETHEUS_MULTIPROC_DIR, FLEET_ENV.
"""

import gc
import json
import os
import select
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

# prometheus_client decides when it is imported whether the workers' numbers are to meet in a directory.
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="fleet-metrics-")

from gunicorn import glogging, util
from gunicorn.http import wsgi
from prometheus_client import multiprocess


class _Unsigned(wsgi.Response):
    """An answer without a Server line, for which gunicorn has no setting: it only tells an attacker what to try."""

    def default_headers(self) -> list[str]:
        lines: list[str] = super().default_headers()
        return [line for line in lines if not line.startswith("Server:")]

    def write(self, arg: bytes) -> None:
        """Send the head and the first of the body as one packet: two would wake the client twice."""
        if self.headers_sent:
            super().write(arg)
            return
        sock, self.sock = self.sock, _Gathered()
        try:
            super().write(arg)
        finally:
            gathered, self.sock = self.sock, sock
        sock.sendall(gathered)


class _Gathered(bytearray):
    """Takes what is written to a socket."""

    sendall = bytearray.extend


class _NoAccessLog(glogging.Logger):
    """gunicorn makes up its line of a request even when it goes nowhere; the app writes one itself."""

    def access(self, *_: Any) -> None:
        pass


# What gunicorn refuses before the app sees it, by its status; everything else is a bad request.
_REFUSALS = {
    414: ("URI Too Long", "uri_too_long", "The address is too long"),
    431: ("Request Header Fields Too Large", "headers_too_large", "The headers are too large"),
    500: ("Internal Server Error", "internal_error", "Internal error"),
}
_BAD_REQUEST = ("Bad Request", "bad_request", "The request cannot be understood")


def _refuse(sock: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer as the app does, with a problem (RFC 9457). gunicorn's own page would show the request to whoever sent it."""
    status = status if status in _REFUSALS else 400
    reason, code, title = _REFUSALS.get(status, _BAD_REQUEST)
    problem = {"type": f"urn:fleet:problem:{code}", "title": title, "status": status, "detail": title, "code": code}
    body = json.dumps(problem)
    lines = [
        f"HTTP/1.1 {status} {reason}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        "X-Content-Type-Options: nosniff",
        "Content-Security-Policy: default-src 'none'; frame-ancestors 'none'",
        "Referrer-Policy: no-referrer",
    ]
    util.write_nonblock(sock, "\r\n".join([*lines, "", body]).encode())


wsgi.Response = _Unsigned
util.write_error = _refuse

# A platform's router comes from outside; a demo with a published password is for its own machine only.
_demo = os.environ.get("FLEET_ENV") in {"development", "test"}
_host = os.environ.get("HOST") or ("127.0.0.1" if _demo else "0.0.0.0")  # noqa: S104 - the router's way in

bind = f"{_host}:{os.environ.get('PORT') or '8000'}"
workers = int(os.environ.get("WEB_CONCURRENCY") or "2")
# Without epoll (macOS, for development) threads wait for their clients.
worker_class = "deploy.buffered_worker.BufferedWorker" if hasattr(select, "epoll") else "gthread"
threads = int(os.environ.get("WEB_THREADS") or "8")

# Each worker imports the app itself: threads that an import starts do not survive a fork, and HUP then brings in new
# code without refusing a connection. Preloading would save some memory, of which there is enough.
preload_app = False

timeout = 30
graceful_timeout = 25  # platforms kill 30 s after TERM
sendfile = False  # it would make a thread wait for who reads
keepalive = 65  # outlasts the 60 s of common load balancers, which would else send into a connection just closed
max_requests = 0

limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS") or "127.0.0.1,::1"
control_socket_disable = True

logger_class = _NoAccessLog
errorlog = "-"
loglevel = (os.environ.get("LOG_LEVEL") or "info").lower()
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": "{asctime}{levelname}{name}{message}",
            "style": "{",
            "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger"},
        }
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["console"]},
    "loggers": {"gunicorn.error": {"level": loglevel.upper(), "handlers": ["console"], "propagate": False}},
}


def on_starting(server: Any) -> None:
    """Forget the metrics of processes that are gone, so that a restart begins at nil. Live ones may share the place."""
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    directory.mkdir(parents=True, exist_ok=True)
    for path in directory.glob("*_*.db"):
        if not _alive(int(path.stem.rsplit("_", 1)[1])):
            path.unlink(missing_ok=True)


def post_worker_init(worker: Any) -> None:
    """Let the collector leave alone what was imported, and come seldom: requests leave next to no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    # Only now is it the process that serves. An import of the service here would keep its code in the master, over every HUP.
    wiring = getattr(worker.wsgi, "extensions", {}).get("fleet")
    if wiring is not None:
        wiring.breakers.start()


def child_exit(server: Any, worker: Any) -> None:
    """Take the gauges of a worker that ended out of the sums."""
    multiprocess.mark_process_dead(worker.pid)


def on_exit(server: Any) -> None:
    """Remove the directory for metrics if it was made here, unless a newer gunicorn took it over (USR2)."""
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
    if directory.name.startswith("fleet-metrics-") and not server.reexec_pid:
        shutil.rmtree(directory, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True
