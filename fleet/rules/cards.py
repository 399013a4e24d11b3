"""Telling card numbers, so that none is ever accepted (PCI DSS 3.3)."""

import re

_PRINTED = re.compile(r"(?<!\d)[3-6](?:[ -]?\d){12,18}(?!\d)", re.ASCII)


def holds_card_number(text: str) -> bool:
    """Whether 13 to 19 digits of the text, with spaces or dashes between, are a payment card's number (ISO/IEC 7812)."""
    return any(_checks(re.sub(r"[ -]", "", found[0])) for found in _PRINTED.finditer(text))


def _checks(digits: str) -> bool:
    """Luhn: every second digit from the right counts twice, its own digits added up."""
    doubled = (int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits)))
    return sum(number // 10 + number % 10 for number in doubled) % 10 == 0
