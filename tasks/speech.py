"""Whatever a worker or beat has to say is a line of JSON: also what Celery prints past its own logs."""

import logging
import os
from typing import Any

import orjson
from billiard.util import get_logger
from celery.apps import worker

from fleet import clock, logs
from tasks.wiring import settings


def tame() -> None:
    """From here on, in this process."""
    logs.configure(settings().log_level)
    logging.captureWarnings(True)
    worker.safe_say = _say
    # The pool's logger keeps its lines to itself, and Python then prints them bare.
    pool = get_logger()
    pool.propagate, pool.level = True, logging.WARNING
    # Celery writes arguments, and the words of exceptions, into its lines about tasks: ours say what may be said.
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)
    logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)


def _say(message: str, *_: Any) -> None:
    """Celery calls this in handlers of signals, where logging may find its own lock taken: so it writes the line itself."""
    said = {"time": clock.now().isoformat(), "level": "INFO", "logger": "celery.worker", "message": message.strip()}
    if said["message"] and "Ctrl+C" not in said["message"]:
        os.write(1, orjson.dumps(said) + b"\n")
