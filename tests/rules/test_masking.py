"""Nothing of a person and no secret gets past the mask, and what an auditor needs does."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.rules.masking import MASK, MAX_TEXT, masked

ID = UUID("01a2175a-3166-71f2-8520-7980a10af0f7")


@pytest.mark.parametrize(
    "name",
    ["email", "billing_email", "phone", "first_name", "last_name", "address", "date_of_birth", "driver_license_number",
     "password_hash", "refresh_token", "webhook_secret", "api_key", "Email"],
)  # fmt: skip
def test_what_is_personal_or_secret_by_its_name_is_masked(name):
    assert masked({name: "Rua Augusta 1"}) == {name: MASK}


@pytest.mark.parametrize(
    "value",
    [ID, 12, 4500.5, None, True, datetime(2026, 1, 1, tzinfo=UTC), "in_service", "AA-11-BB", f"{ID}", "2026-01-01T00:00:00Z"],
)
def test_identifiers_numbers_times_and_states_stay(value):
    assert masked({"value": value}) == {"value": value}


@pytest.mark.parametrize("name", ["address_id", "email_verified_at", "phone_id"])
def test_what_only_points_at_it_stays(name):
    assert masked({name: "x"}) == {name: "x"}


def test_it_is_found_at_any_depth():
    state = {"lines": [{"customer": {"email": "ana@example.com", "id": ID}}], "roles": ["admin"]}
    assert masked(state) == {"lines": [{"customer": {"email": MASK, "id": ID}}], "roles": ["admin"]}


def test_addresses_are_masked_wherever_they_stand_and_numbers_where_people_type():
    said = "Ana (ana.silva@example.com, +351 210 000 000) called"
    assert masked({"last_error": said, "reason": said}) == {
        "last_error": f"Ana ({MASK}, +351 210 000 000) called",
        "reason": f"Ana ({MASK}, {MASK}) called",
    }


@given(st.text(max_size=40), st.sampled_from(["reason", "last_error"]))
def test_no_address_survives_whatever_is_around_it(around, name):
    kept = masked({name: f"{around} ana@example.com {around}"})[name]
    assert "ana@example.com" not in kept


def test_a_text_is_bounded():
    assert len(masked({"note": "x" * 10_000})["note"]) == MAX_TEXT
