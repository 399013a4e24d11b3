"""What Stripe's answers may cost in bytes and seconds, whatever it answers."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from fleet.breakers import Breaker, Rules
from fleet.gateways.cards import CardsUnavailable, Charge
from fleet.gateways.stripe_cards import MAX_ANSWER_BYTES, StripeCards, is_outage
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
