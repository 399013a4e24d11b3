"""Telling card numbers from other numbers."""

import pytest

from fleet.rules.cards import holds_card_number


@pytest.mark.parametrize(
    "text",
    ["4242424242424242", "4242 4242 4242 4242", "by 5555-5555-5555-4444, thanks", "378282246310005", "6011111111111117"],
)
def test_a_card_number_is_told_however_it_is_printed(text: str) -> None:
    assert holds_card_number(text)


@pytest.mark.parametrize(
    "text",
    ["4242424242424241", "pm_1Nabcdef", "INV-000123", "2026-11-26", "+351 21 000", "1234567890" * 3, "1424242424242424242"],
)
def test_other_numbers_are_not(text: str) -> None:
    assert not holds_card_number(text)
