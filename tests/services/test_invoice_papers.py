"""An invoice on paper holds what was issued, in the customer's language, and is the same whenever it is drawn."""

import logging
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from fleet.gateways import pdf
from fleet.rules.invoice_sheets import Sheet, sheet
from fleet.rules.languages import LANGUAGES, language
from fleet.rules.letters import InvoiceTold, LineTold

DAYS = LineTold("Rental, 2 days", 2, 4500, 9000, 2300, 2070)
SCRATCH = LineTold("Scratched door", 1, 10_000, 10_000, 2300, 2300)
EXEMPT = LineTold("Fine", 1, 5000, 5000, 0, 0)
TOLD = InvoiceTold(
    first_name="Ana",
    timezone="Europe/Lisbon",
    number="INV-000007",
    rental_number="RNT-2026-000001",
    issued_at=datetime(2026, 12, 1, 23, 30, tzinfo=UTC),
    due_at=datetime(2026, 12, 15, 23, 30, tzinfo=UTC),
    net_amount=24_000,
    tax_amount=4370,
    currency="EUR",
    lines=(DAYS, SCRATCH, EXEMPT),
)


def paper(tag: str = "en", buyer: str = "Ana Silva", **changes: object) -> Sheet:
    told = replace(TOLD, **changes)  # type: ignore[arg-type]
    return sheet(told, language(tag), seller=("Fleet Ltd", "Rua Augusta 1, Lisboa"), buyer=(buyer,))


def letters_in(document: bytes) -> set[str]:
    """The characters that the document can be read as: those of the map from its font's glyphs to Unicode."""
    return {chr(int(code, 16)) for code in re.findall(rb"<[0-9A-F]{4}> <([0-9A-F]{4})>", document)}


@pytest.mark.parametrize("tag", LANGUAGES)
def test_the_sheet_says_everything_that_was_issued(tag: str) -> None:
    found, spoken = paper(tag), language(tag)
    assert found.number in found.title and found.language == tag
    assert [value for _, value in found.facts][:2] == ["INV-000007", "RNT-2026-000001"]
    assert found.lines[0] == (
        "Rental, 2 days", "2", spoken.money(4500, "EUR"), spoken.percent(2300), spoken.money(9000, "EUR"),
    )  # fmt: skip
    assert [amount for _, amount in found.totals] == [spoken.money(minor, "EUR") for minor in (24_000, 0, 4370, 28_370)]
    assert found.seller == ("Fleet Ltd", "Rua Augusta 1, Lisboa") and found.buyer[1] == "Ana Silva"


def test_each_rate_of_tax_has_its_sum() -> None:
    exempt, taxed = (label for label, _ in paper().totals[1:3])
    assert "EUR 50.00" in exempt and "EUR 190.00" in taxed


def test_dates_are_those_of_the_branch() -> None:
    assert "Tue 01 Dec 2026" in paper().facts[2][1]
    assert "Wed 02 Dec 2026" in paper(timezone="Asia/Tokyo").facts[2][1]


def test_the_same_sheet_is_the_same_bytes() -> None:
    one, other = pdf.render(paper()), pdf.render(paper())
    assert one == other and one.startswith(b"%PDF-")
    assert pdf.render(paper("de")) != one


def test_papers_that_differ_have_tags_that_differ() -> None:
    tags = {paper().tag, paper("fr").tag, paper(buyer="Erased Customer").tag, paper(number="INV-000008").tag}
    assert len(tags) == 4 and paper().tag in tags


def test_names_keep_their_letters() -> None:
    name = "Łukasz Žižek Ωμέγα Жанна Nguyễn"
    assert set(name) <= letters_in(pdf.render(paper(buyer=name)))


def test_what_the_font_has_no_letter_for_is_shown_as_such_and_logged_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        document = pdf.render(paper(buyer="\u65e5\u672c \U0001f600 \u0007\u202e\u00a0\t"))
    assert "?" in letters_in(document)
    assert not {"\u65e5", "\u202e"} & letters_in(document)
    assert caplog.text == ""


def test_a_long_invoice_takes_several_pages() -> None:
    document = pdf.render(paper(lines=(DAYS,) * 150))
    assert len(re.findall(rb"/Type /Page\n", document)) > 2


def test_a_description_without_end_is_broken_over_lines() -> None:
    assert pdf.render(paper(lines=(replace(DAYS, description="x" * 200),)))
