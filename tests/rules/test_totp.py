"""Codes are those of the RFCs, and a code is taken once, within a step of the clock."""

from datetime import UTC, datetime, timedelta

import pytest

from fleet.rules import totp

# The secret of the test vectors: RFC 4226, appendix D, and RFC 6238, appendix B.
SECRET = b"12345678901234567890"
AT = datetime(2026, 12, 1, 10, 0, 15, tzinfo=UTC)
NOW = totp.step_of(AT)


@pytest.mark.parametrize(
    ("counter", "code"),
    list(enumerate(["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"])),
)
def test_the_vectors_of_rfc_4226(counter: int, code: str) -> None:
    assert totp.code(SECRET, counter) == code


@pytest.mark.parametrize(
    ("seconds", "code"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_vectors_of_rfc_6238(seconds: int, code: str) -> None:
    assert totp.code(SECRET, totp.step_of(datetime.fromtimestamp(seconds, UTC)), digits=8) == code


@pytest.mark.parametrize(("drift", "taken"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)])
def test_a_clock_may_be_one_step_off(drift: int, taken: bool) -> None:
    given = totp.code(SECRET, NOW + drift)
    assert totp.step_of_code(SECRET, given, at=AT, after=None) == (NOW + drift if taken else None)


@pytest.mark.parametrize(("after", "taken"), [(NOW - 1, True), (NOW, False), (NOW + 1, False)])
def test_a_code_is_not_taken_again_nor_after_a_later_one(after: int, taken: bool) -> None:
    found = totp.step_of_code(SECRET, totp.code(SECRET, NOW), at=AT, after=after)
    assert found == (NOW if taken else None)


@pytest.mark.parametrize("given", ["", "12345", "١٢٣٤٥٦", "\ud800" * 6, "0" * 1000])
def test_what_is_no_code_is_none(given: str) -> None:
    assert totp.step_of_code(SECRET, given, at=AT, after=None) is None


def test_the_uri_is_what_apps_read() -> None:
    found = totp.uri(SECRET, account="ana@example.com", issuer="Fleet")
    assert found == (
        "otpauth://totp/Fleet%3Aana%40example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Fleet"
        "&algorithm=SHA1&digits=6&period=30"
    )


def test_secrets_have_160_bits_and_differ() -> None:
    assert len({totp.new_secret() for _ in range(10)}) == 10
    assert len(totp.new_secret()) == 20


def test_a_code_changes_each_thirty_seconds() -> None:
    assert totp.step_of(AT + timedelta(seconds=14)) == NOW
    assert totp.step_of(AT + timedelta(seconds=15)) == NOW + 1
