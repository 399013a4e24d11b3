"""docs/money.md is held to the code: its tables are computed again."""

from datetime import datetime, timedelta

import pytest

from fleet.rules import postings, pricing
from fleet.rules.money import MAX_AMOUNT, round_half_up
from fleet.rules.periods import Period, billable_days
from fleet.rules.postings import ACCOUNT_BY_TYPE, CHART, OUTPUT_TAX, invoice_issued
from fleet.rules.pricing import TAXED_TYPES, ExtraCharge, Line, Return, TaxedLine, Terms
from tests.rules.pages import rows, section

PAGE = "money.md"


def example_terms() -> Terms:
    stored = {term: int(value) if value.isdigit() else value for term, value in rows(PAGE, "Example: terms")}
    return Terms.from_json(stored)


def charge(fact: str, value: str) -> ExtraCharge:
    type_, description = fact.split(": ")
    return ExtraCharge(type_, description, int(value))


def example_lines() -> list[TaxedLine]:
    """The rental of the worked example, settled and taxed from the facts that the page tells."""
    facts = dict(rows(PAGE, "Example: facts"))
    terms = example_terms()
    booked = Period(datetime.fromisoformat(facts.pop("booked from")), datetime.fromisoformat(facts.pop("booked to")))
    at = datetime.fromisoformat(facts.pop("returned at"))
    before, after = (int(facts.pop(f"fuel at the {when}, percent")) for when in ("handover", "return"))
    found = tuple(charge(fact, value) for fact, value in facts.items())
    returned = Return(at, 12_000, after, found)
    lines = pricing.settle(terms, booked, actual_start=booked.start, start_fuel_percent=before, returned=returned)
    return [pricing.taxed(line, terms.tax_code, terms.tax_bps) for line in lines]


@pytest.mark.parametrize("row", rows(PAGE, "Days by example"), ids=" ".join)
def test_the_days_of_an_example_are_the_days_that_are_billed(row: list[str]) -> None:
    zone, start, end, hours, days = row
    period = Period(datetime.fromisoformat(start), datetime.fromisoformat(end))
    assert billable_days(period, zone, 59) == int(days)
    assert period.length / timedelta(hours=1) == pytest.approx(float(hours), abs=0.01)


def test_the_invoice_of_the_worked_example_is_what_the_rules_make_of_its_facts() -> None:
    computed = [
        [
            taxed.line.description,
            taxed.line.rule,
            *map(str, (taxed.line.quantity, taxed.line.unit_amount, taxed.line.net_amount)),
            *map(str, (taxed.tax_amount, taxed.gross_amount)),
        ]
        for taxed in example_lines()
    ]
    assert rows(PAGE, "Example: invoice") == computed


def test_the_entry_of_the_worked_example_is_what_its_invoice_posts() -> None:
    computed = [
        [line.account, str(line.amount), ""] if line.side == "debit" else [line.account, "", str(line.amount)]
        for line in invoice_issued(example_lines())
    ]
    assert rows(PAGE, "Example: entry") == computed


def test_the_page_names_each_rule_that_makes_a_line() -> None:
    terms = Terms(5000, "EUR", "Europe/Berlin", 59, 1, 1, cancellation_fee=1, no_show_fee=1)
    by_days = Terms(5000, "EUR", "Europe/Berlin", 59)
    start = datetime.fromisoformat("2026-06-01T10:00+02:00")
    booked = Period(start, start + timedelta(days=1))
    returned = Return(start + timedelta(days=9), 12_000, 0, (ExtraCharge("toll", "Bridge", 1),))
    made: list[Line | None] = [pricing.cancellation(terms, booked, at=returned.at), pricing.no_show(terms)]
    for rates in (terms, by_days):
        made += pricing.settle(rates, booked, actual_start=start, start_fuel_percent=100, returned=returned)
    assert {row[0].strip("`") for row in rows(PAGE, "What a return adds")} == {line.rule for line in made if line}


def test_the_posting_table_is_the_account_and_the_tax_of_each_type() -> None:
    table = {(type_, account, tax) for type_, account, tax in rows(PAGE, "From invoice to ledger")}
    assert table == {
        (type_, account, OUTPUT_TAX if type_ in TAXED_TYPES else "none") for type_, account in ACCOUNT_BY_TYPE.items()
    }


def test_the_chart_of_accounts_on_the_page_is_the_chart_in_the_code() -> None:
    chart = [[a.code, a.name, a.kind, a.normal_side, "yes" if a.contra else "no"] for a in CHART]
    assert rows(PAGE, "Chart of accounts") == chart


def test_the_page_states_the_bound_the_taxed_types_and_the_rounding() -> None:
    assert str(MAX_AMOUNT) in section(PAGE, "Units and rounding")
    assert (round_half_up(2945, 10), round_half_up(-2945, 10)) == (295, -295)
    named = section(PAGE, "Tax").partition("bear tax: ")[2].partition(". Damage")[0]
    assert {type_.strip() for type_ in named.split(",")} == TAXED_TYPES


def test_the_table_of_moving_money_is_what_the_rules_post() -> None:
    methods = list(postings.ACCOUNT_BY_METHOD)
    made = {
        "payment captured": [postings.payment_captured(method, 5) for method in methods],
        "refund requested": [postings.refund_requested(5)],
        "refund settled": [postings.refund_settled(method, 5) for method in methods],
        "refund failed": [postings.refund_failed(5)],
        "refund rejected": [postings.refund_rejected(5)],
        "dispute opened": [postings.dispute_opened(5, 1)],
        "dispute won": [postings.dispute_won(5)],
        "dispute lost": [postings.dispute_lost(5)],
    }

    def accounts(entries: list[list[postings.PostingLine]], side: str) -> str:
        return ", ".join(sorted({line.account for entry in entries for line in entry if line.side == side}))

    computed = [[event, accounts(entries, "debit"), accounts(entries, "credit")] for event, entries in made.items()]
    assert rows(PAGE, "Money that moves") == computed
