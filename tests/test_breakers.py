"""Circuit breakers, on a clock that the tests move."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fleet import breakers
from fleet.breakers import AUTO, FORCED_CLOSED, FORCED_OPEN, Breaker, Open, Rules

RULES = Rules(failure_percent=50, min_calls=5, window_s=30, open_s=10, probe_s=20)


class Away(Exception):
    """What is behind the breaker does not answer."""


class Refused(Exception):
    """What is behind the breaker answers, and says no."""


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Clock:
    return Clock()


@pytest.fixture
def breaker(now: Clock) -> Breaker:
    return Breaker("test", RULES, is_failure=lambda kind, error: issubclass(kind, Away), now=now)


def fail(breaker: Breaker, times: int = 1, error: type[Exception] = Away) -> None:
    def failing() -> None:
        raise error

    for _ in range(times):
        with pytest.raises(error):
            breaker.call(failing)


def succeed(breaker: Breaker, times: int = 1) -> None:
    for _ in range(times):
        assert breaker.call(lambda: "yes") == "yes"


def opened(breaker: Breaker, now: Clock, *, for_s: float = 0) -> Breaker:
    fail(breaker, 5)
    assert breaker.state == "open"
    now.s += for_s
    return breaker


def test_a_breaker_lets_calls_through_and_their_answers_back(breaker: Breaker) -> None:
    assert breaker.call(lambda a, b: (a, b), 1, b=2) == (1, 2)
    assert breaker.state == "closed"


def test_too_few_calls_prove_nothing(breaker: Breaker) -> None:
    fail(breaker, 4)
    assert (breaker.state, breaker.failure_count) == ("closed", 4)


def test_it_opens_when_the_rate_is_reached_and_asks_nobody_any_more(breaker: Breaker) -> None:
    fail(breaker, 5)
    asked: list[int] = []
    with pytest.raises(Open) as refusal:
        breaker.call(lambda: asked.append(1))
    assert (asked, breaker.state) == ([], "open")
    assert (refusal.value.breaker, refusal.value.retry_after_s) == ("test", 10)


def test_four_failures_in_five_open_it_however_they_are_mixed(breaker: Breaker) -> None:
    """The package's own breaker counts consecutive failures: it would never open here."""
    succeed(breaker)
    fail(breaker, 4)
    assert breaker.state == "open"


def test_a_few_failures_among_many_successes_do_not(breaker: Breaker) -> None:
    for _ in range(30):
        succeed(breaker, 3)
        fail(breaker, 2)
    assert breaker.state == "closed"


def test_failures_of_long_ago_do_not_count(breaker: Breaker, now: Clock) -> None:
    fail(breaker, 4)
    now.s += 31
    fail(breaker, 4)
    assert (breaker.state, breaker.failure_count) == ("closed", 4)


def test_who_answers_no_is_there(breaker: Breaker) -> None:
    fail(breaker, 20, Refused)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


def test_it_closes_when_the_probe_comes_back(breaker: Breaker, now: Clock) -> None:
    opened(breaker, now, for_s=10)
    assert breaker.state == "half_open"
    succeed(breaker)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


def test_a_probe_that_is_answered_no_closes_it_too(breaker: Breaker, now: Clock) -> None:
    opened(breaker, now, for_s=10)
    fail(breaker, 1, Refused)
    assert breaker.state == "closed"


def test_a_failed_probe_keeps_it_open_for_as_long_again(breaker: Breaker, now: Clock) -> None:
    opened(breaker, now, for_s=10)
    fail(breaker)
    now.s += 9.9
    with pytest.raises(Open):
        breaker.check()
    now.s += 0.1
    breaker.check()


def test_of_50_callers_at_a_half_open_breaker_one_is_the_probe(breaker: Breaker, now: Clock) -> None:
    opened(breaker, now, for_s=10)
    start, let_go, asked = threading.Barrier(50), threading.Event(), []

    def probe() -> None:
        asked.append(1)
        let_go.wait(10)

    def come(_: int) -> str:
        start.wait()
        try:
            breaker.call(probe)
        except Open:
            # The last one to be turned away lets the probe come back.
            turned_away.append(1)
            if len(turned_away) == 49:
                let_go.set()
            return "turned away"
        return "probe"

    turned_away: list[int] = []
    with ThreadPoolExecutor(50) as threads:
        ended = sorted(threads.map(come, range(50)))
    assert (ended, len(asked)) == (["probe"] + ["turned away"] * 49, 1)
    assert breaker.state == "closed"


def test_a_late_success_does_not_close_it(breaker: Breaker, now: Clock) -> None:
    def slow() -> str:
        fail(breaker, 5)
        return "after all"

    assert breaker.call(slow) == "after all"
    assert breaker.state == "open"
    now.s += 10
    with pytest.raises(Away):
        breaker.call(lambda: (_ for _ in ()).throw(Away()))
    assert breaker.state == "open"


def test_a_late_failure_does_not_open_what_has_closed_again(breaker: Breaker, now: Clock) -> None:
    def slow() -> None:
        opened(breaker, now, for_s=10)
        succeed(breaker)
        raise Away

    with pytest.raises(Away):
        breaker.call(slow)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


def test_a_probe_that_never_comes_back_is_replaced(breaker: Breaker, now: Clock) -> None:
    opened(breaker, now, for_s=10)

    def lost() -> None:
        with pytest.raises(Open):
            breaker.check()
        now.s += 20
        succeed(breaker)

    breaker.call(lost)
    assert breaker.state == "closed"


def test_a_probe_that_is_broken_off_leaves_room_for_the_next(breaker: Breaker, now: Clock) -> None:
    opened(breaker, now, for_s=10)

    def broken_off() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaker.call(broken_off)
    assert breaker.state == "half_open"
    succeed(breaker)
    assert breaker.state == "closed"


def test_forced_open_it_stays_open_and_forced_closed_closed(breaker: Breaker, now: Clock) -> None:
    breaker.force(FORCED_OPEN)
    now.s += 1000
    with pytest.raises(Open):
        breaker.call(lambda: "yes")
    breaker.force(FORCED_CLOSED)
    fail(breaker, 20)
    assert breaker.state == "closed"
    breaker.force(AUTO)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)
    assert opened(breaker, now).state == "open"


def test_a_change_is_a_line_in_the_log_and_a_figure(
    breaker: Breaker, now: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="fleet.breakers"):
        opened(breaker, now, for_s=10)
        assert breakers.metrics.BREAKERS.labels("test")._value.get() == 2
        succeed(breaker)
    told = [(vars(record)["breaker"], vars(record)["state"]) for record in caplog.records]
    assert told == [("test", "open"), ("test", "closed")]
    assert breakers.metrics.BREAKERS.labels("test")._value.get() == 0


def test_a_breaker_is_known_by_its_name(app: object) -> None:
    assert breakers.breaker("known") is breakers.breaker("known")
    assert "known" in [found.name for found in breakers.known()]
