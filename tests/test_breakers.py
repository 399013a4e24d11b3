"""Circuit breakers, on a clock that the tests move."""

import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from fleet import breakers, config, metrics
from fleet.breakers import AUTO, FORCED_CLOSED, FORCED_OPEN, Breaker, Control, Open, Rules
from fleet.config import ConfigError, Settings

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


def test_a_call_costs_no_more_when_thousands_were_made_within_the_window(breaker: Breaker) -> None:
    """Every request that asks Redis counts here, under one lock for all threads."""

    class Counted:
        """A call's outcome; to look at it is to count it."""

        looked_at = 0

        def __iter__(self) -> Iterator[float | bool]:
            Counted.looked_at += 1
            return iter((1000.0, False))

        def __getitem__(self, place: int) -> float | bool:
            Counted.looked_at += 1
            return (1000.0, False)[place]

    breaker._calls.extend(Counted() for _ in range(5000))  # type: ignore[misc]  # as if they had been made
    succeed(breaker)
    assert Counted.looked_at <= 2


def test_what_leaves_the_window_leaves_the_count_of_failures(breaker: Breaker, now: Clock) -> None:
    counts = []
    for _ in range(4):
        fail(breaker)
        succeed(breaker, 9)
        counts.append(breaker.failure_count)
        now.s += 12
    assert (counts, breaker.state) == ([1, 2, 3, 3], "closed")
    now.s += 40
    assert (breaker.failure_count, breaker.reading().failures) == (0, 0)
    opened(breaker, now, for_s=10)
    succeed(breaker)
    assert (breaker.state, breaker.failure_count) == ("closed", 0)


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


class Untold(Exception):
    """Whoever called gave up before they could know."""


@pytest.fixture
def doubting(now: Clock) -> Breaker:
    return Breaker("test", RULES, is_failure=lambda _, error: None if isinstance(error, Untold) else True, now=now)


def test_a_probe_that_could_not_tell_leaves_it_to_the_next_one(doubting: Breaker, now: Clock) -> None:
    opened(doubting, now, for_s=10)
    fail(doubting, 1, Untold)
    assert doubting.state == "half_open"
    fail(doubting)
    assert doubting.state == "open"


def test_calls_that_could_not_tell_hide_no_outage(doubting: Breaker) -> None:
    fail(doubting, 20, Untold)
    fail(doubting, 5)
    assert doubting.state == "open"


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


def word(state: str, epoch: int = 1) -> Control:
    return Control(state, epoch, "user:1", datetime.now(UTC), "a reason")


