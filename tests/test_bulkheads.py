"""How many may ask one dependency at once."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from fleet.bulkheads import Bulkhead, Full
from fleet.config import Settings
from fleet.gateways import stripe_cards
from fleet.gateways.cards import CardsResting
from fleet.gateways.stripe_cards import StripeCards
from tests.books import issued
from tests.cast import Cast
from tests.money import standing, wish
from tests.stripe_server import GOOD_CARD, SECRET, stripe_server


def test_of_fifty_at_once_four_get_in_and_the_rest_is_told_at_once() -> None:
    bulkhead, start, all_told = Bulkhead("test", 4), threading.Barrier(50), threading.Barrier(50)

    def come(_: int) -> bool:
        start.wait()
        try:
            bulkhead.enter()
        except Full:
            all_told.wait(10)
            return False
        all_told.wait(10)
        bulkhead.leave()
        return True

    with ThreadPoolExecutor(50) as threads:
        assert sum(threads.map(come, range(50))) == 4
        assert sum(threads.map(come, range(50))) == 4  # whoever has left makes room


def test_the_gateway_of_the_settings_has_as_many_places_as_they_say(app: Flask, settings: Settings) -> None:
    cards = stripe_cards.gateway(dataclasses.replace(settings, stripe_api_key="sk_test_1", card_calls_at_once=2))
    assert cards is not None
    with cards.place(), cards.place(), pytest.raises(CardsResting), cards.place():
        pass


def test_while_the_gateway_holds_its_share_of_the_threads_others_are_refused_before_anything_is_written(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    invoice = issued(cast)
    with stripe_server() as (stripe, address):
        cards = StripeCards("sk_test_1", address, SECRET, bulkhead=Bulkhead("stripe", 1), timeouts=(0.5, 0.5, 1.0))
        monkeypatch.setattr(cast.app.extensions["fleet"], "cards", cards)

        def pay(key: str) -> tuple[int, str | None]:
            answer = cast.ana.post("/v1/payments", wish(invoice, 70, "card", reference=GOOD_CARD), key=key)
            return answer.status_code, answer.headers.get("Retry-After")

        assert pay("first") == (201, None)
        with cards.place():
            assert pay("second") == (503, "1")
            assert standing(invoice) == ("open", 70, 0)
            assert pay("first") == (201, None)  # what was answered once is answered again
        stripe.goes_wrong(status=500)
        assert pay("third")[0] == 503
        assert pay("third") == (201, None)  # a call that failed has left its place
        assert stripe.charged == 140
