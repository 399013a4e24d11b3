from datetime import date, timedelta

import pytest
import time_machine
from flask import Flask

from fleet.db import db
from fleet.embedded import Databases
from fleet.errors import Conflict
from fleet.models.ledger import EntryLine
from fleet.services import ledger, reconciliation
from tests.books import (
    DAYS,
    LATE,
    SCRATCH,
    behind_the_guards,
    close_fiscal_year,
    draft,
    entry_by_hand,
    issued,
    posted,
)
from tests.cast import Cast


def entry_of(cast: Cast, invoice_id):
    found = ledger.entries_listed(
        cast.accountant.actor, after=None, limit=10, source_type="invoice", source_id=invoice_id
    )
    return found[0]


class TestPostingInvoices:
    def test_the_entry_of_an_invoice_says_what_its_lines_say(self, cast: Cast) -> None:
        invoice = posted(cast, DAYS, LATE, SCRATCH)
        entry = entry_of(cast, invoice.id)
        assert [(line["account"], line["side"], line["amount"]) for line in entry["lines"]] == [
            ("1100", "debit", 22_608),
            ("2200", "credit", 2358),
            ("4000", "credit", 9000),
            ("4100", "credit", 1250),
            ("4200", "credit", 10_000),
        ]
        assert {line["currency"] for line in entry["lines"]} == {"EUR"}
        assert (entry["memo"], entry["event"]) == (f"Invoice {invoice.number}", "issued")

    def test_an_invoice_that_is_posted_again_keeps_its_one_entry(self, cast: Cast) -> None:
        invoice = posted(cast)
        assert ledger.post_invoices([invoice.id]) == 0
        assert db.one("SELECT count(*) FROM journal_entry") == (1,)

    def test_an_invoice_that_stands_twice_in_a_batch_is_posted_once(self, cast: Cast) -> None:
        invoice = issued(cast)
        assert ledger.post_invoices([invoice.id, invoice.id]) == 1

    def test_a_batch_posts_what_is_new_in_it(self, cast: Cast) -> None:
        old, new = posted(cast), issued(cast)
        assert ledger.post_invoices([new.id, old.id]) == 1
        assert len(entry_of(cast, new.id)["lines"]) == 3

    def test_an_invoice_is_booked_on_the_day_of_its_issue_in_utc(self, cast: Cast) -> None:
        with time_machine.travel("2026-03-01T00:30:00+01:00"):
            invoice = posted(cast)
        entry = entry_of(cast, invoice.id)
        assert entry["booked_on"] == date(2026, 2, 28)
        assert db.rows("SELECT DISTINCT booked_on FROM journal_line") == [(date(2026, 2, 28),)]

    def test_drafts_and_unknown_invoices_are_not_posted(self, cast: Cast) -> None:
        assert ledger.post_invoices([draft(cast), cast.corolla]) == 0
        assert ledger.post_invoices([]) == 0

    def test_a_batch_of_any_size_takes_four_statements(self, cast: Cast, statements: list[str]) -> None:
        invoices = [issued(cast, DAYS, LATE).id for _ in range(50)]
        statements.clear()
        assert ledger.post_invoices(invoices) == 50
        assert len(statements) == 4, "two for the entries, two to tell of them"

    def test_invoices_of_a_closed_year_are_refused_whole(self, cast: Cast) -> None:
        with time_machine.travel("2025-12-31T12:00:00Z"):
            old = issued(cast)
        close_fiscal_year(2025)
        with pytest.raises(Exception, match="no open fiscal period"):
            ledger.post_invoices([old.id, issued(cast).id])
        assert db.one("SELECT count(*) FROM journal_entry") == (0,)


class TestReconciling:
    def test_books_that_tell_every_invoice_are_balanced(self, cast: Cast) -> None:
        posted(cast, DAYS, SCRATCH)
        posted(cast, currency="USD")
        entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5))
        assert reconciliation.reconcile(cast.accountant.actor) == {
            "balanced": True,
            "missing_count": 0,
            "unexpected_count": 0,
            "missing": [],
            "unexpected": [],
        }

    def test_an_invoice_without_an_entry_is_missing(self, cast: Cast) -> None:
        posted(cast)
        invoice = issued(cast)
        found = reconciliation.reconcile(cast.accountant.actor)
        assert not found["balanced"]
        assert found["missing"] == [
            {
                "fact": "invoice",
                "id": invoice.id,
                "event": "issued",
                "number": invoice.number,
                "currency": "EUR",
                "amount": invoice.total_amount,
                "entry_id": None,
                "problem": "not_posted",
            }
        ]

    @pytest.mark.parametrize(
        ("debit", "credits", "currency"),
        [
            (11_069, {"4000": 8999, "2200": 2070}, "EUR"),
            (11_070, {"4000": 11_070}, "EUR"),
            (11_070, {"4100": 9000, "2200": 2070}, "EUR"),
            (11_070, {"4000": 9000, "2200": 2070}, "USD"),
        ],
        ids=["another total", "tax as revenue", "another account", "another currency"],
    )
    def test_an_entry_with_other_amounts_does_not_tell_its_invoice(
        self, cast: Cast, debit: int, credits: dict[str, int], currency: str
    ) -> None:
        invoice = issued(cast)
        lines = [("1100", "debit", debit), *((account, "credit", amount) for account, amount in credits.items())]
        entry_by_hand(*lines, currency=currency, source_type="invoice", source_id=invoice.id, event="issued")
        found = reconciliation.reconcile(cast.accountant.actor)
        assert [(item["id"], item["problem"]) for item in found["missing"]] == [(invoice.id, "other_amounts")]

    def test_an_invoice_whose_entry_was_taken_back_is_missing_until_that_is_taken_back_too(self, cast: Cast) -> None:
        invoice = posted(cast)
        actor = cast.accountant.actor
        reversal = ledger.reverse(actor, entry_of(cast, invoice.id)["id"], booked_on=None, memo=None)
        found = reconciliation.reconcile(actor)
        assert [(item["id"], item["problem"]) for item in found["missing"]] == [(invoice.id, "reversed")]
        ledger.reverse(actor, reversal["id"], booked_on=None, memo=None)
        assert reconciliation.reconcile(actor)["balanced"]

    @pytest.mark.parametrize("source", ["invoice", "payment", "refund", "dispute", "manual", "entry"])
    def test_an_entry_whose_fact_does_not_exist_is_unexpected(self, cast: Cast, source: str) -> None:
        made_up = entry_by_hand(
            ("1100", "debit", 5), ("4000", "credit", 5), source_type=source, source_id=cast.corolla, event="issued"
        )
        found = reconciliation.reconcile(cast.accountant.actor)
        assert [(item["entry_id"], item["source_type"]) for item in found["unexpected"]] == [(made_up, source)]
        assert (found["balanced"], found["missing"]) == (False, [])

    def test_a_long_list_is_cut_and_counted_in_full(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reconciliation, "LISTED", 2)
        for _ in range(3):
            issued(cast)
        found = reconciliation.reconcile(cast.accountant.actor)
        assert (len(found["missing"]), found["missing_count"]) == (2, 3)


