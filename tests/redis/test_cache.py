"""How the cache works: one who asks for many, what is renewed when, and that nothing old comes back."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import peewee
import pytest
from redis import Redis

from fleet import cache, config, metrics
from fleet.cache import NAMESPACES, PATIENCE_S, Cache, Namespace, names_of
from fleet.config import Settings
from fleet.db import db, transaction
from fleet.errors import NotFound
from fleet.redis_line import Script
from tests.freezing import frozen
from tests.redis.conftest import fill

THINGS = Namespace("things", ttl_s=30, grace_s=30)
SHAPE = "a shape"
CROWD = 500


def read(by: Cache, load: Callable[[], Any], *, key: str = "k", namespace: Namespace = THINGS, shape: str = SHAPE) -> Any:
    return by.get(namespace, key, load, shape)


def looks(outcome: str) -> float:
    return metrics.looks_of("things", outcome)._value.get()


class Source:
    """What the database would say, and how often it was asked."""

    def __init__(self, value: Any = 1, takes_s: float = 0.0) -> None:
        self.value, self.takes_s, self.asked = value, takes_s, 0

    def __call__(self) -> Any:
        self.asked += 1
        value = self.value
        time.sleep(self.takes_s)
        if isinstance(value, Exception):
            raise value
        return value


class TestOneForMany:
    def test_five_hundred_who_miss_at_once_in_two_processes_ask_once(
        self, own_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Five hundred threads starve each other, as the eight of a web process do not: test_stampede.py has real ones.
        monkeypatch.setattr(cache, "TIMEOUT_S", 10.0)
        monkeypatch.setattr(cache, "PATIENCE_S", 10.0)
        one, other = Cache(own_settings), Cache(own_settings)
        source, found = Source({"rate": 4500}, takes_s=0.1), Counter[int]()
        together, connecting = threading.Barrier(CROWD), threading.Semaphore(8)

        def miss(by: Cache) -> None:
            with connecting:  # the threads of a web process have been there before
                by._line.ask("PING")
            together.wait()
            found[read(by, source)["rate"]] += 1

        crowd = [threading.Thread(target=miss, args=(by,)) for by in (one, other) for _ in range(CROWD // 2)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        assert (source.asked, found) == (1, {4500: CROWD})

    def test_who_was_slow_to_renew_finds_what_was_renewed_meanwhile(self, one: Cache, other: Cache) -> None:
        """It found the value due, and takes the lease when that is free again."""
        lease = one._lease
        read(one, Source("old"), namespace=Namespace("things", ttl_s=0.001, grace_s=30))
        time.sleep(0.01)

        def slowly(look: Any) -> str | None:
            read(other, Source("renewed meanwhile"))
            return lease(look)

        one._lease = slowly  # type: ignore[method-assign]
        source = Source("not asked")
        assert (read(one, source), source.asked) == ("renewed meanwhile", 0)

    def test_a_hit_is_one_trip_to_redis_and_a_miss_two(self, one: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        read(one, Source())  # Redis knows the scripts from here on
        one.flush("*")
        trips: list[Any] = []
        exchange = one._line._exchange

        def counted(command: Sequence[Any]) -> Any:
            trips.append(command[0])
            return exchange(command)

        monkeypatch.setattr(one._line, "_exchange", counted)
        read(one, Source())
        missed = len(trips)
        read(one, Source())
        assert (missed, len(trips) - missed) == (2, 1)

    def test_nobody_waits_long_for_who_died_with_the_lease(self, one: Cache, client: Redis) -> None:
        client.set(names_of(THINGS, "k").lease, "of a dead one", px=cache.LEASE_MS)
        started = time.monotonic()
        assert read(one, Source()) == 1
        assert PATIENCE_S <= time.monotonic() - started < PATIENCE_S + 0.5
        assert client.get(names_of(THINGS, "k").value) is None

    def test_the_failure_of_one_is_not_that_of_the_others(self, one: Cache) -> None:
        """Whoever asks first may turn out to be signed out; those who waited ask for themselves."""
        first_is_in, go_on = threading.Event(), threading.Event()
        failures: list[BaseException] = []

        def refused() -> None:
            first_is_in.set()
            go_on.wait(5)
            raise PermissionError

        def first() -> None:
            try:
                read(one, refused)
            except PermissionError as error:
                failures.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        first_is_in.wait(5)
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(read(one, Source("mine"))))
        waiting.start()
        go_on.set()
        thread.join(5)
        waiting.join(5)
        assert (len(failures), found) == (1, ["mine"])

    def test_what_is_not_there_is_asked_for_each_time(self, one: Cache) -> None:
        missing = Source(NotFound())
        for _ in range(2):
            with pytest.raises(NotFound):
                read(one, missing)
        assert missing.asked == 2


class TestRenewal:
    def test_a_value_is_renewed_when_its_time_is_over(self, one: Cache) -> None:
        short = Namespace("things", ttl_s=0.05, grace_s=30)
        source, before = Source("old"), looks("refresh")
        read(one, source, namespace=short)
        time.sleep(0.06)
        source.value = "new"
        assert read(one, source, namespace=short) == "new"
        assert looks("refresh") == before + 1

    def test_one_renews_and_the_others_take_what_there_is(self, one: Cache, other: Cache) -> None:
        short = Namespace("things", ttl_s=0.05, grace_s=30)
        read(one, Source("old"), namespace=short)
        time.sleep(0.06)
        while_it_is_renewed: list[Any] = []

        def renew() -> str:
            while_it_is_renewed.append(read(other, Source("not asked"), namespace=short))
            return "new"

        assert read(one, renew, namespace=short) == "new"
        assert while_it_is_renewed == ["old"]

    def test_a_dear_value_is_renewed_early_and_a_cheap_one_is_not(self, one: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("random.uniform", lambda low, high: 1.0)
        monkeypatch.setattr("random.random", lambda: 1 - 1e-6)  # minus its logarithm: 13.8
        brief = Namespace("things", ttl_s=1, grace_s=30)
        for takes_s, asked in ((0.0, 1), (0.1, 2)):
            source, key = Source(takes_s=takes_s), f"takes {takes_s}"
            read(one, source, namespace=brief, key=key)
            read(one, source, namespace=brief, key=key)
            assert source.asked == asked

    def test_an_old_value_is_better_than_none_when_the_database_fails(self, one: Cache) -> None:
        short = Namespace("things", ttl_s=0.05, grace_s=30)
        read(one, Source("old"), namespace=short)
        time.sleep(0.06)
        before = looks("stale")
        assert read(one, Source(peewee.OperationalError("gone")), namespace=short) == "old"
        assert looks("stale") == before + 1
        assert read(one, Source("new"), namespace=short) == "new"

    def test_what_was_deleted_is_not_served_as_an_old_value(self, one: Cache, client: Redis) -> None:
        short = Namespace("things", ttl_s=0.05, grace_s=30)
        read(one, Source("old"), namespace=short)
        time.sleep(0.06)
        with pytest.raises(NotFound):
            read(one, Source(NotFound()), namespace=short)
        assert client.exists(*names_of(THINGS, "k")) == 0

    def test_lifetimes_differ_so_that_not_all_end_at_once(self, one: Cache, client: Redis) -> None:
        for number in range(20):
            read(one, Source(), key=f"{number}")
        ttls: list[Any] = [client.pttl(names_of(THINGS, f"{number}").value) for number in range(20)]
        assert all(56_000 < ttl <= 63_000 for ttl in ttls)
        assert max(ttls) - min(ttls) > 1000


class TestWhatIsStored:
    def test_a_value_of_another_release_is_not_taken(self, one: Cache) -> None:
        read(one, Source("of the release before"), shape="another")
        assert read(one, Source("ours")) == "ours"

    @pytest.mark.parametrize("garbage", [b"", b"x", b"null", b"[1]", b'["a shape",1]', b"\xff"])
    def test_what_makes_no_sense_is_not_taken(self, one: Cache, client: Redis, garbage: bytes) -> None:
        client.set(names_of(THINGS, "k").value, garbage)
        assert read(one, Source("ours")) == "ours"

    def test_what_is_too_large_is_not_stored(self, one: Cache, client: Redis) -> None:
        large = "x" * cache.MAX_VALUE_BYTES
        assert read(one, Source(large)) == large
        assert client.dbsize() == 0

    def test_every_namespace_can_be_chosen_in_the_settings(self) -> None:
        assert set(NAMESPACES) == set(config.CACHED)

    def test_within_a_transaction_the_database_answers_and_nothing_is_stored(
        self, one: Cache, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cache, "current", lambda: one)
        source = Source("committed")
        cache.get(cache.VEHICLES, "k", source, shape=SHAPE)
        source.value = "not committed"
        with transaction():
            db.one("SELECT 1")
            assert cache.get(cache.VEHICLES, "k", source, shape=SHAPE) == "not committed"
        assert cache.get(cache.VEHICLES, "k", source, shape=SHAPE) == "committed"


class TestInvalidation:
    def test_who_read_before_the_change_cannot_store_after_it(self, one: Cache, other: Cache) -> None:
        assert overtaken(one, other) == "new"

    def test_without_the_lease_the_old_value_would_come_back(
        self, one: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        careless = cache._GIVE_BACK.text.replace("if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end", "")
        monkeypatch.setattr(cache, "_GIVE_BACK", Script(careless))
        assert overtaken(one, other) == "old"

    def test_a_deletion_that_redis_did_not_take_is_made_up_for(
        self, one: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch, client: Redis
    ) -> None:
        source = Source("old")
        read(one, source)
        monkeypatch.setattr(one._line, "_exchange", broken)
        source.value = "new"
        one.forget(names_of(THINGS, "k"))
        assert read(one, source) == "new"  # whoever changed it
        monkeypatch.undo()
        one._deaf_until = 0.0
        read(one, Source(), key="anything")
        assert read(other, source) == "new"

    def test_who_finds_the_debts_paid_by_another_thread_does_not_take_redis_for_deaf(
        self, one: Cache, other: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add = cache._Debts.add

        def add_and_be_overtaken(debts: Any, names: Any) -> None:
            add(debts, names)
            one._pay()  # another thread, which has a change of its own

        source = Source("old")
        read(one, source)
        with monkeypatch.context() as patch:
            patch.setattr(cache._Debts, "add", add_and_be_overtaken)
            one.forget(names_of(THINGS, "another"))
        source.value = "new"
        one.forget(names_of(THINGS, "k"))
        assert read(other, source) == "new"

    def test_a_deletion_that_is_owed_twice_is_made_twice(self) -> None:
        debts = cache._Debts()
        debts.add(["k"])
        paid = debts.all()
        debts.add(["k"])
        debts.settle(paid)
        assert "k" in debts
        debts.settle(debts.all())
        assert not debts

    def test_debts_have_a_bound(self) -> None:
        debts = cache._Debts()
        debts.add([f"{number}" for number in range(cache._MOST_OWED + 10)])
        assert len(debts.all()) == cache._MOST_OWED
        assert "0" not in debts


class TestTheLine:
    def test_an_answer_that_was_broken_off_is_not_taken_for_the_next_one(
        self, one: Cache, client: Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A time limit may strike between question and answer."""
        client.mset({"a": "of a", "b": "of b"})
        assert one._line.ask("GET", "a") == b"of a"
        with monkeypatch.context() as patch:
            patch.setattr(one._line._connection, "read_response", broken_off)
            with pytest.raises(KeyboardInterrupt):
                one._line.ask("GET", "a")
        assert one._line.ask("GET", "b") == b"of b"

    def test_a_connection_that_was_closed_meanwhile_is_made_anew(self, one: Cache, client: Redis) -> None:
        read(one, Source())
        client.client_kill_filter(_type="normal", skipme=True)
        asked = looks("error")
        assert read(one, Source("not asked")) == 1
        assert looks("error") == asked


