"""Letters say the same in text and HTML, in the customer's language, in the clock and the money of where they pick up."""

import re
import string
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from fleet.rules import letters
from fleet.rules.languages import LANGUAGES, language, offered
from fleet.rules.letters import AccountTold, InvoiceTold, Letter, LineTold, PaymentTold, RefundTold, RentalTold
from fleet.rules.notices import ACCOUNT_KINDS, BY_DEFAULT, KINDS, REQUIRED, is_wanted
from fleet.rules.postings import ACCOUNT_BY_METHOD

EN = language("en")
AT = datetime(2026, 12, 1, 15, 0, tzinfo=UTC)
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
    lines=(
        LineTold("Rental, 2 days", 2, 6000, 12000, 1000, 1200),
        LineTold("Scratched door", 1, 1000, 1000, 1000, 100),
    ),
)
PAYMENT = PaymentTold(
    first_name="Ana",
    timezone="Asia/Tokyo",
    number="INV-7",
    rental_number="RNT-1",
    captured_at=datetime(2026, 12, 31, 16, 0, tzinfo=UTC),
    amount=123456,
    currency="USD",
    method="card",
    left=500,
)
REFUND = RefundTold(
    first_name="Ana",
    timezone="Asia/Tokyo",
    number="INV-7",
    rental_number="RNT-1",
    settled_at=datetime(2026, 12, 31, 16, 0, tzinfo=UTC),
    amount=123456,
    currency="USD",
    method="bank_transfer",
)
OF_RENTALS = [kind for kind in KINDS if kind.startswith("rental_")]


def written(kind: str, tag: str = "en", **changes: Any) -> Letter:
    if kind == "invoice_issued":
        return letters.of_invoice(replace(INVOICE, **changes), language(tag))
    if kind == "payment_received":
        return letters.of_payment(replace(PAYMENT, **changes), language(tag))
    if kind == "payment_refunded":
        return letters.of_refund(replace(REFUND, **changes), language(tag))
    return letters.of_rental(kind, replace(RENTAL, **changes), language(tag))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_that_may_go_to_a_telephone_has_words_for_it(kind: str) -> None:
    assert written(kind).sms


@pytest.mark.parametrize("kind", ACCOUNT_KINDS)
@pytest.mark.parametrize("tag", LANGUAGES)
def test_a_letter_about_an_account_says_what_it_was_given(tag: str, kind: str) -> None:
    told = AccountTold("Ana", at=AT, link="https://x.example/p#t&1", until=AT)
    letter = letters.of_account(kind, told, language(tag))
    assert letter.subject and letter.sms == ""
    for said in (letter.text(), letter.html()):
        assert "Ana" in said and language(tag).instant(AT, "UTC") in said
    assert ("https://x.example/p#t&1" in letter.text()) == (kind in {"password_reset", "email_verification"})


def everything(letter: Letter) -> str:
    return "\n".join((letter.subject, letter.text("https://x.example/u"), letter.html("https://x.example/u"), letter.sms))


def blanks(phrase: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(phrase) if name}


