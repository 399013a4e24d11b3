"""A thread's connection to Redis: it waits no longer than it may, and never takes an old answer for a new one."""

import time

import pytest
from redis import ConnectionPool, TimeoutError

from fleet.embedded import Valkey
from fleet.redis_line import Line, Script
from tests.freezing import frozen

LIMIT_S = 0.2


@pytest.fixture
def line(redis: Valkey) -> Line:
    return Line(ConnectionPool.from_url(redis.url, socket_connect_timeout=LIMIT_S, socket_timeout=LIMIT_S))


def test_a_frozen_redis_costs_one_time_limit_and_leaves_no_answer_behind(line: Line, redis: Valkey) -> None:
    line.ask("SET", "a", "of a")
    with frozen(redis):
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            line.ask("GET", "a")
        assert LIMIT_S <= time.monotonic() - begun < 2 * LIMIT_S
    assert line.ask("GET", "b") is None


def test_what_is_more_than_redis_takes_in_while_it_stands_still_is_given_up(line: Line, redis: Valkey) -> None:
    line.ask("PING")
    with frozen(redis), pytest.raises(TimeoutError):
        line.ask("SET", "a", b"x" * 64 * 1024 * 1024)
    assert line.ask("GET", "a") is None


def test_a_script_is_sent_whole_where_redis_does_not_know_it(line: Line, redis: Valkey) -> None:
    script = Script("return {KEYS[1], ARGV[1]}")
    assert line.run(script, ("a",), 7) == [b"a", b"7"]
    redis.stop()
    redis.start()
    assert line.run(script, ("a",), 8) == [b"a", b"8"]
