"""A mail server of the tests: takes mails, refuses, asks to come back later, or says nothing at all."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

from fleet.embedded.server import HOST, usable_port

LOGIN, PASSWORD = b"fleet", b"secret"


@dataclass
class Postbox:
    """What arrived, and what the server answers to a recipient and to a mail."""

    url: str = ""
    to_recipient: str = "250 OK"
    to_mail: str = "250 OK"
    mails: list[bytes] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    hangs_up_after_mails: int | None = None
    full: Session | None = None
    dies_at_content: bool = False
    answers_after_s: float = 0

    async def handle_MAIL(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: list[str]) -> str:
        if session not in self.sessions:
            self.sessions.append(session)
        await asyncio.sleep(self.answers_after_s)
        if session is self.full:
            return "421 no more over this connection"
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: SMTP, session: Session, envelope: Envelope, address: str, _: list[str]) -> str:
        await asyncio.sleep(self.answers_after_s)
        if self.to_recipient.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.to_recipient

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.dies_at_content:
            cast(asyncio.Transport, server.transport).abort()
            return "451 gone"
        if self.to_mail.startswith("250"):
            self.mails.append(envelope.original_content or b"")
            self.recipients += envelope.rcpt_tos
        if len(self.mails) == self.hangs_up_after_mails:
            # As a server does that takes only so many over one connection: after its answer it is gone.
            self.hangs_up_after_mails = None
            server.loop.call_later(0.01, cast(asyncio.Transport, server.transport).close)
        return self.to_mail


def _let_in(*said: Any) -> AuthResult:
    sent = said[-1]
    # `handled` is said of an answer that went out already: the server would leave whom it refuses without one.
    return AuthResult(success=(sent.login, sent.password) == (LOGIN, PASSWORD), handled=False)


@contextmanager
def postbox(certificate: Path | None = None) -> Iterator[Postbox]:
    """A mail server on a free port; with a certificate it takes nothing but over STARTTLS, from who gives its password."""
    box = Postbox()
    port = usable_port(None)
    if certificate is None:
        controller = Controller(box, hostname=HOST, port=port)
    else:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        required: dict[str, Any] = {"require_starttls": True, "auth_required": True, "authenticator": _let_in}
        controller = Controller(box, hostname=HOST, port=port, tls_context=context, **required)
    controller.start()
    try:
        box.url = f"smtp://{HOST}:{port}"
        yield box
    finally:
        controller.stop()


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that takes connections and never says a word."""
    with socket.create_server((HOST, 0)) as listener:
        held: list[socket.socket] = []

        def hold() -> None:
            with suppress(OSError):
                while True:
                    held.append(listener.accept()[0])

        threading.Thread(target=hold, daemon=True).start()
        yield f"smtp://{HOST}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()
