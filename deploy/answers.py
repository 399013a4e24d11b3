"""What gunicorn writes to clients, as this service would write it."""

import json
import logging
import secrets
import socket
import traceback
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from gunicorn import util
from gunicorn.http import errors, wsgi

log = logging.getLogger("gunicorn.error")

# Where an application keeps what it says about its requests.
ADMISSION = "fleet.admission"
# What all answers of this process's application carry.
_HEADERS: dict[str, str] = {}

# What gunicorn refuses before the app sees it; everything else that it cannot parse is a bad request.
_REFUSALS = {
    errors.LimitRequestLine: (414, "URI Too Long", "uri_too_long", "The address is too long"),
    errors.LimitRequestHeaders: (431, "Request Header Fields Too Large", "headers_too_large", "The headers are too large"),
}
_BAD_REQUEST = (400, "Bad Request", "bad_request", "The request cannot be understood")
# What is our fault, also among the errors of parsing.
_OURS = (errors.ConfigurationProblem, errors.InvalidResponseHeader, errors.InvalidResponseHeaderName)
_FAILED = (500, "Internal Server Error", "internal_error", "Internal error")


class Unsigned(wsgi.Response):
    """An answer without a Server line, for which gunicorn has no setting: it only tells an attacker what to try."""

    sock: Any

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


def speak_for(extensions: Mapping[str, Any]) -> None:
    """From now on refuse with the headers that all answers of this application carry."""
    if ADMISSION in extensions:
        _HEADERS.update(extensions[ADMISSION].headers)


def refuse(_worker: Any, _request: Any, sock: socket.socket, _address: Any, error: Exception) -> None:
    """Answer as the app does, with a problem (RFC 9457), in place of gunicorn's `handle_error`.

    That one shows the request on its page and in its line of the log, the address and any token with it; the text of the
    error quotes it too, so of the error only its kind is logged.
    """
    is_ours = isinstance(error, _OURS) or not isinstance(error, errors.ParseException)
    status, reason, code, title = _FAILED if is_ours else _REFUSALS.get(type(error), _BAD_REQUEST)
    request_id = secrets.token_hex(16)  # what the client may have sent is in a head that nobody could read
    said: dict[str, Any] = {"request_id": request_id, "status": status, "cause": type(error).__name__}
    if is_ours:
        log.error("failed outside the app", extra={**said, "stack": traceback.format_tb(error.__traceback__)})
    else:
        log.warning("refused before the app", extra=said)
    body = json.dumps(
        {
            "type": f"urn:fleet:problem:{code}",
            "title": title,
            "status": status,
            "detail": title,
            "code": code,
            "request_id": request_id,
        }
    )
    headers = {
        "Connection": "close",
        "Content-Type": "application/problem+json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",  # nobody knows whether it came with credentials
        "X-Request-ID": request_id,
        **_HEADERS,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with suppress(OSError):  # the client is gone
        util.write_nonblock(sock, f"HTTP/1.1 {status} {reason}\r\n{head}\r\n{body}".encode())
