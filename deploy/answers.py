"""What gunicorn writes to clients, as this service would write it."""

import json
import logging
import secrets
import socket
from collections.abc import Mapping
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

log = logging.getLogger("gunicorn.error")

# Where an application keeps what it says about its requests.
ADMISSION = "fleet.admission"
# What all answers of this process's application carry.
_HEADERS: dict[str, str] = {}

# What gunicorn refuses before the app sees it, by its status; everything else is a bad request.
_REFUSALS = {
    414: ("URI Too Long", "uri_too_long", "The address is too long"),
    431: ("Request Header Fields Too Large", "headers_too_large", "The headers are too large"),
    500: ("Internal Server Error", "internal_error", "Internal error"),
}
_BAD_REQUEST = ("Bad Request", "bad_request", "The request cannot be understood")


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


def refuse(sock: socket.socket, status: int, reason: str, detail: str) -> None:
    """Answer as the app does, with a problem (RFC 9457). gunicorn's own page would show the request to whoever sent it."""
    status = status if status in _REFUSALS else 400
    reason, code, title = _REFUSALS.get(status, _BAD_REQUEST)
    request_id = secrets.token_hex(16)  # what the client may have sent is in a head that nobody could read
    log.warning("refused before the app", extra={"request_id": request_id, "status": status, "cause": detail})
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
    util.write_nonblock(sock, f"HTTP/1.1 {status} {reason}\r\n{head}\r\n{body}".encode())
