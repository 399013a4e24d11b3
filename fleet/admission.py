"""Which requests go first and which are refused when more come than can be served.

An operation declares its priority beside its route; what declares none is NORMAL, a list DEFERRABLE. Here that becomes one
pattern over the first line of a request, so that the web worker (`deploy/buffered_worker.py`, which finds this object in the
application's extensions) can tell before anything is parsed.
"""

import logging
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

import orjson
from flask import Flask

from fleet import clock, metrics
from fleet.config import Settings
from fleet.errors import Overloaded
from fleet.http import Operation
from fleet.observe import REQUEST_ID, constant_headers, sharing_headers
from fleet.rules.priorities import Priority

log = logging.getLogger("fleet.admission")

EXTENSION = "fleet.admission"
_END_OF_HEAD = b"\r\n\r\n"
# The blanks around a value are stripped afterwards: a pattern that tells them from it can be made to try all ways to do so.
_SENT_ID = re.compile(rb"\r\nx-request-id:([^\r\n]*)", re.IGNORECASE)
_ORIGIN = re.compile(rb"\r\norigin:([^\r\n]*)", re.IGNORECASE)
_PARAMETER = re.compile(r"<[^<>]+>")
_LOG_EVERY_S = 1.0


_RETRY_AFTER_S = {Priority.VITAL: 1, Priority.URGENT: 1, Priority.NORMAL: 2, Priority.DEFERRABLE: 5}


@dataclass
class Admission:
    """The bounds of one process, the priority of a request, and what a request that is refused is told."""

    pattern: re.Pattern[bytes]
    longest_wait_s: float
    most_waiting: int
    most_deferrable: int
    headers: dict[str, str]
    cors_origins: tuple[str, ...] = ()
    _refused: Counter[str] = field(default_factory=Counter)
    _log_again_at: float = 0

    def priority(self, received: bytes | bytearray) -> Priority:
        """The priority of the request that begins so."""
        found = self.pattern.match(received) or self.pattern.match(_spelled_out(received))
        return _OF_GROUP[found.lastindex] if found and found.lastindex else Priority.NORMAL

    def refusal(self, received: bytes | bytearray, priority: Priority) -> bytes:
        """The whole answer to a request that nobody works on; it is counted, and once a second the sum is logged."""
        self._note(priority)
        request_id = _value(_SENT_ID, received)
        request_id = request_id if REQUEST_ID.fullmatch(request_id) else clock.new_id().hex
        error = Overloaded(retry_after_s=_RETRY_AFTER_S[priority])
        problem = {
            "type": f"urn:fleet:problem:{error.code}",
            "title": error.title,
            "status": error.status,
            "detail": error.title,
            "code": error.code,
            "request_id": request_id,
        }
        body = orjson.dumps(problem)
        headers = {
            "Connection": "close",
            "Content-Type": "application/problem+json",
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",  # nobody has looked whether it came with credentials
            "X-Request-ID": request_id,
            **error.headers,
            **self.headers,
            **sharing_headers(self.cors_origins, _value(_ORIGIN, received)),
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        shown = b"" if received.startswith(b"HEAD ") else body
        return f"HTTP/1.1 503 Service Unavailable\r\n{head}\r\n".encode() + shown

    def note_busy(self, threads: int) -> None:
        """So many threads of this process are at work; the web worker says so ten times a second."""
        metrics.BUSY.set(threads)

    def _note(self, priority: Priority) -> None:
        metrics.REFUSED.labels(priority.name.lower()).inc()
        self._refused[priority.name.lower()] += 1
        if time.monotonic() >= self._log_again_at:
            self._log_again_at = time.monotonic() + _LOG_EVERY_S
            log.warning("requests refused: too much to do", extra={"refused_so_far": dict(self._refused)})


def _spelled_out(received: bytes | bytearray) -> bytes:
    """Method and path as the routes see them; empty where they stood there so already."""
    line = bytes(received[: received.find(b"\r\n")]).partition(b"?")[0]
    return unquote_to_bytes(line) + b" " if b"%" in line else b""


def _value(header: re.Pattern[bytes], received: bytes | bytearray) -> str:
    """What the head of a request says there; empty where it does not."""
    found = header.search(received, 0, received.find(_END_OF_HEAD))
    return found[1].decode("latin-1").strip(" \t") if found else ""


_GROUPS = (Priority.VITAL, Priority.URGENT, Priority.DEFERRABLE)
_OF_GROUP = dict(enumerate(_GROUPS, start=1))


def register(app: Flask, settings: Settings) -> None:
    """Read the priorities that the routes declare. To be called when all of them are known."""
    for priority in Priority:
        # At nil: a figure that began with the first refusal would have no increase for an alert to see.
        metrics.REFUSED.labels(priority.name.lower())
    app.extensions[EXTENSION] = Admission(
        pattern=re.compile("|".join(f"({_pattern_of(app, priority)})" for priority in _GROUPS).encode()),
        longest_wait_s=settings.web_queue_wait_ms / 1000,
        most_waiting=settings.web_queue_length,
        most_deferrable=settings.web_deferrable_threads or max(1, settings.web_threads // 2),
        headers=constant_headers(settings),
        cors_origins=settings.cors_origins,
    )


def _priority_of(declared: Operation) -> Priority:
    if declared.priority is not None:
        return declared.priority
    return Priority.DEFERRABLE if declared.listed else Priority.NORMAL


def _pattern_of(app: Flask, priority: Priority) -> str:
    """What the first line of every request of this priority matches, and no other's."""
    paths: dict[str, list[str]] = {}
    for rule in app.url_map.iter_rules():
        declared = getattr(app.view_functions[rule.endpoint], "operation", None)
        if declared is not None and _priority_of(declared) == priority:
            path = "[^/? ]+".join(map(re.escape, _PARAMETER.split(rule.rule)))
            for method in sorted((rule.methods or set()) - {"OPTIONS"}):
                paths.setdefault(method, []).append(path)
    lines = (f"{method} (?:{'|'.join(sorted(of_method))})[? ]" for method, of_method in sorted(paths.items()))
    return "|".join(lines)
