"""What a password must be, and how many are worked on at once."""

import os
import string
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import WithJsonSchema

from fleet import auth
from fleet.errors import FieldError, Invalid, Unavailable

# Only published so: `check` refuses, with its own code, what the published bounds do not say.
NewPassword = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "format": "password",
            "minLength": auth.MIN_PASSWORD_LENGTH,
            "maxLength": auth.MAX_PASSWORD_BYTES,
        }
    ),
]

_DECORATION = string.digits + string.punctuation + " "
_LONGEST_REPEATED_PIECE = 6
_ROWS = [row * 100 for row in ("1234567890", string.ascii_lowercase, "qwertyuiopasdfghjklzxcvbnm")]
_OTHER_REQUESTS_THREADS = 2
AT_ONCE = max(1, (os.cpu_count() or 1) // 2)


def _common() -> frozenset[str]:
    lines = Path(__file__).with_name("common_passwords.txt").read_text("utf-8").splitlines()
    return frozenset(line for line in lines if not line.startswith("#"))


COMMON = _common()


class Desk:
    """Where passwords are hashed and compared: a few at once, a few waiting, and the rest told to come back.

    argon2 is slow on purpose. Without a bound, a storm of sign-ins would hold every thread and every core of the process,
    and nobody else would be served.
    """

    def __init__(self, threads: int) -> None:
        self._working = threading.BoundedSemaphore(AT_ONCE)
        self._inside = threading.BoundedSemaphore(max(1, threads - _OTHER_REQUESTS_THREADS))

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn. Raises Unavailable at once where too many wait already."""
        if not self._inside.acquire(blocking=False):
            raise Unavailable("Too many sign-ins at once; try again in a second")
        try:
            with self._working:
                yield
        finally:
            self._inside.release()


desk = Desk(threads=8)


def configure(threads: int) -> None:
    """Size the desk for a process of so many request threads: some of them always stay free for other requests."""
    global desk  # noqa: PLW0603 - set once, when the application is made
    desk = Desk(threads)


def hashed(password: str) -> str:
    """The hash to store. Raises Unavailable."""
    with desk.turn():
        return auth.hash_password(password)


def check(password: str, *, email: str, field: str = "password") -> None:
    """Refuse a password that is too short, too long or easily guessed; nothing else is asked of it (NIST SP 800-63B).

    Raises Invalid `weak_password` naming `field`.
    """
    wrong = _weakness(password, email)
    if wrong is not None:
        code, message = wrong
        raise Invalid(f"{field}: {message}", code="weak_password", errors=[FieldError(field, code, message)])


def _weakness(password: str, email: str) -> tuple[str, str] | None:
    if len(password) < auth.MIN_PASSWORD_LENGTH:
        return "too_short", f"must have at least {auth.MIN_PASSWORD_LENGTH} characters"
    if len(password.encode()) > auth.MAX_PASSWORD_BYTES:
        return "too_long", f"must not have more than {auth.MAX_PASSWORD_BYTES} bytes"
    folded = password.casefold()
    if folded in {email.casefold(), email.casefold().partition("@")[0]}:
        return "is_email", "must not be the e-mail address"
    if _is_common(folded) or _is_repeated(folded) or _is_row(folded):
        return "too_common", "is among the first that anybody would guess"
    return None


def _is_common(folded: str) -> bool:
    """Whether it is a common password as it is, or one with digits and signs around it."""
    return not COMMON.isdisjoint({folded, folded.rstrip(_DECORATION), folded.strip(_DECORATION)})


def _is_repeated(folded: str) -> bool:
    """Whether it is a short piece, or a common password, over and over: `abcabcabcabc`, `dragondragon`."""
    # A text that repeats a piece is found again inside its double, shifted by the length of that piece.
    length = (folded + folded).find(folded, 1)
    return length < len(folded) and (length <= _LONGEST_REPEATED_PIECE or folded[:length] in COMMON)


def _is_row(folded: str) -> bool:
    """Whether it runs along the digits, the alphabet or the keyboard, forwards or backwards."""
    return any(folded in row or folded[::-1] in row for row in _ROWS)
