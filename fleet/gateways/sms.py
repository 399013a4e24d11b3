"""Text messages: one HTTP POST to the provider that SMS_URL names, into the local outbox in development and tests.

The provider is any that takes JSON of `to`, `text`, `sender` and `id` with a bearer token. Neither numbers nor texts are in any
error or log. While the provider is away a breaker keeps messages waiting.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleet import breakers
from fleet.breakers import Breaker
from fleet.config import Settings
from fleet.gateways.local_outbox import LocalOutbox
from fleet.gateways.wire import Caller, Limits, NotConnected

CONNECT_S, READ_S, TOTAL_S = 3.0, 10.0, 15.0
_MOST_ANSWER_BYTES = 64 * 1024
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
    def wait_s(self) -> float:
        """Seconds until a message may be tried, because the provider is away; else 0."""

    def send(self, sms: Sms) -> None:
        """Hand the message over. Raises SmsNotConfigured, SmsRefused, SmsUnavailable, SmsUncertain, breakers.Open."""


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
        breaker: Breaker | None = None,
    ) -> None:
        self._url, self._token, self._sender = url, token, sender
        self._caller = Caller(Limits(connect_s, read_s, total_s), most_bytes=_MOST_ANSWER_BYTES)
        self._breaker = breaker or breakers.breaker(breakers.SMS, is_failure=is_outage)

    def wait_s(self) -> float:
        return self._breaker.wait_s()

    def send(self, sms: Sms) -> None:
        """Raises SmsRefused, SmsUnavailable, SmsUncertain, breakers.Open."""
        self._breaker.call(self._send, sms)

    def _send(self, sms: Sms) -> None:
        status = self._posted(sms)
        if status in _NOT_TAKEN:
            raise SmsUnavailable(f"the provider answered {status}")
        if status >= 500:
            raise SmsUncertain(f"the provider answered {status}")
        if not 200 <= status < 300:
            raise SmsRefused(f"the provider answered {status}")

    def _posted(self, sms: Sms) -> int:
        body = json.dumps({"to": sms.to, "text": sms.text, "sender": self._sender, "id": sms.id}).encode()
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Authorization": f"Bearer {self._token}",
            "Idempotency-Key": sms.id,
        }
        try:
            # The status says all: what else the provider answers is not read.
            return self._caller.call("POST", self._url, headers, body, wants_body=False).status
        except NotConnected as error:
            raise SmsUnavailable(f"no connection: {error.cause}") from error
        except Exception as error:
            # Also what interrupts the wait, such as the time limit of the task: the message may be on its way.
            raise SmsUncertain(f"no answer: {type(error).__name__}") from error


def is_outage(kind: type[BaseException], error: BaseException) -> bool:
    """Whether a failed call says that the provider is away or overwhelmed, and not that it refused this message."""
    return isinstance(error, SmsUnavailable | SmsUncertain)


class FolderSms:
    """Writes each text message as a file into the local outbox, for development and tests."""

    def __init__(self, directory: Path) -> None:
        self._outbox = LocalOutbox(directory)

    def wait_s(self) -> float:
        return 0.0

    def send(self, sms: Sms) -> None:
        """Raises SmsUnavailable."""
        try:
            self._outbox.keep(f"{sms.id}.sms.txt", f"{sms.to}\n\n{sms.text}\n".encode())
            self._outbox.show(to=sms.to, subject="SMS", text=sms.text, html=None, files=[f"{sms.id}.sms.txt"])
        except OSError as error:
            raise SmsUnavailable(f"the folder cannot be written: {type(error).__name__}") from error


class NoSms:
    """Production without SMS_URL. Nothing is promised by it then; what was promised before becomes a dead letter."""

    def wait_s(self) -> float:
        return 0.0

    def send(self, sms: Sms) -> None:
        """Raises SmsNotConfigured."""
        raise SmsNotConfigured("SMS_URL is not set")
