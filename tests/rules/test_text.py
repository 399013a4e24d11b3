"""One spelling for plates, VINs, e-mail addresses and licence numbers."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rules import text
from tests.rules.strategies import calm

VIN = "1HGCM82633A004352"
ALL = [text.plate, text.vin, text.email, text.licence]
Normaliser = Callable[[str], str]


@pytest.mark.parametrize(("raw", "clean"), [(" abc  1234 ", "ABC 1234"), ("nba\t1234", "NBA 1234"), ("b-ü 7", "B-Ü 7")])
def test_a_plate_is_in_capitals_with_single_spaces(raw: str, clean: str) -> None:
    assert text.plate(raw) == clean


def test_a_vin_is_in_capitals_and_without_spaces_around_it() -> None:
    assert text.vin(f" {VIN.lower()} ") == VIN


@pytest.mark.parametrize(
    "raw",
    ["", VIN[:-1], VIN + "1", "I" + VIN[1:], "o" + VIN[1:], "Q" + VIN[1:], VIN[:8] + " " + VIN[9:], "\u017f" + VIN[1:]],
)
def test_a_vin_of_another_length_or_with_another_sign_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match="A VIN is 17"):
        text.vin(raw)


def test_an_email_address_is_in_small_letters_on_both_sides() -> None:
    assert text.email(" Ana.Cruz@Example.COM ") == "ana.cruz@example.com"


def test_a_licence_number_is_in_capitals_without_spaces() -> None:
    assert text.licence(" n01-12 345678 ab") == "N01-12345678AB"


@pytest.mark.parametrize("normalise", ALL)
@pytest.mark.parametrize("raw", ["", "   ", "AB\x00C", "AB\u202ec"])
def test_nothing_at_all_and_what_cannot_be_seen_are_refused(normalise: Normaliser, raw: str) -> None:
    with pytest.raises(ValueError, match=r"must be made of|A VIN is 17"):
        normalise(raw)


@calm
@given(st.sampled_from([text.plate, text.email, text.licence]), st.text(max_size=30))
def test_what_is_normal_stays_as_it_is(normalise: Normaliser, raw: str) -> None:
    try:
        clean = normalise(raw)
    except ValueError:
        return
    assert normalise(clean) == clean


@calm
@given(st.text("ABCDEFGHJKLMNPRSTUVWXYZ0123456789", min_size=17, max_size=17))
def test_every_vin_of_the_right_signs_is_accepted_in_either_case(raw: str) -> None:
    assert text.vin(raw) == text.vin(raw.lower()) == raw