def overtaken(one: Cache, other: Cache) -> Any:
    """What is found after somebody read a row, was overtaken by its change, and went on."""
    source = Source("old")

    def slowly() -> Any:
        row = source()
        source.value = "new"  # and commits
        other.forget(names_of(THINGS, "k"))
        return row

    assert read(one, slowly) == "old"
    return read(other, source)


def broken(*_: Any) -> None:
    raise OSError("the network is away")


def broken_off(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


class TestRedisAway:
    """What each look costs, and that it answers. The whole service without Redis: test_failures.py."""

    def test_a_frozen_redis_costs_five_looks_a_moment_and_the_others_nothing(self, one: Cache, redis: Any) -> None:
        read(one, Source())
        with frozen(redis):
            started = time.monotonic()
            assert [read(one, Source("read")) for _ in range(50)] == ["read"] * 50
            assert time.monotonic() - started < 5 * cache.TIMEOUT_S + 0.5
        assert one.breaker_state == "open"

    def test_a_full_redis_still_serves_and_deletes(self, one: Cache, client: Redis) -> None:
        read(one, Source("kept"))
        fill(client)
        assert read(one, Source("not asked")) == "kept"
        assert [read(one, Source("read"), key="more") for _ in range(10)] == ["read"] * 10
        one.forget(names_of(THINGS, "k"))
        assert read(one, Source("new")) == "new"
        assert one.breaker_state == "closed"
