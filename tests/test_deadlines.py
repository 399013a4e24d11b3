"""A request has one deadline for all that it waits for, and gives the thread free of it at its end."""

import time
from collections.abc import Iterator

import peewee
import psycopg2
import pytest

from fleet import deadline
from fleet.db import db, patience
from fleet.embedded import Databases
from fleet.gateways.stripe_cards import StripeCards
from tests.books import issued
from tests.cast import Cast
from tests.money import wish
from tests.stripe_server import GOOD_CARD, SECRET, stripe_server


@pytest.fixture(autouse=True)
def free_of_it() -> Iterator[None]:
    yield
    deadline.end()


def test_without_one_every_limit_is_its_own() -> None:
    assert (deadline.left_s(), deadline.least(3.0), deadline.least(None), deadline.for_a_call(3.0)) == (None, 3.0, None, 3.0)


def test_with_one_nothing_takes_longer_than_what_is_left() -> None:
    deadline.begin(5)
    assert deadline.least(3.0) == 3.0
    assert 4.9 < (deadline.least(None) or 0) <= 5
    assert 2.9 < deadline.for_a_call(10, kept_s=2) <= 3
    deadline.allow(1)
    assert (deadline.least(3.0) or 9) <= 1
    with pytest.raises(deadline.Over):
        deadline.for_a_call(10, kept_s=2)


def test_what_has_its_own_limits_takes_nothing_from_it() -> None:
    deadline.begin(0.2)
    with deadline.lifted():
        time.sleep(0.25)
        assert deadline.left_s() is None
    assert 0.1 < (deadline.left_s() or 0) <= 0.2


def test_a_statement_ends_with_the_request(cast: Cast) -> None:
    deadline.begin(0.3)
    began = time.monotonic()
    with pytest.raises(peewee.OperationalError):
        db.one("SELECT pg_sleep(5)")
    assert time.monotonic() - began < 1.5
    deadline.end()
    assert db.one("SELECT 1") == (1,)


def test_what_reads_whole_tables_has_its_patience(cast: Cast) -> None:
    deadline.begin(0.2)
    with patience(5):
        assert db.one("SELECT 1 FROM pg_sleep(0.3)") == (1,)


def test_a_request_that_waits_for_a_lock_ends_at_its_deadline_and_leaves_the_thread_free(
    cast: Cast, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = deadline.begin
    monkeypatch.setattr(deadline, "begin", lambda _: begin(0.4))
    with psycopg2.connect(databases.superuser_url) as other, other.cursor() as cursor:
        cursor.execute("LOCK TABLE vehicle")
        began = time.monotonic()
        answer = cast.manager.get("/v1/vehicles")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert time.monotonic() - began < 2
    assert deadline.left_s() is None


def test_a_card_has_longer_than_other_requests(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float | None] = []
    charged = StripeCards.charge

    def watched(self, asked):
        left.append(deadline.left_s())
        return charged(self, asked)

    monkeypatch.setattr(StripeCards, "charge", watched)
    with stripe_server() as (_, address):
        monkeypatch.setattr(cast.app.extensions["fleet"], "cards", StripeCards("sk_test_1", address, SECRET))
        assert cast.ana.post("/v1/payments", wish(issued(cast), 70, "card", reference=GOOD_CARD), key="k").status_code == 201
    assert 10 < (left[0] or 0) < 12
