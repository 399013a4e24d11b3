from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fleet.rules.throttle import FIRST_REST, FREE_FAILURES, HEALS_AFTER, rest_after, rests

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_a_few_typing_errors_cost_nothing() -> None:
    assert [rest_after(failures) for failures in range(FREE_FAILURES)] == [timedelta(0)] * FREE_FAILURES


def test_each_further_failure_doubles_the_rest() -> None:
    assert rest_after(FREE_FAILURES) == FIRST_REST
    assert rest_after(FREE_FAILURES + 3) == 8 * FIRST_REST


@given(st.integers(min_value=0, max_value=2**31))
def test_no_account_rests_longer_than_it_takes_to_heal(failures: int) -> None:
    assert timedelta(0) <= rest_after(failures) <= HEALS_AFTER
    assert not rests(failures, NOON, at=NOON + HEALS_AFTER)


@given(st.integers(min_value=0, max_value=1000))
def test_one_more_failure_never_shortens_the_rest(failures: int) -> None:
    assert rest_after(failures) <= rest_after(failures + 1)


def test_an_account_rests_up_to_the_end_of_its_rest_and_not_beyond() -> None:
    rest = rest_after(FREE_FAILURES)
    assert rests(FREE_FAILURES, NOON, at=NOON + rest - timedelta(microseconds=1))
    assert not rests(FREE_FAILURES, NOON, at=NOON + rest)