class TestOverrides:
    def test_each_dependency_has_its_thresholds(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        overrides = "smtp.min_calls=3,webhooks.open_s=0.5,smtp.window_s=60"
        monkeypatch.setattr(config, "_current", dataclasses.replace(settings, breaker_overrides=overrides))
        assert breakers.rules_of("smtp") == Rules(min_calls=3, window_s=60.0)
        assert breakers.rules_of("webhooks") == Rules(open_s=0.5)
        assert breakers.rules_of("stripe") == Rules()
        assert breakers.rules_of("postgresql") == Rules(min_calls=1, window_s=5.0, open_s=0.25, probe_s=10.0)

    @pytest.mark.parametrize(
        "raw", ["smtp.min_calls=0", "smtp.open_s=0", "smtp", "smpt.min_calls=3", "sms.min_calls=1.5", "a=b"]
    )
    def test_what_is_no_threshold_is_refused(self, environment: dict[str, str], raw: str) -> None:
        with pytest.raises(ConfigError, match="BREAKER_OVERRIDES"):
            Settings.load({**environment, "BREAKER_OVERRIDES": raw})


@pytest.mark.usefixtures("app")
class TestWordsOfOperators:
    def test_a_breaker_that_is_first_used_later_obeys_too(self) -> None:
        assert breakers.obey({"later": word(FORCED_OPEN)})
        with pytest.raises(Open):
            breakers.breaker("later").call(lambda: "yes")
        assert breakers.breaker("later").reading().epoch == 1

    def test_what_comes_late_is_overtaken(self) -> None:
        used = breakers.breaker("used")
        assert breakers.obey({"used": word(FORCED_OPEN, 7)})
        assert not breakers.obey({"used": word(AUTO, 6)})
        assert not breakers.obey({"used": word(AUTO, 7)})
        assert used.state == "open"
        assert breakers.obey({"used": word(AUTO, 8)})
        assert used.state == "closed"

    def test_a_breaker_that_opened_by_itself_is_closed_by_the_word_to_begin_afresh(self) -> None:
        used = breakers.breaker("used")
        fail(used, 5)
        breakers.obey({"used": word(AUTO)})
        assert (used.state, used.failure_count) == ("closed", 0)

    def test_who_waits_for_a_forced_breaker_does_not_ask_each_second(self) -> None:
        breakers.obey({"used": word(FORCED_OPEN)})
        assert breakers.breaker("used").wait_s() == 10

    def test_a_reading_tells_since_when_it_is_open_and_a_failed_probe_makes_it_no_younger(
        self, breaker: Breaker, now: Clock
    ) -> None:
        assert breaker.reading().opened_at is None
        since = opened(breaker, now, for_s=10).reading().opened_at
        assert since is not None
        fail(breaker)
        assert breaker.reading().opened_at == since


def shown() -> float:
    """What /metrics says of all hosts together."""
    return float(breakers.metrics.BREAKERS.labels("webhooks")._value.get())


@pytest.mark.usefixtures("app")
class TestHosts:
    def test_there_are_never_more_than_so_many_and_the_one_unused_longest_goes(self) -> None:
        for number in range(breakers.MOST_HOSTS):
            breakers.of_host(f"host-{number}")
        first = breakers.of_host("host-0")
        breakers.of_host("one-more")
        assert len(breakers._registry.hosts) == breakers.MOST_HOSTS
        assert breakers.of_host("host-0") is first
        assert "webhook:host-1" not in breakers._registry.hosts

    def test_they_share_a_figure_which_is_down_when_all_are_closed(self) -> None:
        for host in ("a", "b"):
            fail(breakers.of_host(host), 5)
        assert shown() == 2
        breakers.of_host("a").force(FORCED_CLOSED)
        assert shown() == 2
        for number in range(breakers.MOST_HOSTS):
            breakers.of_host(f"host-{number}")
        assert shown() == 0

    def test_one_that_went_with_calls_under_way_opens_without_the_figure(self) -> None:
        gone = breakers.of_host("gone")
        for number in range(breakers.MOST_HOSTS):
            breakers.of_host(f"host-{number}")
        fail(gone, 5)
        assert (gone.state, shown()) == ("open", 0)


def test_of_two_hosts_that_change_in_one_instant_the_figure_shows_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """One closes, and between its look and its word the other opens."""
    told: list[int] = []
    looked, other_is_done = threading.Event(), threading.Event()

    class SlowGauge:
        def labels(self, _: str) -> "SlowGauge":
            return self

        def set(self, value: int) -> None:
            if value == 0:
                looked.set()
                other_is_done.wait(0.3)
            told.append(value)

    figure = breakers.Figure("webhooks")
    figure.tell("a", is_open=True)
    monkeypatch.setattr(metrics, "BREAKERS", SlowGauge())
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(figure.tell, "a", is_open=False)
        assert looked.wait(5)
        figure.tell("b", is_open=True)
        other_is_done.set()
        closing.result()
    assert told[-1] == 2


def test_a_child_of_a_fork_is_not_stopped_by_the_locks_of_its_parents_threads(app: object) -> None:
    """Pool children are forked while the worker's other thread may be in the middle of a breaker."""
    forked = breakers.breaker("forked")
    with forked._lock, breakers._registry.lock, forked._figure.lock:
        child = os.fork()
        if not child:
            signal.alarm(5)
            ended_well = breakers.breaker("forked").call(lambda: "yes") == "yes"
            breakers.breaker("forked").force(FORCED_OPEN)
            os._exit(0 if ended_well else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_calls_of_many_threads_are_all_counted() -> None:
    """Half of 4000 fail, in 8 threads: each is in the window, and none is there twice."""
    patient = Breaker("patient", dataclasses.replace(RULES, failure_percent=60, window_s=300))

    def come(thread: int) -> None:
        for _ in range(250):
            succeed(patient)
            fail(patient)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(come, range(8)))
    assert (patient.state, patient.failure_count) == ("closed", 2000)
