"""The mail server that the workers of a drill send to: it counts every letter, and its mood can be spoilt."""

import asyncio
import email
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from fleet.embedded.server import HOST, usable_port

TOO_LONG_S = 60


@dataclass
class Mailbox:
    """What arrived, by the promise that it keeps, and how the server feels."""

    rng: random.Random
    url: str = ""
    refuses: float = 0.0  # the share of letters that it asks to send again later
    hangs: bool = False
    letters: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hangs:
            await asyncio.sleep(TOO_LONG_S)
            return "451 Too late"
        if self.rng.random() < self.refuses:
            self.refused += 1
            return "451 Later, please"
        message = email.message_from_bytes(envelope.original_content or b"")
        self.letters[f"{message['Message-ID']}".strip("<> ").partition("@")[0]] += 1
        return "250 OK"


@contextmanager
def mailbox(rng: random.Random) -> Iterator[Mailbox]:
    """A mail server on a free port."""
    box = Mailbox(rng)
    port = usable_port(None)
    controller = Controller(box, hostname=HOST, port=port)
    controller.start()
    try:
        box.url = f"smtp://{HOST}:{port}"
        yield box
    finally:
        controller.stop()
