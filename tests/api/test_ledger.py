from typing import Any
from uuid import uuid4

import pytest

from fleet.db import db
from tests.books import DAYS, SCRATCH, close_fiscal_year, entry_by_hand, issued, posted
from tests.cast import Answer, Cast, Person

ENTRIES = "/v1/ledger/entries"
ARABIC_1000 = "\N{ARABIC-INDIC DIGIT ONE}" + "\N{ARABIC-INDIC DIGIT ZERO}" * 3


def line(account: str, side: str, amount: Any, currency: str = "EUR") -> dict[str, Any]:
    return {"account": account, "side": side, "amount": amount, "currency": currency}


CAPITAL = [line("1010", "debit", 50_000), line("3000", "credit", 50_000)]


def book(person: Person, lines: list[dict[str, Any]], **body: Any) -> Answer:
    entry = {"booked_on": "2026-03-15", "memo": "Capital paid in", "lines": lines, **body}
    return person.post(ENTRIES, entry, key=str(uuid4()))


class TestChart:
    def test_the_chart_is_listed_by_code_a_page_at_a_time(self, cast: Cast) -> None:
        first = cast.accountant.get("/v1/ledger/accounts?limit=5").json
        assert [account["code"] for account in first["data"]] == ["1000", "1010", "1020", "1040", "1050"]
        second = cast.accountant.get(f"/v1/ledger/accounts?limit=200&cursor={first['next_cursor']}").json
        codes = [account["code"] for account in second["data"]]
        assert (codes[0], codes[-1], second["next_cursor"]) == ("1100", "5950", None)
        assert codes == sorted(codes)

    def test_an_account_shows_its_kind_and_the_side_that_it_stands_on(self, cast: Cast) -> None:
        accounts = {item["code"]: item for item in cast.accountant.get("/v1/ledger/accounts?limit=200").json["data"]}
        allowance = accounts["1190"]
        assert (allowance["kind"], allowance["normal_side"], allowance["contra"]) == ("asset", "credit", True)
        assert (accounts["4000"]["normal_side"], accounts["4000"]["active"]) == ("credit", True)

    @pytest.mark.parametrize(
        ("kind", "contra", "side"), [("expense", False, "debit"), ("revenue", False, "credit"), ("asset", True, "credit")]
    )
    def test_an_account_can_be_added(self, cast: Cast, kind: str, contra: bool, side: str) -> None:
        account = {"code": "5955", "name": "Stationery", "kind": kind, "contra": contra}
        created = cast.accountant.post("/v1/ledger/accounts", account)
        assert created.status_code == 201
        assert created.json == {**account, "normal_side": side, "active": True, "created_at": created.json["created_at"]}
        assert cast.accountant.get(created.headers["Location"]).json["balances"] == []

    def test_a_code_stands_for_one_account(self, cast: Cast) -> None:
        refused = cast.accountant.post("/v1/ledger/accounts", {"code": "1000", "name": "Till", "kind": "asset"})
        assert (refused.status_code, refused.json["code"]) == (409, "duplicate")

    @pytest.mark.parametrize("code", ["10", "10000", "1O00", ARABIC_1000, ""])
    def test_a_code_is_four_digits(self, cast: Cast, code: str) -> None:
        refused = cast.accountant.post("/v1/ledger/accounts", {"code": code, "name": "x", "kind": "asset"})
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "code")