class TestEveryLanguage:
    @pytest.mark.parametrize("tag", LANGUAGES)
    def test_it_says_what_english_says(self, tag: str) -> None:
        said, english = language(tag).words, EN.words
        assert {name: set(section) for name, section in said.items()} == {name: set(part) for name, part in english.items()}

    @pytest.mark.parametrize("tag", LANGUAGES)
    def test_its_phrases_have_the_blanks_that_english_has(self, tag: str) -> None:
        for name, section in language(tag).words.items():
            for part, phrase in section.items():
                if name != "format":
                    assert blanks(phrase) == blanks(EN.words[name][part]), f"{name}.{part}"

    @pytest.mark.parametrize("tag", [tag for tag in LANGUAGES if tag != "en"])
    def test_nothing_is_left_in_english(self, tag: str) -> None:
        same = {
            f"{name}.{part}"
            for name, section in language(tag).words.items()
            for part, phrase in section.items()
            if name not in {"format", "labels"} and phrase == EN.words[name][part]
        }
        assert same == set()

    @pytest.mark.parametrize("tag", LANGUAGES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_kind_is_written_with_all_its_fields(self, kind: str, tag: str) -> None:
        letter = written(kind, tag)
        assert all((letter.subject, letter.greeting, letter.opening, letter.closing, letter.sms, letter.table))
        assert not re.search(r"[{}$]|\bNone\b", everything(letter).replace("None of", ""))
        number = RENTAL.number if kind in OF_RENTALS else INVOICE.number
        assert number in letter.subject and number in letter.sms
        assert f'<html lang="{tag}">' in letter.html()
        shown = {label for label, _ in letter.table}
        left_out = {"dropoff"}  # nobody named one
        assert {language(tag).label(name) for name in letters.ROWS[kind] if name not in left_out} <= shown

    @pytest.mark.parametrize("tag", LANGUAGES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_text_message_is_short(self, kind: str, tag: str) -> None:
        assert len(written(kind, tag, **({"vehicle": "V" * 40} if kind in OF_RENTALS else {})).sms) <= 250

    def test_a_language_that_is_not_offered_is_the_default(self) -> None:
        assert offered("pt", "fr").tag == "fr"
        assert offered("de", "fr").tag == "de"
        with pytest.raises(KeyError):
            language("../../etc/passwd")


@pytest.mark.parametrize("kind", OF_RENTALS)
def test_a_letter_tells_the_booking_in_the_time_of_the_branch(kind: str) -> None:
    text = written(kind).text()
    assert "Thu 03 Dec 2026, 10:00 (America/New_York)" in text
    assert kind == "rental_overdue" or "Tue 01 Dec 2026, 10:00 (America/New_York)" in text
    for told in ("Dear Ana,", "RNT-1", "Toyota Corolla"):
        assert told in text


@pytest.mark.parametrize(
    ("tag", "instant", "amount"),
    [
        ("en", "Tue 01 Dec 2026, 10:00 (America/New_York)", "USD 1,234.56"),
        ("de", "Di. 01.12.2026, 10:00 Uhr (America/New_York)", "1.234,56 USD"),
        ("fr", "mar. 01/12/2026 à 10:00 (America/New_York)", "1\u00a0234,56 USD"),
        ("es", "mar 01/12/2026, 10:00 (America/New_York)", "1.234,56 USD"),
    ],
)
def test_dates_and_amounts_are_written_as_the_language_writes_them(tag: str, instant: str, amount: str) -> None:
    text = written("rental_reserved", tag).text()
    assert instant in text and amount in text


def test_a_hold_tells_until_when_in_the_time_of_the_branch() -> None:
    assert "Sun 29 Nov 2026, 23:15 (America/New_York)" in written("rental_held").text()


def test_a_receipt_tells_every_amount_and_the_dates_of_the_branch() -> None:
    text = written("invoice_issued").text()
    assert "Rental, 2 days:" in text
    for told in ("JPY 12,000", "JPY 1,000", "JPY 13,000", "JPY 1,300", "JPY 14,300", "INV-7", "RNT-1"):
        assert told in text
    assert "Fri 01 Jan 2027" in text
    assert "Fri 15 Jan 2027" in text


def tells(letter: Letter, told: dict[str, str]) -> bool:
    """These rows stand in the letter as text and as HTML, and the first of them in the text message."""
    assert told.items() <= dict(letter.table).items()
    for said in (letter.text(), letter.html()):
        assert all(label in said and value in said for label, value in told.items())
    return next(iter(told.values())) in letter.sms


def test_a_receipt_without_a_rental_does_not_speak_of_one() -> None:
    assert "Rental:" not in written("invoice_issued", rental_number=None).text()


@pytest.mark.parametrize(
    ("tag", "told"),
    [
        ("en", {"Refunded": "USD 1,234.56", "Paid by": "Bank transfer", "Date": "Fri 01 Jan 2027", "Invoice": "INV-7"}),
        ("de", {"Erstattet": "1.234,56 USD", "Zahlungsweg": "Überweisung", "Datum": "Fr. 01.01.2027", "Rechnung": "INV-7"}),
        (
            "fr",
            {
                "Montant remboursé": "1\u00a0234,56 USD", "Moyen de paiement": "Virement bancaire", "Date": "ven. 01/01/2027",
                "Facture": "INV-7",
            },
        ),
        (
            "es",
            {
                "Importe devuelto": "1.234,56 USD", "Forma de pago": "Transferencia bancaria", "Fecha": "vie 01/01/2027",
                "Factura": "INV-7",
            },
        ),
    ],
)  # fmt: skip
def test_a_refund_tells_how_much_of_which_invoice_went_back_when_and_in_which_way(tag: str, told: dict[str, str]) -> None:
    assert tells(written("payment_refunded", tag), told)


@pytest.mark.parametrize("tag", LANGUAGES)
def test_every_way_to_pay_has_a_word(tag: str) -> None:
    assert set(language(tag).words["methods"]) == set(ACCOUNT_BY_METHOD)


@pytest.mark.parametrize("kind", ["payment_received", "payment_refunded"])
def test_money_without_a_rental_does_not_speak_of_one(kind: str) -> None:
    assert "Rental:" not in written(kind, rental_number=None).text()


@pytest.mark.parametrize(
    ("tag", "told"),
    [
        ("en", {"Paid": "USD 1,234.56", "Paid by": "Card", "Date": "Fri 01 Jan 2027", "Left to pay": "USD 5.00"}),
        ("de", {"Bezahlt": "1.234,56 USD", "Zahlungsweg": "Karte", "Datum": "Fr. 01.01.2027", "Noch offen": "5,00 USD"}),
        (
            "fr",
            {
                "Montant payé": "1\u00a0234,56 USD", "Moyen de paiement": "Carte bancaire", "Date": "ven. 01/01/2027",
                "Reste à payer": "5,00 USD",
            },
        ),
        (
            "es",
            {
                "Importe pagado": "1.234,56 USD", "Forma de pago": "Tarjeta", "Fecha": "vie 01/01/2027",
                "Pendiente de pago": "5,00 USD",
            },
        ),
    ],
)  # fmt: skip
def test_a_receipt_tells_how_much_was_paid_when_and_in_which_way_and_what_is_left(tag: str, told: dict[str, str]) -> None:
    assert tells(written("payment_received", tag), told)


@pytest.mark.parametrize("left", [0, -1])
def test_a_receipt_of_all_of_it_speaks_of_nothing_that_is_left(left: int) -> None:
    assert "Left to pay" not in written("payment_received", left=left).text()


@pytest.mark.parametrize("kind", KINDS)
def test_the_html_tells_all_that_the_text_tells(kind: str) -> None:
    letter = written(kind)
    for told in (letter.greeting, letter.opening, letter.closing, *(value for row in letter.table for value in row)):
        assert told in letter.html() and told in letter.text()


def test_the_way_out_is_in_text_and_html_where_there_is_one() -> None:
    letter = written("rental_reminder")
    link = "https://x.example/u?token=a&b"
    assert link in letter.text(link)
    assert 'href="https://x.example/u?token=a&amp;b"' in letter.html(link)
    assert "No more letters" not in letter.text() + letter.html()


def test_what_people_typed_is_text_in_html_and_never_markup() -> None:
    letter = written("rental_reserved", first_name="<script>alert(1)</script>", vehicle='A"&B')
    assert "<script>" not in letter.html()
    assert "&lt;script&gt;" in letter.html()
    assert "A&quot;&amp;B" in letter.html()


def test_what_people_typed_is_never_read_as_a_phrase() -> None:
    letter = written("rental_reserved", first_name="{number} $subject {0.__class__}", vehicle="$table")
    for said in (letter.text(), letter.html()):
        assert "{number} $subject {0.__class__}" in said and "$table" in said


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
def test_an_amount_has_as_many_decimals_as_its_currency(minor_units: int, currency: str, shown: str) -> None:
    assert EN.money(minor_units, currency) == shown


@pytest.mark.parametrize(("bps", "shown"), [(2300, "23"), (550, "5.5"), (1, "0.01"), (0, "0"), (10_000, "100")])
def test_a_rate_is_shown_as_percent(bps: int, shown: str) -> None:
    assert EN.percent(bps) == f"{shown}\u00a0%"


class TestWhatIsWanted:
    def test_before_a_choice_everything_goes_by_mail_and_what_cannot_wait_by_text_message_too(self) -> None:
        assert {kind for kind in KINDS if is_wanted(kind, "email", None)} == set(KINDS)
        assert {kind for kind in KINDS if is_wanted(kind, "sms", None)} == BY_DEFAULT["sms"] == {
            "rental_reminder", "rental_overdue",
        }  # fmt: skip

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_choice_decides_but_for_what_is_required_in_writing(self, kind: str) -> None:
        assert is_wanted(kind, "email", []) == (kind in REQUIRED)
        assert is_wanted(kind, "sms", []) is False
        assert is_wanted(kind, "sms", [kind]) is True
