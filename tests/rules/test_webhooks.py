"""The timetable of webhooks, and their signatures."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from fleet.rules import webhooks
from fleet.rules.webhooks import MOST_ATTEMPTS, RETRIES_S, asked_wait_s, is_hopeless, rest_s, retry_in_s, signed
from tests.source import ROOT

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECRET, OTHER = b"s" * 32, b"o" * 32


def test_retries_follow_the_timetable_give_or_take_a_tenth() -> None:
    for tries, planned in enumerate(RETRIES_S, start=1):
        assert 0.9 * planned <= (retry_in_s(tries) or 0) <= 1.1 * planned
    assert retry_in_s(MOST_ATTEMPTS) is None


def test_they_go_on_for_three_days() -> None:
    assert timedelta(days=3) < timedelta(seconds=sum(RETRIES_S)) < timedelta(days=4)


def test_the_page_shows_the_timetable() -> None:
    units = ((3600, "h"), (60, "min"), (1, "s"))
    shown = [next(f"{wait // size} {unit}" for size, unit in units if wait % size == 0) for wait in RETRIES_S]
    assert f"| {' | '.join(shown)} |" in (ROOT / "docs" / "api.md").read_text()


def test_a_receiver_that_asks_for_time_gets_it_within_bounds() -> None:
    assert retry_in_s(1, asked_s=900) == 900
    assert (retry_in_s(9, asked_s=1) or 0) > 70_000
    assert retry_in_s(1, asked_s=10**9) == 24 * 3600
    assert retry_in_s(MOST_ATTEMPTS, asked_s=900) is None
    assert rest_s(1, asked_s=900) == 900
    assert rest_s(1, asked_s=10**9) == 3600


def test_an_endpoint_rests_longer_with_every_failure() -> None:
    assert 4.5 <= rest_s(1) <= 5.5
    assert 18 <= rest_s(3) <= 22
    assert 270 <= rest_s(50) <= 330
    assert 270 <= rest_s(10**6) <= 330


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        ("0", 0),
        (format_datetime(NOW + timedelta(minutes=3), usegmt=True), 180),
        (format_datetime(NOW - timedelta(minutes=3), usegmt=True), 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1e3", None),
        ("١٢", None),
        ("1" * 65, None),
        ("Thu, 99 Nov 2026 99:00:00 GMT", None),
        ("Thu, 01 Jan 99999999999999 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - NOW).total_seconds() + 86340),
    ],
)
def test_what_a_receiver_asks_for_is_read_or_left(header: str | None, seconds: float | None) -> None:
    assert asked_wait_s(header, now=NOW) == seconds


def test_an_endpoint_is_given_up_on_after_days_of_many_failures() -> None:
    long_ago, lately = NOW - timedelta(days=5, minutes=1), NOW - timedelta(days=4, hours=23)
    assert is_hopeless(long_ago, 10, now=NOW)
    assert not is_hopeless(long_ago, 9, now=NOW)
    assert not is_hopeless(lately, 1000, now=NOW)


def test_a_signature_is_what_the_library_of_the_specification_verifies() -> None:
    headers = signed("evt-1", datetime.now(UTC), b'{"a": "\xc3\xa9"}', [SECRET, OTHER])
    for secret in (SECRET, OTHER):
        assert Webhook(webhooks.secret_text(secret)).verify(b'{"a": "\xc3\xa9"}', headers) == {"a": "é"}
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.secret_text(b"x" * 32)).verify(b'{"a": "\xc3\xa9"}', headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(webhooks.secret_text(SECRET)).verify(b'{"a": "e"}', headers)


def test_a_signature_is_the_one_of_the_specifications_example() -> None:
    """The test vector that the specification's own libraries share."""
    secret = webhooks.base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    at = datetime.fromtimestamp(1614265330, UTC)
    headers = signed("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}', [secret])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
