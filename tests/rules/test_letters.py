"""Letters say the same in text and HTML, in the clock and the money of where the vehicle is picked up."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fleet.rules import letters
from fleet.rules.letters import InvoiceTold, RentalTold

RENTAL = RentalTold(
    first_name="Ana",
    timezone="America/New_York",
    number="RNT-1",
    vehicle="Toyota Corolla",
    start_at=datetime(2026, 12, 1, 15, 0, tzinfo=UTC),
    end_at=datetime(2026, 12, 3, 15, 0, tzinfo=UTC),
    hold_expires_at=datetime(2026, 11, 30, 4, 15, tzinfo=UTC),
    total_amount=123456,
    currency="USD",
    pickup="New York JFK",
    dropoff=None,
)
INVOICE = InvoiceTold(
    first_name="Ana",
    timezone="Asia/Tokyo",
    number="INV-7",
    rental_number="RNT-1",
    issued_at=datetime(2026, 12, 31, 16, 0, tzinfo=UTC),
    due_at=datetime(2027, 1, 14, 16, 0, tzinfo=UTC),
    net_amount=13000,
    tax_amount=1300,
    currency="JPY",
    lines=(("Rental, 2 days", 12000), ("Scratched door", 1000)),
)
OF_RENTALS = [letters.rental_held, letters.rental_reserved, letters.rental_changed, letters.rental_cancelled]


@pytest.mark.parametrize("write", OF_RENTALS)
def test_a_letter_tells_the_booking_in_the_time_of_the_branch(write):
    text = write(RENTAL).text()
    assert "Tue 01 Dec 2026, 10:00 (America/New_York)" in text
    assert "Thu 03 Dec 2026, 10:00 (America/New_York)" in text
    for told in ("Dear Ana,", "RNT-1", "Toyota Corolla", "New York JFK", "USD 1,234.56"):
        assert told in text


def test_a_hold_tells_until_when_in_the_time_of_the_branch():
    assert "Sun 29 Nov 2026, 23:15 (America/New_York)" in letters.rental_held(RENTAL).text()


def test_a_receipt_tells_every_amount_and_the_dates_of_the_branch():
    text = letters.invoice_issued(INVOICE).text()
    assert "Rental, 2 days:" in text
    for told in ("JPY 12,000", "JPY 1,000", "JPY 13,000", "JPY 1,300", "JPY 14,300", "INV-7", "RNT-1"):
        assert told in text
    assert "Fri 01 Jan 2027" in text
    assert "Fri 15 Jan 2027" in text


def test_a_receipt_without_a_rental_does_not_speak_of_one():
    letter = letters.invoice_issued(replace(INVOICE, rental_number=None))
    assert letter.subject == "Invoice INV-7"
    assert "None" not in letter.text()


@pytest.mark.parametrize("letter", [*(write(RENTAL) for write in OF_RENTALS), letters.invoice_issued(INVOICE)])
def test_the_html_tells_all_that_the_text_tells(letter):
    html = letter.html()
    for told in (letter.greeting, letter.opening, letter.closing, *(value for row in letter.table for value in row)):
        assert told in html


def test_what_people_typed_is_text_in_html_and_never_markup():
    letter = letters.rental_reserved(replace(RENTAL, first_name="<script>alert(1)</script>", vehicle='A"&B'))
    assert "<script>" not in letter.html()
    assert "&lt;script&gt;" in letter.html()
    assert "A&quot;&amp;B" in letter.html()


@pytest.mark.parametrize(
    ("minor_units", "currency", "shown"),
    [
        (0, "EUR", "EUR 0.00"),
        (5, "EUR", "EUR 0.05"),
        (-123456, "EUR", "EUR -1,234.56"),
        (123456, "JPY", "JPY 123,456"),
        (1234567, "KWD", "KWD 1,234.567"),
        (10**12, "USD", "USD 10,000,000,000.00"),
    ],
)
def test_an_amount_has_as_many_decimals_as_its_currency(minor_units, currency, shown):
    assert letters.money(minor_units, currency) == shown
