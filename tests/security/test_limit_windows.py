"""The windows themselves: costs, fairness, sharing, and what becomes of them when Redis fails. Each rule holds in Redis and
in the process alike.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import Any

import pytest
import time_machine
from redis import Redis

from fleet import limits
from fleet.config import Settings
from fleet.embedded import Valkey
from fleet.limits import AUTHENTICATED, PUBLIC, Limits, Standing

Counter = Callable[..., Limits]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Redis that these tests may break."""
    directory = tmp_path_factory.mktemp("valkey")
    server = Valkey(directory / "valkey", owner=directory, port=None, durable=False)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(valkey: Valkey) -> Iterator[Any]:
    with Redis.from_url(valkey.url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def counting(environment: dict[str, str], valkey: Valkey, client: Any) -> Counter:
    """Makes counters that share the Redis, with ten calls a minute."""

    def make(**changes: str) -> Limits:
        chosen = {"RATELIMIT_AUTHENTICATED": "10 per minute", "RATELIMIT_GLOBAL": "1000 per minute", **changes}
        return Limits(Settings.load({**environment, "REDIS_URL": valkey.url, **chosen}))

    return make


@pytest.fixture(params=["in Redis", "in the process"])
def anywhere(request: pytest.FixtureRequest, counting: Counter) -> Counter:
    """The same, each test twice: there, and as when Redis is away."""
    if request.param == "in Redis":
        return counting
    return lambda **changes: counting(**changes, REDIS_URL="redis://127.0.0.1:1/0")


def call(counter: Limits, caller: str = "ana", *, cost: int = 1, tier: str = AUTHENTICATED) -> Standing:
    standing = counter.check(tier, caller, cost=cost)
    assert standing is not None
    return standing


def left(counter: Limits, **how: Any) -> int | None:
    """How many calls are left after this one; None when it was refused."""
    standing = call(counter, **how)
    return None if standing.refused else standing.remaining


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What work(0), work(1), ... gave, all at once."""
    start = Barrier(count)

    def one(number: int) -> Any:
        start.wait()
        return work(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(one, range(count)))


class TestCosts:
    def test_a_heavy_call_counts_as_several(self, anywhere: Counter) -> None:
        counter = anywhere()
        assert [left(counter), left(counter, cost=6), left(counter)] == [9, 3, 2]

    def test_what_costs_more_than_is_left_is_refused_and_takes_nothing(self, anywhere: Counter) -> None:
        counter = anywhere()
        call(counter, cost=8)
        refused = [call(counter, cost=3) for _ in range(5)]
        assert {(standing.refused, standing.remaining) for standing in refused} == {(True, 2)}
        assert [left(counter, cost=2), left(counter)] == [0, None]

    def test_what_costs_more_than_the_whole_limit_takes_the_whole_limit(self, anywhere: Counter) -> None:
        counter = anywhere()
        assert [left(counter, cost=50), left(counter)] == [0, None]
        assert not call(counter, "ben", cost=50).refused

    def test_who_is_refused_waits_for_as_many_calls_as_it_costs(self, anywhere: Counter) -> None:
        counter = anywhere(RATELIMIT_AUTHENTICATED="4 per 3 second")
        call(counter, cost=2)
        time.sleep(1.1)
        call(counter, cost=2)
        assert [call(counter, cost=cost).reset_s for cost in (1, 2, 3, 4)] == [2, 2, 3, 3]

    def test_the_safety_net_counts_what_calls_cost(self, anywhere: Counter) -> None:
        counter = anywhere(RATELIMIT_GLOBAL="10 per minute")
        call(counter, "ana", cost=8)
        refused = call(counter, "ben", cost=3)
        assert (refused.refused, refused.tier, refused.limit, refused.remaining) == (True, limits.EVERYBODY, 10, 2)
        assert [left(counter, caller="ben", cost=2), left(counter, caller="cleo")] == [8, None]


class TestFairness:
    def test_a_refused_call_does_not_make_the_wait_longer(self, anywhere: Counter) -> None:
        counter = anywhere(RATELIMIT_AUTHENTICATED="3 per second")
        began = time.monotonic()
        assert left(counter, cost=3) == 0
        refusals = 0
        while call(counter).refused:
            refusals += 1
            assert time.monotonic() - began < 1.5, "banned for as long as it asks"
        assert refusals > 10 and time.monotonic() - began >= 0.99

    def test_who_is_refused_takes_nothing_from_all_others(self, anywhere: Counter) -> None:
        counter = anywhere(RATELIMIT_GLOBAL="20 per minute")
        for _ in range(50):
            call(counter, "ana")
        assert [call(counter, "ben").refused for _ in range(11)] == [False] * 10 + [True]

    def test_a_window_moves(self, anywhere: Counter) -> None:
        """Ten at the end of one second and ten at the begin of the next are too many for any second."""
        counter = anywhere(RATELIMIT_AUTHENTICATED="10 per second")
        call(counter, cost=2)
        time.sleep(0.6)
        assert not call(counter, cost=8).refused
        time.sleep(0.5)
        assert [left(counter, cost=3), left(counter, cost=2)] == [None, 0]


class TestSharing:
    def test_of_many_at_once_on_two_instances_as_many_get_through_as_may(self, counting: Counter) -> None:
        one, other = counting(RATELIMIT_AUTHENTICATED="30 per minute"), counting(RATELIMIT_AUTHENTICATED="30 per minute")
        found = together(8, lambda number: [call((one, other)[number % 2]).refused for _ in range(10)])
        assert sum(refused for each in found for refused in each) == 80 - 30

    def test_a_limit_that_is_changed_begins_a_new_window(self, counting: Counter) -> None:
        assert left(counting(), cost=10) == 0
        assert left(counting(RATELIMIT_AUTHENTICATED="20 per minute")) == 19

    def test_the_clock_is_that_of_redis(self, counting: Counter) -> None:
        counter = counting()
        call(counter, cost=10)
        with time_machine.travel("2030-01-01T00:00Z"):
            assert call(counter).refused

    def test_a_clock_that_is_put_back_bans_nobody_for_longer_than_a_window(self, counting: Counter, client: Any) -> None:
        counter = counting()
        call(counter)
        [key] = client.keys("*:ana")
        client.lpush(key, *[(int(time.time()) + 86_400) * 1000] * 10)
        assert (call(counter).refused, call(counter).reset_s) == (True, 60)
        assert 0 < client.pttl(key) <= 60_000

    def test_every_key_ends_by_itself(self, counting: Counter, client: Any) -> None:
        counter = counting(RATELIMIT_GLOBAL="3 per minute")
        for _ in range(5):
            call(counter)
        keys = client.keys()
        assert len(keys) == 2
        assert all(0 < client.pttl(key) <= 60_000 for key in keys)


@contextmanager
def full(valkey: Valkey, client: Any) -> Iterator[None]:
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


@contextmanager
def read_only(valkey: Valkey, client: Any) -> Iterator[None]:
    client.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        client.replicaof("NO", "ONE")


@contextmanager
def frozen(valkey: Valkey, client: Any) -> Iterator[None]:
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(valkey.pid, signal.SIGCONT)


@contextmanager
def gone(valkey: Valkey, client: Any) -> Iterator[None]:
    valkey.stop()
    try:
        yield
    finally:
        valkey.start()


class TestWithoutRedis:
    @pytest.mark.parametrize("failure", [full, read_only, frozen, gone])
    def test_limits_go_on_in_the_process_and_are_shared_again_afterwards(
        self, counting: Counter, valkey: Valkey, client: Any, failure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "_AWAY_S", 0.05)
        one, other = counting(), counting()
        call(one, cost=4)
        with failure(valkey, client):
            assert [left(one, caller="ben", cost=cost) for cost in (9, 2, 1, 1)] == [1, None, 0, None]
        client.flushall()
        time.sleep(0.06)
        assert [left(one, cost=4), left(other, cost=4), left(one, cost=3)] == [6, 2, None]

    def test_a_script_that_redis_has_forgotten_is_told_again(self, counting: Counter, client: Any) -> None:
        one, other = counting(), counting()
        call(one, cost=4)
        client.script_flush()
        assert [left(one), left(other)] == [5, 4]

    def test_a_restart_that_cuts_the_connections_of_all_threads_is_not_noticed(
        self, counting: Counter, valkey: Valkey, client: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        counter, start = counting(), Barrier(4)

        def one(_: int) -> int:
            start.wait()
            return call(counter).remaining

        with ThreadPoolExecutor(4) as threads:
            assert sorted(threads.map(one, range(4))) == [6, 7, 8, 9]
            with gone(valkey, client):
                pass
            assert sorted(threads.map(one, range(4))) == [6, 7, 8, 9]
        assert left(counting()) == 5, "they were counted in the new one"
        assert not caplog.records

    def test_a_frozen_redis_makes_one_call_a_second_wait(
        self, counting: Counter, valkey: Valkey, client: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counter = counting()
        monkeypatch.setattr(limits, "_AWAY_S", 0.3)

        def took_s(_: int = 0) -> float:
            began = time.monotonic()
            call(counter)
            return time.monotonic() - began

        with frozen(valkey, client):
            assert took_s() >= 0.19
            time.sleep(0.31)
            waits = together(6, took_s)
        assert sum(wait >= 0.19 for wait in waits) == 1

    def test_each_change_is_a_line_in_the_log(
        self, counting: Counter, valkey: Valkey, client: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "_AWAY_S", 0.0)
        counter = counting()
        with caplog.at_level("INFO", logger="fleet.limits"):
            with full(valkey, client):
                for _ in range(3):
                    call(counter)
            for _ in range(3):
                call(counter)
        assert [line.message for line in caplog.records] == ["limits are counted in the process", "limits are shared again"]

    def test_memory_is_bounded_and_whoever_calls_now_is_remembered(
        self, counting: Counter, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(limits, "_REMEMBERED_CALLS", 100)
        counter = counting(REDIS_URL="redis://127.0.0.1:1/0", RATELIMIT_GLOBAL="1000 per minute")
        for number in range(1500):
            call(counter, f"{number}", tier=PUBLIC)
            ana = call(counter, "ana")
        local = counter._local
        assert ana.refused and ana.tier == AUTHENTICATED
        assert local._remembered == sum(map(len, local._times.values())) <= 100

    def test_one_who_is_forgotten_leaves_nothing_behind(self, counting: Counter) -> None:
        """Refused for everybody's sake, a new caller is not worth a line."""
        counter = counting(REDIS_URL="redis://127.0.0.1:1/0", RATELIMIT_GLOBAL="1 per minute")
        for number in range(50):
            call(counter, f"{number}")
        assert list(counter._local._times) == [key for key in counter._local._times if key.endswith(":0")]


def test_counting_is_done_by_many_threads_at_once(counting: Counter) -> None:
    """In the process too: no call is lost between looking and noting."""
    counter = counting(REDIS_URL="redis://127.0.0.1:1/0", RATELIMIT_AUTHENTICATED="200 per minute")
    call(counter)
    found = together(8, lambda _: [call(counter).refused for _ in range(100)])
    assert sum(not refused for each in found for refused in each) == 199
