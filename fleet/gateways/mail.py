"""E-mail: over SMTP where SMTP_URL says so, into a folder in development and tests, nowhere in production without it."""

import smtplib
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import Policy
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from fleet import breakers, clock
from fleet.breakers import Breaker
from fleet.config import Settings
from fleet.gateways import wire
from fleet.gateways.local_outbox import LocalOutbox

TIMEOUT_S = 10.0
# For one mail altogether: a server that takes its time with each of its answers must not outlast a worker's patience.
TOTAL_S = 25.0
MOST_ANSWER_BYTES = 1024 * 1024
_READY, _CLOSING_DOWN = 220, 421
_PORTS = {"smtp": 25, "smtps": 465}
_REFUSED_FOR_GOOD = 500


class MailError(Exception):
    """A mail did not go out. The message holds no address and no text of the mail, so that it may be logged."""


class MailNotConfigured(MailError):
    """Production has no SMTP_URL. It takes somebody to set it: no repetition helps."""


class MailRefused(MailError):
    """The server, or the format of mails itself, refuses this mail for good: no repetition helps."""


class MailUnavailable(MailError):
    """The server is away, slow, or asks to try later."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes along."""

    name: str
    subtype: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail to one address. `id` becomes its Message-ID: whoever gets it twice can tell.

    `unsubscribe_url` ends letters of its kind with one click (RFC 8058); None where the customer cannot do without.
    """

    id: str
    to: str
    subject: str
    text: str
    html: str
    unsubscribe_url: str | None = None
    attachments: tuple[Attachment, ...] = ()


class Session(Protocol):
    """A way to send several mails one after the other; what happens to one does not touch the next."""

    def wait_s(self) -> float:
        """Seconds until a mail may be tried, because the server is away; else 0."""

    def send(self, mail: Mail) -> None:
        """Hand the mail over. Raises MailNotConfigured, MailRefused, MailUnavailable, breakers.Open."""


class Mailer(Protocol):
    def session(self) -> AbstractContextManager[Session]:
        """A session for a batch of mails. Opening it asks nobody anything and fails never."""


def mailer(settings: Settings) -> Mailer:
    """The way that mails go under these settings."""
    if settings.smtp_url:
        return SmtpMailer(settings.smtp_url, settings.mail_from)
    if settings.production:
        return NoMailer()
    return FolderMailer(Path(settings.mail_dir), settings.mail_from)


class _Verbatim(UnstructuredHeader, BaseHeader):
    """A header that stands as it is: the e-mail package would hide a long address in encoded words, which no program reads."""

    def fold(self, *, policy: Policy) -> str:
        return f"{self.name}: {self}{policy.linesep}"


_headers = HeaderRegistry()
_headers.map_to_type("list-unsubscribe", _Verbatim)
_POLICY = policy.SMTP.clone(header_factory=_headers)


def composed(mail: Mail, sender: str) -> EmailMessage:
    """The mail in the format of RFC 5322, as text and HTML. Raises MailRefused.

    The e-mail package refuses line breaks in headers, and the address is parsed as exactly one: nothing that a customer
    typed adds a header or a recipient.
    """
    message = EmailMessage(policy=_POLICY)
    name, address = parseaddr(sender)
    try:
        message["From"] = Address(name, addr_spec=address)
        message["To"] = Address(addr_spec=mail.to)
        message["Subject"] = mail.subject
    except (ValueError, IndexError) as error:
        raise MailRefused("a header cannot be written") from error
    message["Date"] = clock.now()
    message["Message-ID"] = f"<{mail.id}@{address.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no holiday replies, please
    if mail.unsubscribe_url:
        message["List-Unsubscribe"] = f"<{mail.unsubscribe_url}>"
        message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    for file in mail.attachments:
        message.add_attachment(file.content, maintype="application", subtype=file.subtype, filename=file.name)
    return message


class SmtpMailer:
    """One connection a session, at most TIMEOUT_S for each answer. TLS from the start (smtps) or as soon as offered."""

    def __init__(
        self,
        url: str,
        sender: str,
        *,
        timeout_s: float = TIMEOUT_S,
        total_s: float = TOTAL_S,
        breaker: Breaker | None = None,
    ) -> None:
        parts = urlsplit(url)
        self.implicit_tls = parts.scheme == "smtps"
        self.host = parts.hostname or "localhost"
        self.port = parts.port or _PORTS[parts.scheme]
        self.user, self.password = unquote(parts.username or ""), unquote(parts.password or "")
        self.sender = sender
        self.timeout_s, self.total_s = timeout_s, total_s
        self.breaker = breaker or breakers.breaker(breakers.SMTP, is_failure=is_outage)

    @contextmanager
    def session(self) -> Iterator[Session]:
        session = SmtpSession(self)
        try:
            yield session
        finally:
            session.close()


class _Patient(smtplib.SMTP):
    """A connection on which no answer is waited for past the time by which the mail at hand must be through."""

    ends_at = float("inf")
    content_begun = False

    def begin(self, *, ends_at: float) -> None:
        """The next mail begins, or began with the connecting."""
        self.ends_at = ends_at
        self.content_begun = False

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.content_begun = True
        return super().data(msg)

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock:
            # Each byte gets what is left of the whole: an answer that drips would make each wait short and all of them endless.
            self.file = wire.reader(self.sock, self._wait_s, most_bytes=MOST_ANSWER_BYTES)
        return super().getreply()

    def _get_socket(self, host: str, port: int, timeout: float) -> Any:
        """The name is looked up apart, in its time; TLS still asks the server for it."""
        error: OSError = socket.gaierror("not found in time")
        for _, place in wire.lookups.find(host, port, timeout_s=timeout)[: wire.MOST_ADDRESSES]:
            try:
                return super()._get_socket(place[0], port, min(timeout, wire.left(self.ends_at)))  # type: ignore[misc]  # not in the stubs
            except OSError as refused:
                error = refused
        raise error

    def _wait_s(self) -> float:
        return min(self.timeout, wire.left(self.ends_at))


class _PatientTls(_Patient, smtplib.SMTP_SSL):
    """The same, encrypted from the start."""


class SmtpSession:
    """Mails over one connection, made when it is first needed, and again when it died in between."""

    def __init__(self, mailer: SmtpMailer) -> None:
        self._mailer = mailer
        self._smtp: _Patient | None = None

    def wait_s(self) -> float:
        return self._mailer.breaker.wait_s()

    def send(self, mail: Mail) -> None:
        """Raises MailRefused, MailUnavailable, breakers.Open."""
        message = composed(mail, self._mailer.sender)
        try:
            self._mailer.breaker.call(self._hand_over, message, mail.to)
        except (smtplib.SMTPException, OSError) as error:
            raise _translated(error) from error

    def _hand_over(self, message: EmailMessage, to: str) -> None:
        ends_at = time.monotonic() + self._mailer.total_s
        if not self._sent_over_kept(message, to, ends_at):
            self._smtp = _connected(self._mailer, ends_at)
            self._smtp.send_message(message, to_addrs=[to])

    def _sent_over_kept(self, message: EmailMessage, to: str, ends_at: float) -> bool:
        """Send over the kept connection; False when there is none that lives, and nothing of this mail was taken.

        After a refusal smtplib has said RSET, so that the next mail begins anew. A server that hung up in between, or says
        421 instead of taking one more, shows before the content is sent: then no doubt is left whether the mail went out.
        """
        smtp = self._smtp
        if smtp is None:
            return False
        smtp.begin(ends_at=ends_at)
        try:
            smtp.send_message(message, to_addrs=[to])
        except (smtplib.SMTPException, OSError):
            if smtp.sock is not None or smtp.content_begun:
                raise
            self._smtp = None
            return False
        return True

    def close(self) -> None:
        """Say goodbye, if anybody is there to say it to."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            with suppress(smtplib.SMTPException, OSError):
                smtp.quit()
            smtp.close()