class TestBalance:
    def test_a_balance_counts_on_the_accounts_own_side_and_by_currency(self, cast: Cast) -> None:
        posted(cast, DAYS, SCRATCH)
        posted(cast, DAYS, currency="USD")
        receivable = cast.accountant.get("/v1/ledger/accounts/1100/balance").json
        assert receivable == {
            "account": "1100",
            "normal_side": "debit",
            "as_of": None,
            "balances": [
                {"currency": "EUR", "debit": 21_070, "credit": 0, "balance": 21_070},
                {"currency": "USD", "debit": 11_070, "credit": 0, "balance": 11_070},
            ],
        }
        revenue = cast.accountant.get("/v1/ledger/accounts/4000/balance").json
        assert revenue["balances"][0] == {"currency": "EUR", "debit": 0, "credit": 9000, "balance": 9000}

    def test_what_stands_on_the_other_side_makes_a_balance_negative(self, cast: Cast) -> None:
        book(cast.accountant, [line("3000", "debit", 300), line("1000", "credit", 300)])
        for account in ("1000", "3000"):
            assert cast.accountant.get(f"/v1/ledger/accounts/{account}/balance").json["balances"][0]["balance"] == -300

    def test_a_balance_can_be_asked_of_a_past_day(self, cast: Cast) -> None:
        book(cast.accountant, CAPITAL)
        path = "/v1/ledger/accounts/1010/balance?as_of="
        assert cast.accountant.get(path + "2026-03-14").json["balances"] == []
        asked = cast.accountant.get(path + "2026-03-15").json
        assert (asked["as_of"], asked["balances"][0]["balance"]) == ("2026-03-15", 50_000)

    @pytest.mark.parametrize("day", ["yesterday", "2026-02-30", "2026-3-15", "2026-03-15T00:00:00Z"])
    def test_a_day_that_is_none_is_refused(self, cast: Cast, day: str) -> None:
        assert cast.accountant.get(f"/v1/ledger/accounts/1010/balance?as_of={day}").status_code == 422

    @pytest.mark.parametrize("code", ["1999", "x", "10000", "%00%00%00%00", ARABIC_1000])
    def test_an_account_that_is_not_there_is_not_found(self, cast: Cast, code: str) -> None:
        assert cast.accountant.get(f"/v1/ledger/accounts/{code}/balance").status_code == 404


class TestManualEntries:
    def test_an_entry_that_balances_is_booked_and_shown_as_it_was_answered(self, cast: Cast) -> None:
        created = book(cast.accountant, CAPITAL)
        assert created.status_code == 201, created.json
        entry = created.json
        assert (entry["booked_on"], entry["memo"], entry["lines"]) == ("2026-03-15", "Capital paid in", CAPITAL)
        assert (entry["source_type"], entry["source_id"], entry["event"]) == ("manual", entry["id"], "posted")
        assert (entry["recorded_by"], entry["reversed_by_id"]) == (str(cast.accountant.user_id), None)
        shown = cast.accountant.get(created.headers["Location"])
        assert (shown.json, shown.headers["ETag"]) == (entry, '"1"')

    @pytest.mark.parametrize(
        "lines",
        [
            [line("1010", "debit", 100), line("3000", "credit", 99)],
            [line("1010", "debit", 100), line("3000", "credit", 100, "USD")],
            [line("1010", "debit", 100)],
        ],
        ids=["unequal", "two currencies", "one line"],
    )
    def test_an_unbalanced_entry_is_refused_by_name(self, cast: Cast, lines: list[dict[str, Any]]) -> None:
        refused = book(cast.accountant, lines)
        assert (refused.status_code, refused.json["code"]) == (422, "entry_unbalanced")
        assert db.one("SELECT count(*) FROM journal_entry") == (0,)

    def test_an_entry_may_hold_two_currencies_that_each_balance(self, cast: Cast) -> None:
        dollars = [{**item, "currency": "USD", "amount": 7} for item in CAPITAL]
        assert book(cast.accountant, CAPITAL + dollars).status_code == 201

    @pytest.mark.parametrize("amount", [0, -1, 1.5, "100", True, 10**12 + 1, None])
    def test_an_amount_is_a_positive_whole_number(self, cast: Cast, amount: Any) -> None:
        refused = book(cast.accountant, [line("1010", "debit", amount), line("3000", "credit", amount)])
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "lines.0.amount")

    @pytest.mark.parametrize("field", ["id", "source_type", "source_id", "recorded_by", "reverses_id"])
    def test_what_the_service_says_of_an_entry_cannot_be_said_for_it(self, cast: Cast, field: str) -> None:
        refused = book(cast.accountant, CAPITAL, **{field: str(uuid4())})
        assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")

    def test_an_account_that_is_unknown_or_inactive_is_named_by_its_line(self, cast: Cast) -> None:
        db.execute_sql("UPDATE ledger_account SET active = false WHERE code = '1020'")
        lines = [line("1020", "debit", 5), line("1010", "credit", 3), line("9999", "credit", 2)]
        refused = book(cast.accountant, lines)
        assert refused.status_code == 422
        assert [(item["field"], item["code"]) for item in refused.json["errors"]] == [
            ("lines.0.account", "inactive"),
            ("lines.2.account", "not_found"),
        ]

    def test_a_closed_year_takes_no_entry(self, cast: Cast) -> None:
        close_fiscal_year(2026)
        refused = book(cast.accountant, CAPITAL)
        assert (refused.status_code, refused.json["code"]) == (409, "journal_period_closed")

    def test_an_entry_needs_a_key_and_is_booked_once_for_it(self, cast: Cast) -> None:
        body = {"booked_on": "2026-03-15", "memo": "x", "lines": CAPITAL}
        refused = cast.accountant.post(ENTRIES, body)
        assert (refused.status_code, refused.json["code"]) == (400, "idempotency_key_required")
        first, second = (cast.accountant.post(ENTRIES, body, key="k") for _ in range(2))
        assert (first.status_code, second.status_code, second.data) == (201, 201, first.data)
        assert second.headers["Idempotency-Replayed"] == "true"
        assert db.one("SELECT count(*) FROM journal_entry") == (1,)


