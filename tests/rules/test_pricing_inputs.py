"""What pricing refuses to be given, and how terms are stored."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given

from fleet.rules.money import MAX_AMOUNT
from fleet.rules.pricing import ExtraCharge, Line, Return, TaxedLine, Terms
from tests.rules.strategies import calm, terms

START = datetime(2026, 6, 1, 2, 0, tzinfo=UTC)
TERMS = Terms(daily_rate=5000, currency="PHP", timezone="Asia/Manila", grace_minutes=59)
BASE = Line("rental", "Rental, 2 days", "started_days", 2, 5000, 10_000)


@calm
@given(terms)
def test_terms_survive_their_storage_as_json(rates: Terms) -> None:
    assert Terms.from_json(json.loads(json.dumps(rates.as_json()))) == rates


def test_a_term_that_an_older_snapshot_lacks_has_its_default() -> None:
    stored = {"daily_rate": 5000, "currency": "PHP", "timezone": "Asia/Manila", "grace_minutes": 59}
    assert Terms.from_json(stored) == Terms(5000, "PHP", "Asia/Manila", 59)


def test_a_term_that_this_release_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError):
        Terms.from_json({**TERMS.as_json(), "weekend_rate": 9000})


@pytest.mark.parametrize(
    "wrong",
    [
        {"daily_rate": -1},
        {"daily_rate": 50.0},
        {"late_fee_per_hour": MAX_AMOUNT + 1},
        {"no_show_fee": -1},
        {"currency": "php"},
        {"grace_minutes": -1},
        {"grace_minutes": 24 * 60 + 1},
        {"free_cancellation_hours": -1},
        {"tax_bps": 10_001},
    ],
)
def test_terms_that_cannot_be_meant_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"amount|currency|whole number"):
        replace(TERMS, **wrong)


@pytest.mark.parametrize("type_", ["rental", "cancellation", "no_show", "discount"])
def test_staff_cannot_enter_a_charge_that_only_a_rule_makes(type_: str) -> None:
    with pytest.raises(ValueError, match=type_):
        ExtraCharge(type_, "By hand", 100)


def test_a_line_whose_product_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="quantity times"):
        Line("rental", "Rental", "started_days", 2, 5000, 5000)


def test_a_taxed_line_whose_sum_is_wrong_is_refused() -> None:
    with pytest.raises(ValueError, match="plus its tax"):
        TaxedLine(BASE, "VAT12", 1200, 1200, 11_000)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_tank_is_between_empty_and_full(percent: int) -> None:
    with pytest.raises(ValueError, match="fuel_percent"):
        Return(START, 12_000, percent)
