"""What the tests of account safety share: signing in, letters with tokens, and a telephone that makes codes."""

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fleet import clock
from fleet.db import db
from fleet.gateways.mail import Mail, Session
from fleet.rules import totp
from tasks import notifications as consumers
from tests.cast import PASSWORD, Answer, Cast, Person, request

NEW = "another fine passphrase"
WRONG = "not the right password"
TOKEN = re.compile(r"(?:#|: +)([A-Za-z0-9_-]{43})\b")


class Postman:
    """A mailer that keeps what it is given, or fails as it is told."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.fails_with: Exception | None = None

    @contextmanager
    def session(self) -> Iterator[Session]:
        yield self

    def wait_s(self) -> float:
        return 0

    def send(self, mail: Mail) -> None:
        self.mails.append(mail)
        if self.fails_with:
            raise self.fails_with

    def install(self, patch: pytest.MonkeyPatch) -> "Postman":
        patch.setattr(consumers, "mailer", lambda: self)
        return self

    @property
    def token(self) -> str:
        """The token in the last mail."""
        found = TOKEN.search(self.mails[-1].text)
        assert found, self.mails[-1].text
        return found[1]


def promises(kind: str) -> list[str]:
    """The promises of letters of this kind that have not ended, oldest first."""
    open_ones = "SELECT id FROM outbox WHERE topic = %s AND confirmed_at IS NULL AND dead_at IS NULL ORDER BY id"
    return [f"{found}" for (found,) in db.rows(open_ones, (f"notifications.{kind}",))]


def deliver(kind: str) -> None:
    """Let a worker write all letters of this kind that are promised."""
    getattr(consumers, kind)(promises(kind))


def post(cast: Cast, path: str, body: Any, **headers: str) -> Answer:
    """A request without credentials."""
    return request(cast.app, "POST", path, body, headers)


def login(person: Person, password: str = PASSWORD, **body: Any) -> Answer:
    return request(person.app, "POST", "/v1/auth/login", {"email": person.email, "password": password, **body})


def refresh(person: Person, token: str) -> Answer:
    return request(person.app, "POST", "/v1/auth/refresh", {"refresh_token": token})


def me(person: Person, access_token: str) -> int:
    headers = {"Authorization": f"Bearer {access_token}"}
    return request(person.app, "GET", "/v1/auth/me", headers=headers).status_code


def audited(action: str) -> list[tuple[str, str]]:
    """Who did it to what."""
    return db.rows("SELECT actor, object_id FROM audit_event WHERE action = %s ORDER BY id", (action,))


class Telephone:
    """An authenticator app that was shown a user's secret."""

    def __init__(self, secret: str) -> None:
        self.secret = base64.b32decode(secret)

    def code(self, drift: int = 0) -> str:
        return totp.code(self.secret, totp.step_of(clock.now()) + drift)

    def wrong(self) -> str:
        """Six digits that are no code around now."""
        near = {self.code(drift) for drift in range(-3, 4)}
        return next(f"{number:06}" for number in range(10) if f"{number:06}" not in near)


def enrolled(person: Person, drift: int = -1) -> tuple[Telephone, list[str]]:
    """Somebody's telephone, and their recovery codes. The code of the step before now is used up by it."""
    begun = person.post("/v1/auth/second-factor", {"current_password": PASSWORD})
    assert begun.status_code == 201, begun.json
    telephone = Telephone(begun.json["secret"])
    confirmed = person.post("/v1/auth/second-factor/confirm", {"totp": telephone.code(drift)})
    assert confirmed.status_code == 200, confirmed.json
    return telephone, confirmed.json["recovery_codes"]