class TestJournal:
    def test_entries_are_listed_newest_first_with_their_lines(self, cast: Cast) -> None:
        paths = [book(cast.accountant, CAPITAL, memo=f"Entry {number}").json["id"] for number in range(3)]
        listed = cast.accountant.get(f"{ENTRIES}?limit=2").json
        assert [entry["id"] for entry in listed["data"]] == [paths[2], paths[1]]
        assert listed["data"][0]["lines"] == CAPITAL
        rest = cast.accountant.get(f"{ENTRIES}?limit=2&cursor={listed['next_cursor']}").json
        assert ([entry["id"] for entry in rest["data"]], rest["next_cursor"]) == ([paths[0]], None)

    def test_a_list_takes_as_many_statements_for_many_entries_as_for_one(
        self, cast: Cast, statements: list[str]
    ) -> None:
        counted: list[int] = []
        cast.accountant.known()
        for _ in range(2):
            for _ in range(1 + 10 * len(counted)):
                entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5))
            statements.clear()
            cast.accountant.get(ENTRIES)
            counted.append(len(statements))
        assert counted == [1, 1]

    def test_the_journal_can_be_narrowed_down(self, cast: Cast) -> None:
        invoice = posted(cast, DAYS)
        capital = book(cast.accountant, CAPITAL).json["id"]
        wages = book(
            cast.accountant, [line("5400", "debit", 9), line("1010", "credit", 9)], booked_on="2026-03-31"
        ).json["id"]

        def found(query: str) -> list[str]:
            return [entry["id"] for entry in cast.accountant.get(f"{ENTRIES}?{query}").json["data"]]

        assert found("account=1010") == [wages, capital]
        assert found("account=5400") == [wages]
        assert found("from=2026-03-15&to=2026-03-15") == [capital]
        assert found("from=2026-03-16&to=2026-03-31") == [wages]
        [entry] = found(f"source_type=invoice&source_id={invoice.id}")
        assert found("source_type=manual") == [wages, capital]
        assert found("account=4000") == [entry]
        assert found("account=4000&to=2020-01-01") == []

    @pytest.mark.parametrize("query", ["account=x", "from=1", "source_id=1", "limit=0", "since=2026-01-01"])
    def test_a_filter_that_makes_no_sense_is_refused(self, cast: Cast, query: str) -> None:
        assert cast.accountant.get(f"{ENTRIES}?{query}").status_code == 422

    def test_an_unknown_entry_is_not_found(self, cast: Cast) -> None:
        assert cast.accountant.get(f"{ENTRIES}/{uuid4()}").status_code == 404


