"""Each test breaks the ledger by hand, in SQL, as no service would; the database refuses by the name of its rule."""

from typing import Any

import peewee
import pytest

from fleet import clock
from fleet.db import db, transaction
from tests.books import add_line, close_fiscal_year, entry_by_hand, refused_by
from tests.cast import Cast, insert

CASH = ("1000", "debit", 500)
EQUITY = ("3000", "credit", 500)


@pytest.fixture
def entry(cast: Cast):
    """The id of an entry that is in the books already."""
    return entry_by_hand(CASH, EQUITY)


@pytest.mark.parametrize(
    "lines",
    [
        [CASH, ("3000", "credit", 499)],
        [CASH, ("3000", "debit", 500)],
        [CASH],
        [],
    ],
    ids=["unequal", "one-sided", "one line", "no line"],
)
def test_an_entry_that_does_not_balance_is_refused(cast: Cast, lines: list[tuple[str, str, int]]) -> None:
    with refused_by("journal_entry_balanced"):
        entry_by_hand(*lines)


def test_amounts_of_two_currencies_do_not_balance_each_other(cast: Cast) -> None:
    with refused_by("journal_entry_balanced"):
        entry_id = new_entry()
        add_line(entry_id, 1, *CASH, currency="EUR")
        add_line(entry_id, 2, *EQUITY, currency="USD")


def test_an_entry_may_balance_in_two_currencies_at_once(cast: Cast) -> None:
    with transaction():
        entry_id = new_entry(line_count=4)
        for position, currency in ((1, "EUR"), (3, "USD")):
            add_line(entry_id, position, *CASH, currency=currency)
            add_line(entry_id, position + 1, *EQUITY, currency=currency)
    assert db.one("SELECT count(*) FROM journal_line") == (4,)


def test_a_line_cannot_join_an_entry_later(entry) -> None:
    with refused_by("journal_line_kept"):
        add_line(entry, 3, *CASH)


def test_not_even_two_lines_that_balance_can_join_an_entry_later(entry) -> None:
    with refused_by("journal_line_kept"):
        db.execute_sql(
            """INSERT INTO journal_line (entry_id, position, booked_on, account_code, side, amount, currency)
            SELECT id, n, booked_on, '1000', side, 1, 'EUR'
            FROM journal_entry, (VALUES (3, 'debit'), (4, 'credit')) AS line (n, side)"""
        )


@pytest.mark.parametrize("value", [{"txid": 10**9}, {"created_at": "2099-01-01T00:00:00Z"}])
def test_an_entry_cannot_be_left_open_for_a_later_transaction(cast: Cast, value: dict[str, Any]) -> None:
    with refused_by("journal_entry_kept"):
        entry_by_hand(CASH, EQUITY, **value)


@pytest.mark.parametrize("position", [0, 1, 3, -1])
def test_no_line_follows_once_the_balance_was_checked(cast: Cast, position: int) -> None:
    with refused_by("journal_line_pkey" if position == 1 else "journal_line_kept"):
        entry_id = new_entry()
        add_line(entry_id, 1, *CASH)
        add_line(entry_id, 2, *EQUITY)
        db.execute_sql("SET CONSTRAINTS ALL IMMEDIATE")
        db.execute_sql("SET CONSTRAINTS ALL DEFERRED")
        add_line(entry_id, position, *CASH)


@pytest.mark.parametrize("line_count", [1, 0, 1001])
def test_an_entry_announces_two_lines_or_more(cast: Cast, line_count: int) -> None:
    with refused_by("journal_entry_line_count"):
        new_entry(line_count=line_count)


def test_an_entry_has_as_many_lines_as_it_announced(cast: Cast) -> None:
    with refused_by("journal_entry_balanced"):
        entry_by_hand(CASH, EQUITY, line_count=4)


@pytest.mark.parametrize(
    ("sql", "constraint"),
    [
        ("UPDATE journal_entry SET memo = 'Nicer'", "journal_entry_kept"),
        ("UPDATE journal_entry SET booked_on = booked_on - 1", "journal_entry_kept"),
        ("DELETE FROM journal_entry", "journal_entry_kept"),
        ("UPDATE journal_line SET amount = 1", "journal_line_kept"),
        ("UPDATE journal_line SET account_code = '1010' WHERE side = 'debit'", "journal_line_kept"),
        ("DELETE FROM journal_line", "journal_line_kept"),
        ("TRUNCATE journal_line", "journal_line_kept"),
        ("TRUNCATE journal_entry, journal_line", "journal_entry_kept"),
        ("TRUNCATE journal_entry CASCADE", "journal_entry_kept"),
        ("DELETE FROM ledger_account WHERE code = '5950'", "ledger_account_kept"),
    ],
)
def test_what_is_in_the_books_stays_as_it_is(entry, sql: str, constraint: str) -> None:
    with refused_by(constraint):
        db.execute_sql(sql)