def _connected(mailer: SmtpMailer, ends_at: float) -> _Patient:
    smtp: Any = _Patient(timeout=mailer.timeout_s)
    if mailer.implicit_tls:
        smtp = _PatientTls(timeout=mailer.timeout_s, context=ssl.create_default_context())
    # The time runs from before the greeting, so it is not the constructor that connects; TLS asks for this name.
    smtp._host = mailer.host
    smtp.begin(ends_at=ends_at)
    try:
        code, _ = smtp.connect(mailer.host, mailer.port)
        if code != _READY:
            raise smtplib.SMTPConnectError(code, "not ready")
        _introduce(smtp, mailer)
    except BaseException:
        smtp.close()
        raise
    return smtp


def _introduce(smtp: smtplib.SMTP, mailer: SmtpMailer) -> None:
    smtp.ehlo()
    encrypted = mailer.implicit_tls
    if not encrypted and smtp.has_extn("starttls"):
        smtp.starttls(context=ssl.create_default_context())
        smtp.ehlo()
        encrypted = True
    if mailer.user:
        # Somebody in the middle who hides the server's offer of TLS must not be handed the password.
        if not encrypted:
            raise MailUnavailable("the server offers no TLS, and a password goes over nothing else")
        smtp.login(mailer.user, mailer.password)


