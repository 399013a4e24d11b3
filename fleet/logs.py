"""One JSON object a line on standard output, with the request's id from the web through the relay to the worker."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import orjson
from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from fleet.rules.masking import COLUMNS_MASKED, MASK

# In the context for the audit log, and on no line: an address may lead to a person.
CLIENT_ADDRESS = "client_address"

_context: ContextVar[dict[str, str] | None] = ContextVar("log_context", default=None)


class _Formatter(JsonFormatter):
    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        # The library's own asks of each attribute of each record whether it is shown here under another name.
        said = record.__dict__
        log_data.update(time=said["asctime"], level=said["levelname"], logger=said["name"], message=said["message"])
        log_data.update(message_dict)
        log_data.update([(name, value) for name, value in said.items() if name not in self._skip_fields])
        log_data.update(_context.get() or {})
        log_data.pop(CLIENT_ADDRESS, None)
        # Nothing of a person is logged on purpose; this is for what somebody logs by mistake.
        for name in log_data.keys() & COLUMNS_MASKED:
            log_data[name] = MASK


def _serialize(record: dict[str, Any], **_: Any) -> str:
    try:
        return orjson.dumps(record, default=str, option=orjson.OPT_UTC_Z).decode()
    except TypeError:
        # Half a surrogate pair, or an integer of any length: rare, and no reason to lose the line.
        return json.dumps(record, default=str)


def configure(level: str) -> None:
    """Send every logger of the process to standard output as JSON lines."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        _Formatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            json_serializer=_serialize,
            reserved_attrs=[*RESERVED_ATTRS, "taskName"],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Where in the code, in which thread and process: no line shows it, and finding it out costs as much as writing the line
    # (the logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # At DEBUG it writes every statement with its parameters: names, addresses, hashes.
    logging.getLogger("peewee").setLevel(logging.INFO)


@contextmanager
def context(**fields: str) -> Iterator[None]:
    """Put these fields on every line logged inside, such as the request id that a message carries."""
    token = _context.set({**(_context.get() or {}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def enter(**fields: str) -> None:
    """Replace the context for the rest of this thread's work: one request or one task after the other."""
    _context.set(fields)


def current(field: str) -> str | None:
    """What the context says of this field, such as the id of the request that is being answered."""
    return (_context.get() or {}).get(field)
