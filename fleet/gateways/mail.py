"""E-mail: over SMTP where SMTP_URL says so, into a folder in development and tests, nowhere in production without it."""

import os
import smtplib
import ssl
import tempfile
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from fleet import clock
from fleet.config import Settings

TIMEOUT_S = 10.0
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
class Mail:
    """A mail to one address. `id` becomes its Message-ID: whoever gets it twice can tell."""

    id: str
    to: str
    subject: str
    text: str
    html: str


class Mailer(Protocol):
    def send(self, mail: Mail) -> None:
        """Hand the mail over. Raises MailNotConfigured, MailRefused, MailUnavailable."""


def mailer(settings: Settings) -> Mailer:
    """The way that mails go under these settings."""
    if settings.smtp_url:
        return SmtpMailer(settings.smtp_url, settings.mail_from)
    if settings.production:
        return NoMailer()
    return FolderMailer(Path(settings.mail_dir), settings.mail_from)


def composed(mail: Mail, sender: str) -> EmailMessage:
    """The mail in the format of RFC 5322, as text and HTML. Raises MailRefused.

    The e-mail package refuses line breaks in headers, and the address is parsed as exactly one: nothing that a customer
    typed adds a header or a recipient.
    """
    message = EmailMessage(policy=policy.SMTP)
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
    message.set_content(mail.text)
    message.add_alternative(mail.html, subtype="html")
    return message


class SmtpMailer:
    """One connection a mail, at most TIMEOUT_S for each answer. TLS from the start (smtps) or as soon as offered."""

    def __init__(self, url: str, sender: str, *, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        self._implicit_tls = parts.scheme == "smtps"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or _PORTS[parts.scheme]
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._sender = sender
        self._timeout_s = timeout_s

    def send(self, mail: Mail) -> None:
        """Raises MailRefused, MailUnavailable."""
        message = composed(mail, self._sender)
        try:
            with self._connected() as smtp:
                smtp.send_message(message, to_addrs=[mail.to])
        except (smtplib.SMTPException, OSError) as error:
            raise _translated(error) from error

    def _connected(self) -> smtplib.SMTP:
        if self._implicit_tls:
            context = ssl.create_default_context()
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(self._host, self._port, timeout=self._timeout_s, context=context)
        else:
            smtp = smtplib.SMTP(self._host, self._port, timeout=self._timeout_s)
        try:
            self._introduce(smtp)
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _introduce(self, smtp: smtplib.SMTP) -> None:
        smtp.ehlo()
        encrypted = self._implicit_tls
        if not encrypted and smtp.has_extn("starttls"):
            smtp.starttls(context=ssl.create_default_context())
            smtp.ehlo()
            encrypted = True
        if self._user:
            # Somebody in the middle who hides the server's offer of TLS must not be handed the password.
            if not encrypted:
                raise MailUnavailable("the server offers no TLS, and a password goes over nothing else")
            smtp.login(self._user, self._password)


class FolderMailer:
    """Writes each mail as a file, for development and tests. The same mail twice is one file."""

    def __init__(self, directory: Path, sender: str) -> None:
        self._directory = directory
        self._sender = sender

    def send(self, mail: Mail) -> None:
        """Raises MailRefused, MailUnavailable."""
        content = composed(mail, self._sender).as_bytes()
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # Whoever watches the folder sees whole mails only: the file gets its name when it is complete.
            handle, draft = tempfile.mkstemp(dir=self._directory, suffix=".draft")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(draft).replace(self._directory / f"{mail.id}.eml")
        except OSError as error:
            raise MailUnavailable(f"the folder cannot be written: {type(error).__name__}") from error


class NoMailer:
    """Production without SMTP_URL: says so at every mail, loudly enough to become a dead letter."""

    def send(self, mail: Mail) -> None:
        """Raises MailNotConfigured."""
        raise MailNotConfigured("SMTP_URL is not set")


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
