"""How gunicorn serves the app: `gunicorn --config deploy/gunicorn.conf.py wsgi:app`.

Read from the environment: PORT, HOST, WEB_CONCURRENCY (worker processes), WEB_THREADS (threads in each), LOG_LEVEL,
FORWARDED_ALLOW_IPS, PROMETHEUS_MULTIPROC_DIR, FLEET_ENV.
"""

import gc
import os
import select
import shutil
import tempfile
from pathlib import Path
from typing import Any

# prometheus_client decides when it is imported whether the workers' numbers are to meet in a directory.
if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="fleet-metrics-")

import gunicorn.app.base
from gunicorn import glogging
from gunicorn.http import wsgi
from gunicorn.workers import base
from prometheus_client import multiprocess

from deploy import answers, arbiter


class _NoAccessLog(glogging.Logger):
    """gunicorn makes up its line of a request even when it goes nowhere; the app writes one itself."""

    def access(self, *_: Any) -> None:
        pass


# HUP executes this file again, but imports nothing again: a class made here would wrap the one of the last time.
gunicorn.app.base.Arbiter = arbiter.PatientArbiter
wsgi.Response = answers.Unsigned
base.Worker.handle_error = answers.refuse

# A platform's router comes from outside; a demo with a published password is for its own machine only.
_demo = os.environ.get("FLEET_ENV") in {"development", "test"}
_host = os.environ.get("HOST") or ("127.0.0.1" if _demo else "0.0.0.0")  # noqa: S104 - the router's way in

bind = f"{_host}:{os.environ.get('PORT') or '8000'}"
workers = int(os.environ.get("WEB_CONCURRENCY") or "2")
# Without epoll (macOS, for development) threads wait for their clients.
worker_class = "deploy.buffered_worker.BufferedWorker" if hasattr(select, "epoll") else "gthread"
threads = int(os.environ.get("WEB_THREADS") or "8")

# Each worker imports the app itself: threads that an import starts do not survive a fork, and HUP then brings in new
# code. With a preloaded app it would bring in none. Preloading would save some memory, of which there is enough.
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


def pre_fork(server: Any, worker: Any) -> None:
    """Give the worker what it can say with that it serves."""
    arbiter.give_mark(worker)


def post_worker_init(worker: Any) -> None:
    """Let the collector leave alone what was imported, and come seldom: requests leave next to no cycles behind."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
    # Only now is it the process that serves. An import of the service here would keep its code in the master, over every HUP.
    extensions = getattr(worker.wsgi, "extensions", {})
    if "fleet" in extensions:
        extensions["fleet"].breakers.start()
    answers.speak_for(extensions)
    arbiter.set_mark(worker)


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
