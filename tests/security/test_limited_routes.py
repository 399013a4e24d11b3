"""Which routes are limited, what each costs, and what one who has to wait is told."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from fleet import openapi
from fleet.config import ConfigError, Settings
from tests.cast import Cast
from tests.security.conftest import AppWith

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
# Everything else is refused to a caller who has used up their limit.
UNLIMITED = {
    "operations.health": "a balancer asks often, and must hear",
    "operations.live": "as above",
    "operations.ready": "as above",
    "operations.prometheus": "for who holds the token; without it it costs a comparison",
    "operations.openapi_document": "bytes that are kept",
    "operations.docs": "a page of text",
    "operations.docs_file": "files that ship with the service",
    "card_events.take": "Stripe sends many from few addresses, each with its signature",
}


@pytest.fixture
def spent(app_with: AppWith, crew: Cast) -> Callable[..., Any]:
    """Calls of callers who have used up their limits, with a credential (the admin's) or without; each app begins anew."""
    app = app_with(
        ratelimit_auth_strict="1 per hour",
        ratelimit_public="1 per hour",
        ratelimit_authenticated="1 per hour",
        redis_url="redis://127.0.0.1:1/0",
    )
    client = app.test_client()

    def call(method: str, path: str, *, known: bool) -> Any:
        return client.open(path, method=method, headers=crew.admin.headers if known else {})

    call("GET", "/v1/branches", known=True)
    call("GET", "/v1/branches", known=False)
    call("POST", "/v1/auth/login", known=False)
    return call


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """(endpoint, method, path) of every route, its variables filled in."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path = re.sub(r"<uuid:\w+>", f"{UUID(int=1)}", rule.rule)
            yield rule.endpoint, method, re.sub(r"<(\w+:)?\w+>", "x", path)


@pytest.mark.parametrize("known", [True, False], ids=["with a credential", "without one"])
def test_every_route_is_refused_to_who_has_used_up_their_limit(app: Flask, spent: Callable[..., Any], known: bool) -> None:
    found = {endpoint: spent(method, path, known=known) for endpoint, method, path in routes(app)}
    let_through = {endpoint for endpoint, answer in found.items() if answer.status_code != 429}
    assert let_through == UNLIMITED.keys()
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in found.values() if answer.status_code == 429)


def test_what_is_no_route_costs_no_more_than_the_count_would(spent: Callable[..., Any]) -> None:
    answers = [spent("GET", "/v1/nothing", known=True), spent("PUT", "/v1/branches", known=True)]
    assert [answer.status_code for answer in answers] == [404, 405]


class TestHints:
    def test_a_refusal_says_what_to_do_to_programs_and_to_people(self, spent: Callable[..., Any]) -> None:
        answer = spent("GET", "/v1/rentals", known=True)
        problem = answer.get_json()
        wait_s = int(answer.headers["Retry-After"])
        assert problem["code"] == "rate_limited" and problem["status"] == 429
        assert (problem["retry_after_s"], problem["tier"], problem["limit"], problem["cost"]) == (wait_s, "authenticated", 1, 1)
        assert problem["hint"] == f"That was a little too fast. Nothing was changed; please wait {wait_s} s and try again."
        assert problem["detail"] == f"This call counts as 1 and 0 of 1 are left; try again in {wait_s} s"

    @pytest.mark.parametrize(
        ("path", "tier", "words"),
        [("/v1/auth/login", "auth_strict", "Too many attempts"), ("/v1/auth/refresh", "public", "a little too fast")],
    )
    def test_the_words_are_those_of_the_limit(self, spent: Callable[..., Any], path: str, tier: str, words: str) -> None:
        problem = spent("POST", path, known=False).get_json()
        assert problem["tier"] == tier and words in problem["hint"]

    def test_who_waits_for_all_others_is_not_blamed(self, app_with: AppWith, crew: Cast) -> None:
        client = app_with(ratelimit_global="1 per hour", redis_url="redis://127.0.0.1:1/0").test_client()
        answers = [client.get("/v1/branches", headers=crew.ana.headers) for _ in range(2)]
        assert answers[1].get_json()["tier"] == "everybody"
        assert answers[1].get_json()["hint"].startswith("We are very busy right now.")

    def test_each_header_is_written_once(self, spent: Callable[..., Any]) -> None:
        names = [name for name, _ in spent("GET", "/v1/rentals", known=True).headers]
        for name in ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"):
            assert names.count(name) == 1


def test_of_ipv6_all_addresses_of_a_network_count_as_one(app_with: AppWith, crew: Cast) -> None:
    client = app_with(ratelimit_public="2 per hour", redis_url="redis://127.0.0.1:1/0").test_client()

    def unknown(address: str) -> int:
        return client.get("/v1/branches", environ_base={"REMOTE_ADDR": address}).status_code

    assert [unknown(f"2001:db8::{number}") for number in range(3)] == [401, 401, 429]
    assert unknown("2001:db8:0:1::1") == 401


class TestCosts:
    def test_a_heavy_call_costs_what_it_declares(self, app_with: AppWith, crew: Cast) -> None:
        client = app_with(ratelimit_authenticated="60 per hour", redis_url="redis://127.0.0.1:1/0").test_client()
        paths = ["/v1/branches", "/v1/reconciliation", "/v1/branches", "/v1/reconciliation", "/v1/branches"]
        answers = [client.get(path, headers=crew.admin.headers) for path in paths]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["59", "9", "8", "8", "7"]
        assert answers[3].get_json()["cost"] == 50

    def test_a_wrong_credential_costs_one_whatever_it_was_for(self, app_with: AppWith, crew: Cast) -> None:
        client = app_with(ratelimit_public="60 per hour", redis_url="redis://127.0.0.1:1/0").test_client()
        assert client.get("/v1/reconciliation").headers["RateLimit-Remaining"] == "59"

    def test_costs_are_changed_by_configuration(self, app_with: AppWith, crew: Cast) -> None:
        costs = "branches.index=7, ledger.reconcile=1"
        app = app_with(ratelimit_authenticated="60 per hour", ratelimit_costs=costs, redis_url="redis://127.0.0.1:1/0")
        answers = [app.test_client().get(path, headers=crew.admin.headers) for path in ("/v1/branches", "/v1/reconciliation")]
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["53", "52"]
        described = openapi.document(app)["paths"]["/v1/branches"]["get"]["x-rate-limit"]
        assert described == {"operation": "branches.index", "tier": "authenticated", "cost": 7}

    @pytest.mark.parametrize("name", ["branches.list", "branches", "operations.live"])
    def test_a_cost_for_what_is_not_limited_is_refused_at_the_start(self, app_with: AppWith, name: str) -> None:
        with pytest.raises(ConfigError, match=f"RATELIMIT_COSTS names no operation that is limited: {name}"):
            app_with(ratelimit_costs=f"branches.index=2,{name}=2")

    @pytest.mark.parametrize("costs", ["branches.index", "branches.index=0", "=3", "branches.index=101", "a=b"])
    def test_what_is_no_cost_is_refused_at_the_start(self, environment: dict[str, str], costs: str) -> None:
        with pytest.raises(ConfigError, match="RATELIMIT_COSTS must"):
            Settings.load({**environment, "RATELIMIT_COSTS": costs})

    def test_the_docs_show_what_costs_more(self, app: Flask) -> None:
        declared = {rule.endpoint: found.cost for rule, _, found, _ in openapi.operations(app) if found.cost > 1}
        shown = dict(re.findall(r"^\| `(\w+\.\w+)` \| (\d+) \|", PAGE.read_text(), re.M))
        assert {name: int(cost) for name, cost in shown.items()} == declared
