"""What gunicorn writes to clients, as this service would write it."""

import json
import socket

from gunicorn import util
from gunicorn.http import wsgi

# What gunicorn refuses before the app sees it, by its status; everything else is a bad request.
_REFUSALS = {
    414: ("URI Too Long", "uri_too_long", "The address is too long"),
    431: ("Request Header Fields Too Large", "headers_too_large", "The headers are too large"),
    500: ("Internal Server Error", "internal_error", "Internal error"),
}
_BAD_REQUEST = ("Bad Request", "bad_request", "The request cannot be understood")


class Unsigned(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
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


def refuse(sock: socket.socket, status: int, reason: str, detail: str) -> None:
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
