"""A card gateway for the tests of the API."""

from collections.abc import Iterator

import pytest
from flask import Flask

from fleet.breakers import Breaker, Rules
from fleet.gateways.stripe_cards import StripeCards, is_outage
from tests.stripe_server import SECRET, Stripe, stripe_server


@pytest.fixture
def breaker() -> Breaker:
    return Breaker("stripe-of-tests", Rules(), is_failure=is_outage)


@pytest.fixture
def stripe(app: Flask, breaker: Breaker) -> Iterator[Stripe]:
    """A Stripe that the application's card payments go through, with deadlines of a fraction of a second."""
    with stripe_server() as (world, address):
        wiring = app.extensions["fleet"]
        wiring.cards = StripeCards("sk_test_1", address, SECRET, breaker=breaker, timeouts=(0.5, 0.5, 1.0))
        yield world
        del wiring.cards
