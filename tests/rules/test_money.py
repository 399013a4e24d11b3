"""Amounts and rounding."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rules import money
from tests.rules.strategies import calm

WHOLE = st.integers(-(10**15), 10**15)
NET = st.integers(0, money.MAX_AMOUNT)
RATE = st.integers(0, money.FULL_RATE_BPS)


@pytest.mark.parametrize(
    ("numerator", "denominator", "rounded"),
    [(5, 2, 3), (-5, 2, -3), (7, 3, 2), (8, 3, 3), (1, 2, 1), (-1, 2, -1), (49, 100, 0), (-49, 100, 0), (6, 2, 3)],
)
def test_an_exact_half_is_rounded_away_from_zero(numerator: int, denominator: int, rounded: int) -> None:
    assert money.round_half_up(numerator, denominator) == rounded


@calm
@given(WHOLE, st.integers(1, 10**6))
def test_rounding_goes_to_a_nearest_whole_number_and_never_to_a_farther_one(numerator: int, denominator: int) -> None:
    exact = Fraction(numerator, denominator)
    off = money.round_half_up(numerator, denominator) - exact
    assert abs(off) < Fraction(1, 2) or (abs(off) == Fraction(1, 2) and (off > 0) == (exact > 0))


@calm
@given(WHOLE, st.integers(1, 10**6))
def test_rounding_a_credit_mirrors_rounding_the_charge(numerator: int, denominator: int) -> None:
    assert money.round_half_up(-numerator, denominator) == -money.round_half_up(numerator, denominator)


@pytest.mark.parametrize("denominator", [0, -2])
def test_rounding_refuses_a_denominator_that_is_not_positive(denominator: int) -> None:
    with pytest.raises(ValueError, match="denominator"):
        money.round_half_up(1, denominator)


@pytest.mark.parametrize(("net", "bps", "tax"), [(1550, 1900, 295), (1549, 1900, 294), (100, 0, 0), (99, 10_000, 99)])
def test_tax_is_rounded_half_up_to_the_minor_unit(net: int, bps: int, tax: int) -> None:
    assert money.tax_on(net, bps) == tax


@calm
@given(NET, RATE)
def test_tax_is_within_half_a_unit_of_the_exact_tax_and_never_more_than_the_net(net: int, bps: int) -> None:
    tax = money.tax_on(net, bps)
    assert abs(tax - Fraction(net * bps, 10_000)) <= Fraction(1, 2)
    assert 0 <= tax <= net


@calm
@given(NET, NET, RATE)
def test_a_higher_net_never_bears_less_tax(one: int, other: int, bps: int) -> None:
    low, high = sorted((one, other))
    assert money.tax_on(low, bps) <= money.tax_on(high, bps)


@pytest.mark.parametrize("bps", [-1, 10_001])
def test_a_tax_rate_outside_0_to_100_percent_is_refused(bps: int) -> None:
    with pytest.raises(ValueError, match="basis points"):
        money.tax_on(100, bps)


def test_an_amount_reaches_up_to_the_bound_and_no_further() -> None:
    assert money.amount(0) == 0
    assert money.amount(money.MAX_AMOUNT) == money.MAX_AMOUNT
    with pytest.raises(money.AmountTooLarge):
        money.amount(money.MAX_AMOUNT + 1)


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None])
def test_what_is_no_whole_number_from_0_up_is_no_amount(value: Any) -> None:
    with pytest.raises(ValueError, match="an amount is") as refused:
        money.amount(value)
    assert not isinstance(refused.value, money.AmountTooLarge)


@pytest.mark.parametrize("code", ["EUR", "PHP", "JPY", "KWD", "XOF", "XCG", "ZWG", "SLE"])
def test_a_currency_in_use_is_known(code: str) -> None:
    assert money.is_currency(code)


@pytest.mark.parametrize("code", ["eur", "EURO", "", "DEM", "HRK", "BGN", "ANG", "XAU", "XXX", "XTS", "BTC", "CHW"])
def test_a_withdrawn_or_invented_currency_a_metal_or_a_fund_is_not(code: str) -> None:
    assert not money.is_currency(code)


def test_every_currency_has_a_code_of_three_capitals() -> None:
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in money.CURRENCIES)