class TestReversal:
    def test_an_entry_is_taken_back_by_one_with_the_sides_swapped(self, cast: Cast) -> None:
        path = book(cast.accountant, CAPITAL).headers["Location"]
        taken_back = cast.accountant.post(f"{path}/reverse", {"memo": "Paid by mistake", "booked_on": "2026-04-01"})
        assert taken_back.status_code == 201
        reversal = taken_back.json
        assert reversal["lines"] == [line("1010", "credit", 50_000), line("3000", "debit", 50_000)]
        assert (reversal["memo"], reversal["booked_on"]) == ("Paid by mistake", "2026-04-01")
        original = cast.accountant.get(path)
        assert reversal["reverses_id"] == original.json["id"]
        assert (original.json["reversed_by_id"], original.headers["ETag"]) == (reversal["id"], '"2"')
        assert cast.accountant.get("/v1/ledger/accounts/1010/balance").json["balances"][0]["balance"] == 0

    @pytest.mark.parametrize("body", [None, {}])
    def test_a_reversal_needs_no_words(self, cast: Cast, body: Any) -> None:
        path = book(cast.accountant, CAPITAL).headers["Location"]
        taken_back = cast.accountant.post(f"{path}/reverse", body)
        assert (taken_back.status_code, taken_back.json["memo"]) == (201, "Reversal: Capital paid in")

    def test_an_entry_is_taken_back_once(self, cast: Cast) -> None:
        path = book(cast.accountant, CAPITAL).headers["Location"]
        assert cast.accountant.post(f"{path}/reverse").status_code == 201
        refused = cast.accountant.post(f"{path}/reverse")
        assert (refused.status_code, refused.json["code"]) == (409, "duplicate")

    def test_a_reversal_that_is_sent_again_answers_as_the_first_time(self, cast: Cast) -> None:
        path = book(cast.accountant, CAPITAL).headers["Location"]
        first, second = (cast.accountant.post(f"{path}/reverse", key="k") for _ in range(2))
        assert (first.status_code, second.status_code, second.json) == (201, 201, first.json)

    def test_an_unknown_entry_cannot_be_taken_back(self, cast: Cast) -> None:
        assert cast.accountant.post(f"{ENTRIES}/{uuid4()}/reverse").status_code == 404


class TestReconciliation:
    def test_it_tells_what_is_missing_until_it_is_posted(self, cast: Cast) -> None:
        assert cast.accountant.get("/v1/reconciliation").json["balanced"] is True
        invoice = issued(cast)
        found = cast.accountant.get("/v1/reconciliation").json
        assert (found["balanced"], [item["number"] for item in found["missing"]]) == (False, [invoice.number])
        assert found["unexpected"] == []


class TestWhoMay:
    @pytest.mark.parametrize(
        ("role", "may"),
        [
            ("admin", {"read", "post", "accounts", "reconcile"}),
            ("accountant", {"read", "post", "accounts", "reconcile"}),
            ("fleet_manager", {"read"}),
            ("rental_agent", set()),
            ("maintenance_staff", set()),
            ("driver", set()),
            ("customer", set()),
        ],
    )
    def test_the_books_are_for_those_who_keep_them(self, cast: Cast, role: str, may: set[str]) -> None:
        person = cast.staff[role]
        entry = entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5))
        answers = {
            "read": person.get(f"{ENTRIES}/{entry}").status_code == 200,
            "post": person.post(f"{ENTRIES}/{entry}/reverse").status_code == 201,
            "accounts": person.post("/v1/ledger/accounts", {"code": "9000", "name": "x", "kind": "asset"}).status_code
            == 201,
            "reconcile": person.get("/v1/reconciliation").status_code == 200,
        }
        assert {name for name, allowed in answers.items() if allowed} == may
        assert (person.get(ENTRIES).status_code == 200) == ("read" in may)