class FolderMailer:
    """Writes each mail as a file into the local outbox, for development and tests. The same mail twice is one file."""

    def __init__(self, directory: Path, sender: str) -> None:
        self._outbox = LocalOutbox(directory)
        self._sender = sender

    @contextmanager
    def session(self) -> Iterator[Session]:
        yield self

    def wait_s(self) -> float:
        return 0.0

    def send(self, mail: Mail) -> None:
        """Raises MailRefused, MailUnavailable."""
        content = composed(mail, self._sender).as_bytes()
        try:
            self._outbox.keep(f"{mail.id}.eml", content)
            for file in mail.attachments:
                self._outbox.keep(f"{mail.id}-{file.name}", file.content)
            files = [f"{mail.id}.eml", *(f"{mail.id}-{file.name}" for file in mail.attachments)]
            self._outbox.show(to=mail.to, subject=mail.subject, text=mail.text, html=mail.html, files=files)
        except OSError as error:
            raise MailUnavailable(f"the folder cannot be written: {type(error).__name__}") from error


class NoMailer:
    """Production without SMTP_URL: says so at every mail, loudly enough to become a dead letter."""

    @contextmanager
    def session(self) -> Iterator[Session]:
        yield self

    def wait_s(self) -> float:
        return 0.0

    def send(self, mail: Mail) -> None:
        """Raises MailNotConfigured."""
        raise MailNotConfigured("SMTP_URL is not set")


def is_outage(kind: type[BaseException], error: BaseException) -> bool:
    """Whether a failed mail says that the server is away: what it answers about one mail or one recipient does not."""
    if isinstance(error, smtplib.SMTPResponseException):
        return error.smtp_code == _CLOSING_DOWN or isinstance(error, smtplib.SMTPConnectError)
    if isinstance(error, smtplib.SMTPException):
        return isinstance(error, smtplib.SMTPServerDisconnected)
    return isinstance(error, OSError)


def _translated(error: Exception) -> MailError:
    """What a failure means for the next attempt, without the words of the server: they repeat addresses."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        codes = [code for code, _ in error.recipients.values()]
        kind = MailRefused if min(codes) >= _REFUSED_FOR_GOOD else MailUnavailable
        return kind(f"recipient refused with {min(codes)}")
    if isinstance(error, smtplib.SMTPSenderRefused | smtplib.SMTPDataError):
        kind = MailRefused if error.smtp_code >= _REFUSED_FOR_GOOD else MailUnavailable
        return kind(f"{type(error).__name__} {error.smtp_code}")
    if isinstance(error, smtplib.SMTPNotSupportedError):
        return MailRefused("the server cannot take this address")
    if isinstance(error, smtplib.SMTPResponseException):
        return MailUnavailable(f"{type(error).__name__} {error.smtp_code}")
    return MailUnavailable(type(error).__name__)
