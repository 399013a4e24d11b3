"""Text messages: one HTTP POST to the provider that SMS_URL names, into the local outbox in development and tests.

The provider is any that takes JSON of `to`, `text`, `sender` and `id` with a bearer token. Redirects are not followed and no
proxy of the environment is used. Neither numbers nor texts are in any error or log.
"""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from fleet.config import Settings
from fleet.gateways.local_outbox import LocalOutbox

CONNECT_S, READ_S, TOTAL_S = 3.0, 10.0, 15.0
# Who says so has not begun. Any other 5xx may come from a gateway in front of a provider that has taken the message.
_NOT_TAKEN = (429, 503)


class SmsError(Exception):
    """A text message did not go out. The message holds no number and no text, so that it may be logged."""


class SmsNotConfigured(SmsError):
    """Production has no SMS_URL: no repetition helps."""


class SmsRefused(SmsError):
    """The provider refuses this message for good: no repetition helps."""


class SmsUnavailable(SmsError):
    """The provider is away or asks to try later; it has not taken the message."""


class SmsUncertain(SmsError):
    """The message was handed over and nothing came back that tells: whether it goes out, nobody knows."""


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message. `to` is a number as E.164 writes it; `id` goes along as the provider's idempotency key."""

    id: str
    to: str
    text: str


class SmsGateway(Protocol):
    def send(self, sms: Sms) -> None:
        """Hand the message over. Raises SmsNotConfigured, SmsRefused, SmsUnavailable, SmsUncertain."""


def gateway(settings: Settings) -> SmsGateway:
    """The way that text messages go under these settings."""
    if settings.sms_url:
        return HttpSms(settings.sms_url, token=settings.sms_token, sender=settings.sms_sender)
    if settings.production:
        return NoSms()
    return FolderSms(Path(settings.mail_dir))


class HttpSms:
    """One connection a message: connecting, each read, and the whole have their own deadlines."""

    def __init__(
        self,
        url: str,
        *,
        token: str,
        sender: str,
        connect_s: float = CONNECT_S,
        read_s: float = READ_S,
        total_s: float = TOTAL_S,
    ) -> None:
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._token, self._sender = token, sender
        self._connect_s, self._read_s, self._total_s = connect_s, read_s, total_s

    def send(self, sms: Sms) -> None:
        """Raises SmsRefused, SmsUnavailable, SmsUncertain."""
        with self._connected() as connection:
            status = self._posted(connection, sms)
        if status in _NOT_TAKEN:
            raise SmsUnavailable(f"the provider answered {status}")
        if status >= 500:
            raise SmsUncertain(f"the provider answered {status}")
        if not 200 <= status < 300:
            raise SmsRefused(f"the provider answered {status}")

    @contextmanager
    def _connected(self) -> Iterator[HTTPConnection]:
        connection = self._connection()
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise SmsUnavailable(f"no connection: {type(error).__name__}") from error
        wire: socket.socket = connection.sock
        wire.settimeout(self._read_s)
        # A provider that drips its answer byte by byte keeps every read short: only this ends it.
        hang_up = threading.Timer(self._total_s, lambda: _hang_up(wire))
        hang_up.daemon = True
        hang_up.start()
        try:
            yield connection
        finally:
            hang_up.cancel()
            connection.close()

    def _connection(self) -> HTTPConnection:
        if not self._tls:
            return HTTPConnection(self._host, self._port, timeout=self._connect_s)
        return HTTPSConnection(self._host, self._port, timeout=self._connect_s, context=ssl.create_default_context())

    def _posted(self, connection: HTTPConnection, sms: Sms) -> int:
        body = json.dumps({"to": sms.to, "text": sms.text, "sender": self._sender, "id": sms.id}).encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token}",
            "Idempotency-Key": sms.id,
        }
        try:
            connection.request("POST", self._path, body, headers)
            # The status says all: what else the provider answers is not read.
            return connection.getresponse().status
        except Exception as error:
            # Also what interrupts the wait, such as the time limit of the task: the message may be on its way.
            raise SmsUncertain(f"no answer: {type(error).__name__}") from error


def _hang_up(wire: socket.socket) -> None:
    try:
        socket.socket.shutdown(wire, socket.SHUT_RDWR)
    except OSError:
        return


class FolderSms:
    """Writes each text message as a file into the local outbox, for development and tests."""

    def __init__(self, directory: Path) -> None:
        self._outbox = LocalOutbox(directory)

    def send(self, sms: Sms) -> None:
        """Raises SmsUnavailable."""
        try:
            self._outbox.keep(f"{sms.id}.sms.txt", f"{sms.to}\n\n{sms.text}\n".encode())
            self._outbox.show(to=sms.to, subject="SMS", text=sms.text, html=None, files=[f"{sms.id}.sms.txt"])
        except OSError as error:
            raise SmsUnavailable(f"the folder cannot be written: {type(error).__name__}") from error


class NoSms:
    """Production without SMS_URL. Nothing is promised by it then; what was promised before becomes a dead letter."""

    def send(self, sms: Sms) -> None:
        """Raises SmsNotConfigured."""
        raise SmsNotConfigured("SMS_URL is not set")
