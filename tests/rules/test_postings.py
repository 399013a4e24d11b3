"""The chart of accounts, and the entry that an issued invoice makes."""

from collections import Counter

import pytest
from hypothesis import given

from fleet.rules import postings, pricing
from fleet.rules.money import MAX_AMOUNT, AmountTooLarge
from fleet.rules.postings import (
    ACCOUNT_BY_TYPE,
    CHART,
    NORMAL_SIDE,
    PostingLine,
    Unbalanced,
    check_balanced,
    invoice_issued,
    reversed_lines,
)
from fleet.rules.pricing import LINE_TYPES, Line, TaxedLine, taxed
from tests.rules.strategies import calm, invoices

ACCOUNTS = {spec.code: spec for spec in CHART}


def line(type_: str, net: int, bps: int = 1200) -> TaxedLine:
    return taxed(Line(type_, "Drawn", "drawn", 1, net, net), "VAT", bps)


def test_no_account_is_in_the_chart_twice() -> None:
    assert len(ACCOUNTS) == len(CHART)
    assert len({spec.name for spec in CHART}) == len(CHART)


@pytest.mark.parametrize("spec", CHART, ids=lambda spec: spec.code)
def test_an_account_stands_on_the_side_of_its_kind_unless_it_is_contra(spec) -> None:
    assert (spec.normal_side == NORMAL_SIDE[spec.kind]) is not spec.contra
    first_digits = {"asset": "1", "liability": "2", "equity": "3", "revenue": "4", "expense": "5"}
    assert spec.code[0] == first_digits[spec.kind]


def test_the_contra_accounts_are_the_allowances_and_the_depreciation() -> None:
    assert {spec.code for spec in CHART if spec.contra} == {"1190", "1600", "4910"}


def test_every_type_of_line_has_a_revenue_account() -> None:
    assert set(ACCOUNT_BY_TYPE) == LINE_TYPES
    assert {ACCOUNTS[code].kind for code in ACCOUNT_BY_TYPE.values()} == {"revenue"}


def test_an_invoice_debits_its_gross_and_credits_revenue_by_account_and_tax() -> None:
    entry = invoice_issued([line("rental", 10_000), line("fuel", 300), line("cleaning", 700), line("damage", 5000)])
    assert entry == [
        PostingLine("1100", "debit", 17_320),
        PostingLine("2200", "credit", 1320),
        PostingLine("4000", "credit", 10_000),
        PostingLine("4200", "credit", 5000),
        PostingLine("4300", "credit", 1000),
    ]


def test_a_cancellation_fee_credits_its_own_account_and_tax() -> None:
    assert invoice_issued([line("cancellation", 100_000)]) == [
        PostingLine("1100", "debit", 112_000),
        PostingLine("2200", "credit", 12_000),
        PostingLine("4400", "credit", 100_000),
    ]


def test_an_account_without_an_amount_is_left_out() -> None:
    entry = invoice_issued([line("rental", 0), line("toll", 264)])
    assert entry == [PostingLine("1100", "debit", 264), PostingLine("4320", "credit", 264)]


@pytest.mark.parametrize("lines", [[], [line("rental", 0)]])
def test_an_invoice_over_nothing_posts_nothing(lines: list[TaxedLine]) -> None:
    assert invoice_issued(lines) == []


def test_an_invoice_beyond_the_bound_is_refused() -> None:
    with pytest.raises(AmountTooLarge):
        invoice_issued([line("damage", MAX_AMOUNT), line("toll", 1)])


def test_an_entry_whose_sides_differ_is_refused_with_both_sums() -> None:
    with pytest.raises(Unbalanced, match="debits are 100 and credits are 99") as refused:
        check_balanced([PostingLine("1000", "debit", 100), PostingLine("1100", "credit", 99)])
    assert (refused.value.debit, refused.value.credit) == (100, 99)


@pytest.mark.parametrize("amount", [0, -5])
def test_a_ledger_line_has_a_positive_amount(amount: int) -> None:
    with pytest.raises(ValueError, match="amount"):
        PostingLine("1000", "debit", amount)


@calm
@given(invoices)
def test_an_invoices_entry_always_balances_and_is_worth_the_invoice(lines: list[TaxedLine]) -> None:
    entry = invoice_issued(lines)
    check_balanced(entry)
    debits = [posting for posting in entry if posting.side == "debit"]
    assert sum(posting.amount for posting in debits) == sum(taxed_line.gross_amount for taxed_line in lines)
    assert {posting.account for posting in debits} <= {"1100"}
    assert len({posting.account for posting in entry}) == len(entry)


@calm
@given(invoices)
def test_tax_is_never_credited_to_revenue(lines: list[TaxedLine]) -> None:
    credits = Counter({posting.account: posting.amount for posting in invoice_issued(lines)[1:]})
    assert credits["2200"] == sum(taxed_line.tax_amount for taxed_line in lines)
    assert credits.total() - credits["2200"] == sum(taxed_line.line.net_amount for taxed_line in lines)


@calm
@given(invoices)
def test_a_reversal_takes_an_entry_back_to_nothing(lines: list[TaxedLine]) -> None:
    entry = invoice_issued(lines)
    back = reversed_lines(entry)
    check_balanced(back)
    balances: Counter[str] = Counter()
    for posting in entry + back:
        balances[posting.account] += posting.amount if posting.side == "debit" else -posting.amount
    assert not any(balances.values())
    assert reversed_lines(back) == entry


def test_every_type_that_is_taxed_is_a_type_of_line() -> None:
    assert pricing.TAXED_TYPES < LINE_TYPES


@pytest.mark.parametrize(
    "entry",
    [
        *(postings.payment_captured(method, 70) for method in postings.ACCOUNT_BY_METHOD),
        *(postings.refund_settled(method, 70) for method in postings.ACCOUNT_BY_METHOD),
        postings.refund_requested(70),
        postings.refund_failed(70),
        postings.refund_rejected(70),
        postings.dispute_opened(70, 15),
        postings.dispute_opened(70, 0),
        postings.dispute_won(70),
        postings.dispute_lost(70),
    ],
)
def test_money_that_moves_balances_and_earns_nothing(entry: list[PostingLine]) -> None:
    check_balanced(entry)
    assert {ACCOUNTS[posting.account].kind for posting in entry} <= {"asset", "liability", "expense"}


def test_what_came_and_went_again_leaves_the_customers_credit_used() -> None:
    gone = postings.payment_captured("card", 70) + postings.refund_requested(70) + postings.refund_settled("card", 70)
    balances: Counter[str] = Counter()
    for posting in gone:
        balances[posting.account] += posting.amount if posting.side == "debit" else -posting.amount
    assert {account: left for account, left in balances.items() if left} == {"1100": -70, "2120": 70}