class TestProving:
    def test_a_proof_of_sound_books_prints_the_trial_balance_and_ends_well(self, app: Flask, cast: Cast) -> None:
        posted(cast, DAYS, LATE)
        result = app.test_cli_runner().invoke(args=["ledger", "prove"])
        assert result.exit_code == 0, result.output
        assert "trial balance EUR" in result.output
        assert "wrong" not in result.output

    @pytest.mark.parametrize(
        ("sql", "claim"),
        [
            ("UPDATE journal_line SET amount = amount + 1 WHERE side = 'debit'", "every entry balances"),
            ("UPDATE journal_line SET amount = amount + 1 WHERE side = 'debit'", "debits equal credits"),
            ("DELETE FROM journal_line", "every entry has two lines"),
            ("UPDATE journal_line SET booked_on = booked_on - 1", "every line bears the day"),
            ("UPDATE invoice_line SET tax_amount = tax_amount - 1", "every invoice is the sum of its lines"),
            ("DELETE FROM invoice_line WHERE type = 'late_fee'", "every invoice is the sum of its lines"),
            ("UPDATE document_counter SET last_number = 2", "no invoice number is missing"),
            ("DELETE FROM journal_line; DELETE FROM journal_entry", "every fact has its entry"),
            ("UPDATE journal_entry SET source_type = 'wish'", "every entry has its fact"),
        ],
    )
    def test_whatever_is_tampered_with_is_found(
        self, app: Flask, cast: Cast, databases: Databases, sql: str, claim: str
    ) -> None:
        posted(cast, DAYS, LATE)
        behind_the_guards(databases, sql)
        result = app.test_cli_runner().invoke(args=["ledger", "prove"])
        assert result.exit_code == 1, result.output
        assert _line(result.output, claim).endswith("wrong")

    def test_a_reversal_that_leaves_something_over_is_found(
        self, app: Flask, cast: Cast, databases: Databases
    ) -> None:
        entry = entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5))
        ledger.reverse(cast.accountant.actor, entry, booked_on=None, memo=None)
        assert reconciliation.prove().holds
        behind_the_guards(databases, "UPDATE journal_line SET amount = 4 WHERE entry_id <> %s", entry)
        wrong = [check.claim for check in reconciliation.prove().checks if check.wrong]
        assert wrong == ["every reversal leaves nothing over"]


class TestReversing:
    def test_a_reversal_is_booked_today_unless_told_otherwise(self, cast: Cast) -> None:
        entry = entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5), booked_on="2026-01-15", memo="Seed")
        with time_machine.travel("2026-05-01T12:00:00Z"):
            reversal = ledger.reverse(cast.accountant.actor, entry, booked_on=None, memo=None)
        assert (reversal["booked_on"], reversal["memo"]) == (date(2026, 5, 1), "Reversal: Seed")
        assert reversal["recorded_by"] == cast.accountant.user_id

    def test_two_who_reverse_an_entry_without_seeing_each_other_make_one_reversal(
        self, cast: Cast, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        entry_id = entry_by_hand(("1000", "debit", 5), ("3000", "credit", 5))
        actor = cast.accountant.actor
        seen_before = ledger.entry(actor, entry_id)
        ledger.reverse(actor, entry_id, booked_on=None, memo=None)
        monkeypatch.setattr(ledger, "entry", lambda actor, entry_id: seen_before)
        with pytest.raises(Conflict) as refusal:
            ledger.reverse(actor, entry_id, booked_on=None, memo=None)
        assert refusal.value.code == "duplicate"
        assert db.one("SELECT count(*) FROM journal_entry") == (2,)


def test_a_balance_counts_up_to_and_on_its_day(cast: Cast) -> None:
    today = date(2026, 6, 15)
    for day, amount in ((today - timedelta(days=1), 1), (today, 10), (today + timedelta(days=1), 100)):
        lines = [EntryLine("1000", "debit", amount, "EUR"), EntryLine("3000", "credit", amount, "EUR")]
        ledger.post(cast.accountant.actor, booked_on=day, memo="x", lines=lines)
    actor = cast.accountant.actor
    assert ledger.balance(actor, "1000", as_of=today)["balances"][0]["balance"] == 11
    assert ledger.balance(actor, "3000", as_of=None)["balances"][0]["balance"] == 111
    assert ledger.balance(actor, "1000", as_of=date(2020, 1, 1))["balances"] == []


def _line(output: str, claim: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(claim))