def test_nothing_is_booked_in_a_closed_period(cast: Cast) -> None:
    close_fiscal_year(2025)
    with refused_by("journal_entry_period_open"):
        entry_by_hand(CASH, EQUITY, booked_on="2025-12-31")
    entry_by_hand(CASH, EQUITY, booked_on="2026-01-01")


def test_nothing_is_booked_on_a_day_of_no_period(cast: Cast) -> None:
    with refused_by("journal_entry_period_open"):
        entry_by_hand(CASH, EQUITY, booked_on="1999-12-31")


def test_no_day_belongs_to_two_periods(cast: Cast) -> None:
    with refused_by("fiscal_period_no_overlap"):
        db.execute_sql("INSERT INTO fiscal_period (span) VALUES ('[2026-12-31,2027-01-01)')")


@pytest.mark.parametrize("span", ["empty", "[2070-01-01,)", "(,2000-01-01)"])
def test_a_period_has_a_beginning_and_an_end(cast: Cast, span: str) -> None:
    with refused_by("fiscal_period_bounded"):
        db.execute_sql("INSERT INTO fiscal_period (span) VALUES (%s)", (span,))


def test_nothing_is_booked_on_an_account_that_is_not_active(cast: Cast) -> None:
    db.execute_sql("UPDATE ledger_account SET active = false WHERE code = '1000'")
    with refused_by("journal_line_account_active"):
        entry_by_hand(CASH, EQUITY)


def test_nothing_is_booked_on_an_account_that_is_not_there(cast: Cast) -> None:
    with refused_by("journal_line_account_code_fkey"):
        entry_by_hand(("9999", "debit", 500), EQUITY)


def test_a_fact_has_one_entry(cast: Cast) -> None:
    fact: dict[str, Any] = {"source_type": "invoice", "source_id": cast.corolla, "event": "issued"}
    entry_by_hand(CASH, EQUITY, **fact)
    with refused_by("journal_entry_source_key"):
        entry_by_hand(CASH, EQUITY, **fact)


def test_an_entry_is_taken_back_once(entry) -> None:
    entry_by_hand(("1000", "credit", 500), ("3000", "debit", 500), reverses_id=entry)
    with refused_by("journal_entry_reversed_once"):
        entry_by_hand(("1000", "credit", 500), ("3000", "debit", 500), reverses_id=entry)


def test_only_what_is_in_the_books_is_taken_back(cast: Cast) -> None:
    with refused_by("journal_entry_reverses_id_fkey"):
        entry_by_hand(CASH, EQUITY, reverses_id=cast.corolla)


@pytest.mark.parametrize("amount", [0, -500, 10**12 + 1])
def test_an_amount_is_positive_and_bounded(cast: Cast, amount: int) -> None:
    with refused_by("journal_line_amount"):
        entry_by_hand(("1000", "debit", amount), ("3000", "credit", amount))


def test_a_line_has_a_side_and_a_currency(cast: Cast) -> None:
    with refused_by("journal_line_side"):
        entry_by_hand(("1000", "left", 500), EQUITY)
    with refused_by("journal_line_currency"):
        entry_by_hand(CASH, EQUITY, currency="eur")


def test_a_line_bears_the_day_of_its_entry(cast: Cast) -> None:
    with refused_by("journal_line_kept"):
        entry_id = new_entry()
        db.execute_sql(
            """INSERT INTO journal_line (entry_id, position, booked_on, account_code, side, amount, currency)
            VALUES (%s, 1, '2020-01-01', '1000', 'debit', 1, 'EUR')""",
            (entry_id,),
        )


def test_one_bad_entry_among_many_in_a_statement_is_found(cast: Cast) -> None:
    with refused_by("journal_entry_period_open"):
        db.execute_sql(
            """INSERT INTO journal_entry (id, booked_on, memo, source_type, source_id, event, line_count)
            SELECT gen_random_uuid(), day, 'x', 'manual', gen_random_uuid(), 'posted', 2
            FROM (VALUES (date '2026-01-01'), ('2026-02-01'), ('1999-01-01'), ('2027-01-01')) AS days (day)"""
        )


@pytest.mark.parametrize(("side", "contra"), [("credit", False), ("debit", True)])
def test_only_a_contra_account_stands_on_the_other_side_than_its_kind(cast: Cast, side: str, contra: bool) -> None:
    sql = "INSERT INTO ledger_account (code, name, kind, normal_side, contra) VALUES ('1999', 'x', 'asset', %s, %s)"
    with refused_by("ledger_account_contra"):
        db.execute_sql(sql, (side, contra))


def test_nothing_of_a_refused_entry_remains(cast: Cast) -> None:
    with pytest.raises(peewee.IntegrityError):
        entry_by_hand(CASH, ("3000", "credit", 1))
    assert db.one("SELECT count(*) FROM journal_entry") == (0,)
    assert db.one("SELECT count(*) FROM journal_line") == (0,)


def new_entry(line_count: int = 2):
    entry_id = clock.new_id()
    return insert(
        "journal_entry",
        id=entry_id,
        booked_on=clock.now().date(),
        memo="By hand",
        source_type="manual",
        source_id=entry_id,
        event="posted",
        line_count=line_count,
    )
