import pytest
from flask import Flask

from fleet import demo
from fleet.config import DEMO_PASSWORD
from fleet.db import db
from fleet.services import reconciliation
from tests.conftest import Sweeper

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seeded(app: Flask, sweeper: Sweeper) -> dict[str, int]:
    """The demo, seeded once for all tests here: none of them changes it."""
    sweeper.empty()
    return demo.seed(DEMO_PASSWORD, progress=lambda items, label: items)


def test_the_demo_is_a_company_with_a_year_behind_it(seeded: dict[str, int]) -> None:
    assert (seeded["vehicle"], seeded["customer"]) == (120, 400)
    assert seeded["branch"] >= 5
    assert db.one("SELECT count(DISTINCT timezone) >= 5 FROM branch") == (True,)
    states = {status for (status,) in db.rows("SELECT DISTINCT status FROM rental")}
    assert states == {"held", "reserved", "active", "completed", "cancelled", "no_show", "expired"}
    assert db.one("SELECT max(start_at) - min(start_at) > interval '360 days' FROM rental") == (True,)


def test_the_planner_knows_how_much_there_is(seeded: dict[str, int]) -> None:
    for table in ("rental", "invoice", "journal_entry", "journal_line"):
        thought = db.one("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", (table,))
        there = db.one(f"SELECT count(*) FROM {table}")
        assert thought and there and thought[0] > 0.9 * there[0] > 0, table


def test_the_demos_books_balance_and_every_invoice_is_in_them(seeded: dict[str, int]) -> None:
    assert reconciliation.prove().holds


def test_the_demos_calendar_agrees_with_its_rentals(seeded: dict[str, int]) -> None:
    wrong = db.rows(
        """SELECT rental.number FROM rental JOIN vehicle_block b ON b.rental_id = rental.id
        WHERE b.live <> (rental.status IN ('held', 'reserved', 'active'))"""
    )
    assert wrong == []
    assert db.one("SELECT count(*) FROM rental WHERE id NOT IN (SELECT rental_id FROM vehicle_block)") == (0,)


def test_the_next_rental_and_invoice_go_on_counting(seeded: dict[str, int]) -> None:
    assert db.one("SELECT nextval('rental_number')") == (seeded["rental"] + 1,)
    assert db.one("SELECT last_number FROM document_counter WHERE series = 'invoice'") == (seeded["invoice"],)


def test_a_database_with_vehicles_is_left_alone(app: Flask, seeded: dict[str, int]) -> None:
    run = app.test_cli_runner()
    assert "there already" in run.invoke(args=["seed-demo", "--if-empty"]).output
    assert run.invoke(args=["seed-demo"]).exit_code == 1
