"""How often one may call: the tiers, what a caller is told, and that no loss of Redis lifts a limit or breaks an answer."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from fleet.embedded import Valkey
from tests.cast import PASSWORD, Cast
from tests.freezing import frozen
from tests.security.conftest import AppWith

HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
STRICT = {
    "ratelimit_auth_strict": "5 per minute",
    "ratelimit_public": "10 per minute",
    "ratelimit_authenticated": "20 per minute",
    "ratelimit_global": "100000 per minute",
}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    """A Redis that these tests may stop."""
    directory = tmp_path_factory.mktemp("valkey")
    server = Valkey(directory / "valkey", owner=directory, port=None, durable=False)
    yield server
    server.stop()


@pytest.fixture
def limited(app_with: AppWith, redis: Valkey, crew: Cast) -> Callable[..., Flask]:
    """Makes applications with low limits, on a Redis that has counted nothing yet."""
    redis.stop()
    redis.start()
    return lambda **changes: app_with(**{**STRICT, "redis_url": redis.url, **changes})


def login(app: Flask, address: str = "203.0.113.1", email: str = "nobody@example.com") -> Any:
    body = {"email": email, "password": PASSWORD}
    return app.test_client().post("/v1/auth/login", json=body, environ_base={"REMOTE_ADDR": address})


def refresh(app: Flask, address: str = "203.0.113.1") -> Any:
    return app.test_client().post("/v1/auth/refresh", json={"refresh_token": "x"}, environ_base={"REMOTE_ADDR": address})


def statuses(call: Callable[[], Any], times: int) -> list[int]:
    return [call().status_code for _ in range(times)]


def is_too_many(answer: Any, limit: int) -> bool:
    assert (answer.status_code, answer.mimetype, answer.get_json()["code"]) == (429, "application/problem+json", "rate_limited")
    assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == (str(limit), "0")
    assert 1 <= int(answer.headers["Retry-After"]) <= 61
    assert answer.headers["RateLimit-Reset"] == answer.headers["Retry-After"]
    return True


class TestTiers:
    def test_sign_ins_are_counted_strictly_for_each_address(self, limited: Callable[..., Flask]) -> None:
        app = limited()
        assert statuses(lambda: login(app), 5) == [401] * 5
        assert is_too_many(login(app), 5)
        assert login(app, "203.0.113.2").status_code == 401

    def test_another_account_does_not_give_the_address_another_try(self, limited: Callable[..., Flask]) -> None:
        app = limited()
        for number in range(5):
            login(app, email=f"nobody-{number}@example.com")
        assert is_too_many(login(app, email="somebody-else@example.com"), 5)

    def test_a_header_does_not_give_the_address_another_try(self, limited: Callable[..., Flask]) -> None:
        app = limited()
        for number in range(6):
            answer = app.test_client().post(
                "/v1/auth/login",
                json={"email": "nobody@example.com", "password": PASSWORD},
                headers={"X-Forwarded-For": f"1.2.3.{number}", "Forwarded": f"for=1.2.3.{number}"},
            )
        assert is_too_many(answer, 5)

    def test_registering_and_passwords_count_as_sign_ins_do(self, limited: Callable[..., Flask], crew: Cast) -> None:
        app = limited()
        client = app.test_client()
        statuses(lambda: client.post("/v1/auth/register", json={}), 3)
        statuses(lambda: client.post("/v1/auth/password", json={}, headers=crew.ana.headers), 2)
        assert is_too_many(client.post("/v1/auth/register", json={}), 5)
        assert is_too_many(client.post("/v1/auth/password", json={}, headers=crew.ana.headers), 5)

    def test_a_refresh_counts_as_public(self, limited: Callable[..., Flask]) -> None:
        app = limited()
        assert statuses(lambda: refresh(app), 10) == [401] * 10
        assert is_too_many(refresh(app), 10)

    def test_users_are_counted_one_by_one_wherever_they_are(self, limited: Callable[..., Flask], crew: Cast) -> None:
        client = limited().test_client()
        ana, ben = crew.ana.headers, crew.ben.headers
        assert statuses(lambda: client.get("/v1/branches", headers=ana), 20) == [200] * 20
        assert is_too_many(client.get("/v1/vehicles", headers=ana, environ_base={"REMOTE_ADDR": "203.0.113.7"}), 20)
        assert client.get("/v1/branches", headers=ben).status_code == 200

    def test_a_limit_so_high_that_it_is_counted_by_handfuls_lets_no_more_through(
        self, limited: Callable[..., Flask], crew: Cast
    ) -> None:
        client = limited(ratelimit_authenticated="300 per hour").test_client()
        ana = crew.ana.headers
        assert statuses(lambda: client.get("/v1/branches", headers=ana), 300) == [200] * 300
        assert client.get("/v1/branches", headers=ana).status_code == 429

    def test_a_refusal_counts_like_any_answer(self, limited: Callable[..., Flask], crew: Cast) -> None:
        client = limited().test_client()
        ana = crew.ana.headers
        statuses(lambda: client.get("/v1/users", headers=ana), 10)
        statuses(lambda: client.post("/v1/branches", data=b"{", headers=ana, content_type="application/json"), 10)
        assert is_too_many(client.get("/v1/branches", headers=ana), 20)

    def test_wrong_credentials_are_counted_for_the_address(self, limited: Callable[..., Flask]) -> None:
        client = limited().test_client()
        guesses = iter(f"Bearer flt_{number}" for number in range(100))
        assert statuses(lambda: client.get("/v1/branches", headers={"Authorization": next(guesses)}), 10) == [401] * 10
        assert is_too_many(client.get("/v1/branches", headers={"Authorization": next(guesses)}), 10)

    def test_an_answer_says_where_the_caller_stands(self, limited: Callable[..., Flask], crew: Cast) -> None:
        client = limited().test_client()
        seen = [client.get("/v1/branches", headers=crew.ana.headers).headers for _ in range(3)]
        assert [headers["RateLimit-Remaining"] for headers in seen] == ["19", "18", "17"]
        assert all(headers["RateLimit-Limit"] == "20" and 1 <= int(headers["RateLimit-Reset"]) <= 61 for headers in seen)
        assert not any("Retry-After" in headers for headers in seen)

    def test_probes_are_never_refused(self, limited: Callable[..., Flask]) -> None:
        client = limited().test_client()
        assert statuses(lambda: client.get("/health/live"), 30) == [200] * 30

    def test_the_safety_net_holds_for_everybody_together(self, limited: Callable[..., Flask], crew: Cast) -> None:
        client = limited(ratelimit_global="10 per minute").test_client()
        people = [crew.ana, crew.ben, crew.agent, crew.mechanic]
        found = [client.get("/v1/branches", headers=person.headers).status_code for person in people * 5]
        assert found == [200] * 10 + [429] * 10

    def test_limits_can_be_switched_off_for_load_tests(self, limited: Callable[..., Flask], crew: Cast) -> None:
        client = limited(ratelimit_enabled=False).test_client()
        answers = [client.get("/v1/branches", headers=crew.ana.headers) for _ in range(25)]
        assert {answer.status_code for answer in answers} == {200}
        assert not set(HEADERS) & set(answers[0].headers.keys())


class TestSharing:
    def test_two_instances_count_together(self, limited: Callable[..., Flask]) -> None:
        one, other = limited(), limited()
        assert statuses(lambda: login(one), 3) + statuses(lambda: login(other), 2) == [401] * 5
        assert is_too_many(login(one), 5)
        assert is_too_many(login(other), 5)


class TestWithoutRedis:
    def test_limits_go_on_in_the_process(self, limited: Callable[..., Flask], redis: Valkey) -> None:
        app = limited()
        assert login(app).status_code == 401
        redis.stop()
        assert statuses(lambda: login(app), 5) == [401] * 5
        assert is_too_many(login(app), 5)
        assert statuses(lambda: refresh(app), 10) == [401] * 10
        assert is_too_many(refresh(app), 10)

    def test_a_process_that_starts_without_redis_serves_and_limits(
        self, limited: Callable[..., Flask], redis: Valkey, crew: Cast
    ) -> None:
        redis.stop()
        client = limited().test_client()
        assert statuses(lambda: client.get("/v1/branches", headers=crew.ana.headers), 20) == [200] * 20
        assert is_too_many(client.get("/v1/branches", headers=crew.ana.headers), 20)

    def test_no_answer_waits_long(self, limited: Callable[..., Flask], redis: Valkey, crew: Cast) -> None:
        client = limited(ratelimit_authenticated="1000 per minute").test_client()
        redis.stop()
        started = time.monotonic()
        assert statuses(lambda: client.get("/v1/branches", headers=crew.ana.headers), 50) == [200] * 50
        assert time.monotonic() - started < 5

    def test_a_redis_that_hangs_is_given_up_soon(self, limited: Callable[..., Flask], redis: Valkey, crew: Cast) -> None:
        client = limited(ratelimit_authenticated="1000 per minute").test_client()
        assert client.get("/v1/branches", headers=crew.ana.headers).status_code == 200
        with frozen(redis):
            started = time.monotonic()
            assert statuses(lambda: client.get("/v1/branches", headers=crew.ana.headers), 20) == [200] * 20
            assert time.monotonic() - started < 5

    def test_counting_is_shared_again_when_redis_is_back(self, limited: Callable[..., Flask], redis: Valkey) -> None:
        one, other = limited(), limited()
        redis.stop()
        assert login(one).status_code == 401
        redis.start()
        time.sleep(1.1)
        assert statuses(lambda: login(one), 3) + statuses(lambda: login(other), 2) == [401] * 5
        assert is_too_many(login(one), 5)

    def test_the_service_is_degraded_and_ready(self, limited: Callable[..., Flask], redis: Valkey) -> None:
        client = limited().test_client()
        redis.stop()
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.get_json()["status"]) == (200, "degraded")

    def test_a_redis_that_refuses_writes_lifts_no_limit(self, limited: Callable[..., Flask], redis: Valkey) -> None:
        app = limited()
        with Redis.from_url(redis.url) as client:
            client.config_set("maxmemory", "1")
        assert statuses(lambda: login(app), 5) == [401] * 5
        assert is_too_many(login(app), 5)
