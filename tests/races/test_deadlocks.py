"""Real deadlocks with somebody who takes the locks in the wrong order: the service loses them, and clients do not notice."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import peewee
import psycopg2
import pytest
from prometheus_client import REGISTRY

from fleet import config
from fleet.bulkheads import Bulkhead
from fleet.db import atomic, committed, db, transaction
from fleet.embedded import Databases
from fleet.gateways.stripe_cards import StripeCards
from tests.books import issued
from tests.cast import Cast
from tests.money import wish
from tests.races.meeting import Runner
from tests.races.scenes import activating, begun, completing, out, reserving, state_of
from tests.stripe_server import GOOD_CARD, SECRET, stripe_server

# A sequence keeps what is undone.
UNDONE_ONCE = """
CREATE SEQUENCE undone_times;
CREATE FUNCTION undone_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('undone_times') = 1 THEN RAISE EXCEPTION 'not serializable' USING ERRCODE = '40001'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER undone_once BEFORE INSERT ON payment FOR EACH ROW EXECUTE FUNCTION undone_once();
"""
SERIALIZATION = "DO $$ BEGIN RAISE EXCEPTION 'not serializable' USING ERRCODE = '40001'; END $$"

Rival = Callable[[str, str, Callable[[], Any]], Any]


@pytest.fixture
def rival(databases: Databases, heals: None) -> Iterator[Rival]:
    """Somebody who holds one row and wants another, which the service's call holds while it wants the first."""
    with closing(psycopg2.connect(databases.superuser_url)) as connection, connection.cursor() as cursor:
        # The service's side is to be the one that PostgreSQL undoes, and soon.
        cursor.execute("SET deadlock_timeout = '20s'; SET lock_timeout = '15s'; ALTER ROLE fleet SET deadlock_timeout = '50ms'")
        connection.commit()

        def meets(first: str, second: str, call: Callable[[], Any]) -> Any:
            cursor.execute(first)
            one = Runner(call)
            one.start()
            one.await_waiting()
            cursor.execute(second)  # returns when the service's transaction was undone
            connection.rollback()
            return one.end()

        yield meets
        connection.rollback()
        cursor.execute("ALTER ROLE fleet RESET deadlock_timeout")
        connection.commit()


@pytest.fixture
def deadlocks() -> Callable[[], float]:
    """How many deadlocks of the test were healed so far."""

    def healed() -> float:
        return REGISTRY.get_sample_value("fleet_transactions_run_again_total", {"sqlstate": "40P01"}) or 0

    before = healed()
    return lambda: healed() - before


def rows_of(cast: Cast, rental: str) -> tuple[str, str]:
    """Statements that lock the rental and the vehicle."""
    rental_id = rental.rpartition("/")[2]
    return (
        f"SELECT 1 FROM rental WHERE id = '{rental_id}' FOR UPDATE",
        f"SELECT 1 FROM vehicle WHERE id = '{cast.corolla}' FOR UPDATE",
    )


def test_a_handover_that_ran_into_a_deadlock_is_done_again(cast: Cast, rival: Rival, deadlocks: Callable[[], float]) -> None:
    rental = begun(cast)
    handover = rival(*rows_of(cast, rental), activating(cast, rental))
    assert handover.said == (200, None)
    assert (state_of(rental), deadlocks()) == (("active", 1), 1)


def test_a_return_with_a_key_is_billed_once_after_a_deadlock(cast: Cast, rival: Rival, deadlocks: Callable[[], float]) -> None:
    rental = out(cast)
    done = rival(*rows_of(cast, rental), completing(cast, rental))
    assert done.said == (200, None)
    kept = "SELECT count(*), (SELECT count(*) FROM idempotency_record WHERE path = %s) FROM invoice"
    assert db.one(kept, (f"{rental}/complete",)) == (1, 1)
    assert deadlocks() == 1


def test_a_reservation_that_ran_into_a_deadlock_is_tried_again(
    cast: Cast, rival: Rival, deadlocks: Callable[[], float]
) -> None:
    """It shares the vehicle, then the customer; here somebody has them the other way round."""
    customer = f"SELECT 1 FROM customer WHERE id = '{cast.ana.customer_id}' FOR UPDATE"
    vehicle = f"SELECT 1 FROM vehicle WHERE id = '{cast.corolla}' FOR UPDATE"
    booked = rival(customer, vehicle, reserving(cast))
    assert booked.said == (201, None)
    assert db.one("SELECT count(*) FROM rental") == (1,)
    assert deadlocks() == 1


def test_a_card_payment_that_was_undone_for_another_takes_one_place_at_the_gateway(
    cast: Cast, heals: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second place would turn somebody else away, and where there is one place, this very payment."""
    invoice = issued(cast)
    with stripe_server() as (stripe, address):
        cards = StripeCards("sk_test_1", address, SECRET, bulkhead=Bulkhead("stripe", 1))
        monkeypatch.setattr(cast.app.extensions["fleet"], "cards", cards)
        db.execute_sql(UNDONE_ONCE)
        try:
            answer = cast.ana.post("/v1/payments", wish(invoice, 70, "card", reference=GOOD_CARD), key="k")
        finally:
            db.execute_sql("DROP TRIGGER undone_once ON payment; DROP FUNCTION undone_once; DROP SEQUENCE undone_times")
        assert (answer.status_code, stripe.charged) == (201, 70)
        with cards.place():
            pass


class TestCommitted:
    @pytest.fixture(autouse=True)
    def _heals(self, heals: None, fresh_database: None) -> None:
        pass

    def failing(self, times: int) -> tuple[Callable[[], str], list[None]]:
        runs: list[None] = []

        def work() -> str:
            runs.append(None)
            db.execute_sql("INSERT INTO tax_code (code, name, rate_bps) VALUES ('A', 'A', 0)")
            if len(runs) <= times:
                db.execute_sql(SERIALIZATION)
            return "done"

        return work, runs

    def test_it_is_done_again_from_its_start_and_has_its_effect_once(self) -> None:
        work, runs = self.failing(2)
        assert (committed(work), len(runs)) == ("done", 3)
        assert db.one("SELECT count(*) FROM tax_code WHERE code = 'A'") == (1,)

    def test_it_is_not_done_for_ever(self) -> None:
        work, runs = self.failing(9)
        with pytest.raises(peewee.OperationalError):
            committed(work)
        assert len(runs) == 3
        assert db.one("SELECT count(*) FROM tax_code WHERE code = 'A'") == (0,)

    def test_nobody_who_has_waited_for_long_is_kept_for_another_run(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fleet.db.transactions._RUN_AGAIN_WITHIN_S", 0)
        work, runs = self.failing(1)
        with pytest.raises(peewee.OperationalError):
            committed(work)
        assert len(runs) == 1

    def test_a_part_of_a_transaction_is_not_done_again_without_the_rest(self) -> None:
        work, runs = self.failing(1)
        with pytest.raises(peewee.OperationalError), transaction():
            atomic(work)()
        assert len(runs) == 1

    def test_what_is_refused_for_another_reason_is_not_done_again(self) -> None:
        runs: list[None] = []

        def work() -> None:
            runs.append(None)
            db.execute_sql("SELECT 1 / 0")

        with pytest.raises(peewee.DatabaseError):
            committed(work)
        assert len(runs) == 1


def test_a_lock_is_waited_for_until_postgresql_has_looked_for_a_deadlock(cast: Cast) -> None:
    row = db.one("SELECT boot_val::integer FROM pg_settings WHERE name = 'deadlock_timeout'")
    assert row is not None
    assert config.Settings.database_lock_timeout_ms > row[0]
