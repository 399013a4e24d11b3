"""What Stripe's answers may cost in bytes and seconds, whatever it answers."""

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from fleet import deadline
from fleet.breakers import Breaker, Rules
from fleet.gateways.cards import CardsUnavailable, Charge
from fleet.gateways.stripe_cards import MAX_ANSWER_BYTES, StripeCards, is_outage
from tests.receiver import dripping, endless, on_the_wire, silent
from tests.stripe_server import GOOD_CARD, SECRET, Stripe, stripe_server

CONNECT_S, READ_S, TOTAL_S = 0.3, 0.4, 0.6


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("stripe-of-bounds", Rules(), is_failure=is_outage)


@pytest.fixture
def world() -> Iterator[tuple[Stripe, str]]:
    with stripe_server() as served:
        yield served


@pytest.fixture
def stripe(world: tuple[Stripe, str]) -> Stripe:
    return world[0]


@pytest.fixture
def cards(world: tuple[Stripe, str], breaker: Breaker) -> StripeCards:
    return StripeCards("sk_test_1", world[1], SECRET, breaker=breaker, timeouts=(CONNECT_S, READ_S, TOTAL_S))


def charge() -> Charge:
    return Charge(uuid4(), 70, "EUR", GOOD_CARD, datetime.now(UTC))


def test_an_answer_may_be_long(cards: StripeCards, stripe: Stripe) -> None:
    stripe.goes_wrong(blanks=MAX_ANSWER_BYTES - 4096)
    assert cards.charge(charge()).state == "captured"


def test_an_answer_that_is_too_long_is_not_read(cards: StripeCards, stripe: Stripe) -> None:
    stripe.goes_wrong(blanks=MAX_ANSWER_BYTES + 1)
    with pytest.raises(CardsUnavailable, match="APIConnectionError"):
        cards.charge(charge())
    assert cards.charge(charge()).state == "captured"


def test_an_answer_that_drips_ends_at_the_deadline(cards: StripeCards, stripe: Stripe, breaker: Breaker) -> None:
    asked = charge()
    stripe.goes_wrong(blanks=100, drip_s=0.05)
    began = time.monotonic()
    with pytest.raises(CardsUnavailable, match="APIConnectionError"):
        cards.charge(asked)
    assert TOTAL_S <= time.monotonic() - began < TOTAL_S + READ_S
    assert cards.charge(asked).state == "captured"
    assert stripe.charged == 70


def test_a_silent_stripe_is_not_waited_for_longer_than_the_total(world: tuple[Stripe, str]) -> None:
    world[0].goes_wrong(delay_s=1.5)
    cards = StripeCards("sk_test_1", world[1], SECRET, breaker=Breaker("silent", Rules()), timeouts=(5, 5, 0.3))
    began = time.monotonic()
    with pytest.raises(CardsUnavailable, match="APIConnectionError"):
        cards.charge(charge())
    assert time.monotonic() - began < 1.2


@pytest.mark.parametrize("talk", [dripping, endless, silent])
def test_headers_that_drip_or_never_end_are_not_read_for_longer_than_the_total(
    breaker: Breaker, talk: Callable[[socket.socket], None]
) -> None:
    with on_the_wire(talk) as url:
        cards = StripeCards("sk_test_1", url, SECRET, breaker=breaker, timeouts=(CONNECT_S, 5.0, TOTAL_S))
        began = time.monotonic()
        with pytest.raises(CardsUnavailable, match="APIConnectionError"):
            cards.charge(charge())
    assert time.monotonic() - began < TOTAL_S + 1
    assert breaker.failure_count == 1


def test_a_tls_handshake_that_drips_ends_with_the_time_to_connect(breaker: Breaker) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00")
        for _ in range(400):
            time.sleep(0.02)
            connection.sendall(b"\x02")

    with on_the_wire(drip) as url:
        https = url.replace("http://", "https://")
        cards = StripeCards("sk_test_1", https, SECRET, breaker=breaker, timeouts=(CONNECT_S, 5.0, 5.0))
        began = time.monotonic()
        with pytest.raises(CardsUnavailable):
            cards.charge(charge())
    assert time.monotonic() - began < CONNECT_S + 1


def test_a_name_that_is_looked_up_for_ever_is_not_waited_for(breaker: Breaker, monkeypatch: pytest.MonkeyPatch) -> None:
    def for_long(*_: Any, **__: Any) -> list[Any]:
        time.sleep(3)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", for_long)
    cards = StripeCards("sk_test_1", "http://stripe.example", SECRET, breaker=breaker, timeouts=(CONNECT_S, 5.0, 5.0))
    began = time.monotonic()
    with pytest.raises(CardsUnavailable):
        cards.charge(charge())
    assert time.monotonic() - began < CONNECT_S + 1


@pytest.fixture
def request_of() -> Iterator[Callable[[float], None]]:
    """Lets this thread serve a request with so many seconds."""
    yield deadline.begin
    deadline.end()


def test_a_call_takes_no_more_than_its_request_has_left(
    world: tuple[Stripe, str], breaker: Breaker, request_of: Callable[[float], None]
) -> None:
    world[0].goes_wrong(delay_s=3)
    cards = StripeCards("sk_test_1", world[1], SECRET, breaker=breaker)
    request_of(deadline.KEPT_S + 0.3)
    began = time.monotonic()
    with pytest.raises(CardsUnavailable):
        cards.charge(charge())
    assert 0.3 <= time.monotonic() - began < 1.5
    assert deadline.left_s() != 0  # enough to write down that it is not known


def test_without_time_nothing_is_asked_and_nothing_said_about_stripe(
    cards: StripeCards, stripe: Stripe, breaker: Breaker, request_of: Callable[[float], None]
) -> None:
    request_of(deadline.KEPT_S / 2)
    with pytest.raises(CardsUnavailable):
        cards.charge(charge())
    assert (stripe.calls, breaker.failure_count) == ([], 0)
