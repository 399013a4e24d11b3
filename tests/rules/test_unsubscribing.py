"""A link ends one kind of letter for one customer, within its time, and nobody but us makes one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from fleet.rules import unsubscribing
from fleet.rules.notices import KINDS
from fleet.rules.unsubscribing import LIFETIME, BadToken

KEY = b"k" * 32
NOW = datetime(2026, 12, 1, 10, tzinfo=UTC)
ANA = UUID("01a2175a-3166-71f2-8520-7980a10af0f7")


def made(kind: str = "rental_reminder") -> str:
    return unsubscribing.token(KEY, customer_id=ANA, kind=kind, now=NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_says_whom_and_what_it_is_about(kind: str) -> None:
    assert unsubscribing.read([b"y" * 32, KEY], made(kind), now=NOW) == (ANA, kind)
    assert len(made(kind)) <= unsubscribing.MAX_LENGTH


def test_it_is_good_for_its_time_only() -> None:
    assert unsubscribing.read([b"y" * 32, KEY], made(), now=NOW + LIFETIME - timedelta(seconds=1))
    with pytest.raises(BadToken):
        unsubscribing.read([b"y" * 32, KEY], made(), now=NOW + LIFETIME)


def test_any_other_letter_in_it_makes_it_worthless() -> None:
    token = made()
    for place, char in enumerate(token):
        other = "b" if char == "a" else "a"
        with pytest.raises(BadToken):
            unsubscribing.read([b"y" * 32, KEY], token[:place] + other + token[place + 1 :], now=NOW)


@pytest.mark.parametrize("raw", ["", "v1", "v1....", "\u0661" * 50, f"{made()}=", f" {made()}", made()[:-1], f"{made()}\n"])
def test_what_is_no_token_is_none(raw: str) -> None:
    with pytest.raises(BadToken):
        unsubscribing.read([b"y" * 32, KEY], raw, now=NOW)


def test_another_key_makes_other_tokens() -> None:
    with pytest.raises(BadToken):
        unsubscribing.read([b"x" * 32], made(), now=NOW)
