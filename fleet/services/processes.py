"""Which relays and workers run: each says so every few seconds, and one that is silent for SILENT_S is gone."""

import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal

from fleet import clock
from fleet.db import db
from fleet.models.processes import REPORT, ProcessReport

Kind = Literal["relay", "worker"]
SILENT_S = 15


def name_of_this(kind: str) -> str:
    """A name for this process that no other has, also not the next one with its number on this machine."""
    host = os.environ.get("DYNO") or socket.gethostname()
    return f"{kind}@{host}:{os.getpid()}-{secrets.token_hex(3)}"


def report(name: str, kind: Kind, *, queues: Sequence[str], paused: Sequence[str], handled: Mapping[str, int]) -> None:
    """Say that the process runs, what it serves, what it holds back, and how much of each topic it has done."""
    values = {"name": name, "kind": kind, "queues": list(queues), "paused": list(paused), "handled": dict(handled)}
    db.execute_sql(REPORT, values)


def running() -> list[ProcessReport]:
    """The processes that have been heard of in the last SILENT_S seconds, by name."""
    heard = ProcessReport.reported_at > clock.now() - timedelta(seconds=SILENT_S)
    return list(ProcessReport.select().where(heard).order_by(ProcessReport.name))
