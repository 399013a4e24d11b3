"""Ways round: other hosts, other spellings of a path, other verbs, headers that proxies and frameworks obey."""

from typing import Any

import pytest
from flask import Flask

from fleet import openapi
from fleet.http import client_address
from tests.cast import Cast
from tests.security.conftest import AppWith

HOST = "api.example.com"


@pytest.fixture
def hosted(app_with: AppWith) -> Flask:
    """The service with a list of hosts that it answers to."""
    return app_with(trusted_hosts=(HOST, ".fleet.example"))


def asked_of(app: Flask, host: str, path: str = "/health/live", **headers: str) -> Any:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().get(path, headers={"Host": host, **sent})


class TestHosts:
    @pytest.mark.parametrize("host", [HOST, f"{HOST}:8443", "fleet.example", "eu.fleet.example"])
    def test_a_host_on_the_list_is_answered(self, hosted: Flask, host: str) -> None:
        assert asked_of(hosted, host).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.example", f"{HOST}.evil.example", f"evil.{HOST}", f"{HOST}@evil.example", f"evil.example#{HOST}", "", " ",
            f"{HOST}:abc", f"{HOST}/", "[::1", "a" * 300, "évil.example", "127.0.0.1", "localhost", f"{HOST}, evil.example",
            f"{HOST}\x00",
        ],
    )  # fmt: skip
    def test_another_host_is_refused_and_not_reflected(self, hosted: Flask, host: str) -> None:
        answer = asked_of(hosted, host.encode().decode("latin-1"))
        assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
        assert answer.json["code"] == "untrusted_host"
        assert "evil" not in answer.get_data(as_text=True) + str(answer.headers)

    def test_what_a_proxy_may_say_of_the_host_does_not_count(self, hosted: Flask) -> None:
        answer = asked_of(hosted, "evil.example", X_Forwarded_Host=HOST, Forwarded=f"host={HOST}", X_Original_Host=HOST)
        assert answer.status_code == 400
        assert asked_of(hosted, HOST, X_Forwarded_Host="evil.example").status_code == 200

    def test_without_a_list_any_host_is_answered_and_none_is_reflected(self, crew: Cast) -> None:
        crew.vehicle()
        for path in ("/v1/vehicles?limit=1", "/v1//x", "/openapi.json", "/docs"):
            answer = asked_of(crew.app, "evil.example", path, **crew.manager.headers)
            assert answer.status_code in {200, 404}
            assert "evil.example" not in answer.get_data(as_text=True) + str(answer.headers)

    @pytest.mark.parametrize("host", ["évil", "a" * 300, "[::1", "a b", "\x00", "-", "."])
    def test_a_host_that_is_none_breaks_nothing(self, app: Flask, host: str) -> None:
        assert asked_of(app, host.encode().decode("latin-1")).status_code in {200, 400, 404}


PATHS = [
    "//v1//branches", "//v1/branches", "/v1//branches", "/v1/branches/", "/v1/./branches", "/v1/../v1/branches", "/V1/branches",
    "/v1/Branches", "/v1/branches;x=1", "/v1/branches%00", "/v1/branches%2F", "/v1/branches.json",
    "//evil.example/%2e%2e", "/\\evil.example", "/v1/branches/%C0%AF", "/%ED%A0%80", "/" + "x" * 100_000, "/" + "x/" * 5000,
    "/docs/../v1/branches", "/docs/%2e%2e/%2e%2e/__init__.py", "/docs//etc/passwd", "/.env", "/console", "/static/x",
]  # fmt: skip


class TestPaths:
    @pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30])
    def test_another_spelling_of_a_path_is_not_found_and_leads_nowhere(self, crew: Cast, path: str) -> None:
        answer = crew.app.test_client().get(path, headers=crew.admin.headers)
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
        assert "Location" not in answer.headers

    @pytest.mark.parametrize("path", ["/v1%2Fbranches", "/%76%31/branches", "/v1/branche%73"])
    def test_an_escaped_path_has_the_guards_of_the_plain_one(self, crew: Cast, path: str) -> None:
        assert crew.app.test_client().get(path).status_code == 401

    @pytest.mark.parametrize("header", ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Prefix", "X-Script-Name"])
    def test_a_header_does_not_name_another_path(self, crew: Cast, header: str) -> None:
        answer = crew.ana.get("/v1/auth/me", **{header: "/v1/users"})
        assert answer.get_json()["user"]["email"] == crew.ana.email

    @pytest.mark.parametrize(
        "header", ["X-User-Id", "X-User-Roles", "X-Forwarded-User", "X-Remote-User", "X-Real-IP", "X-Client-Cert"]
    )
    def test_a_header_does_not_say_who_calls(self, crew: Cast, header: str) -> None:
        client = crew.app.test_client()
        assert client.get("/v1/users", headers={header: f"{crew.admin.user_id}"}).status_code == 401
        assert client.get("/v1/users", headers={header: "127.0.0.1"}).status_code == 401


class TestVerbs:
    @pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "PROPFIND", "FOO", "GETX", "DEBUG", "PURGE", "QUERY"])
    @pytest.mark.parametrize("path", ["/v1/branches", "/health/live", "/openapi.json"])
    def test_an_unknown_verb_is_refused(self, crew: Cast, method: str, path: str) -> None:
        answer = crew.app.test_client().open(path, method=method, headers={**crew.admin.headers, "X-Marker": "reflected"})
        assert (answer.status_code, answer.get_json()["code"]) == (405, "method_not_allowed")
        assert "GET" in answer.headers["Allow"]
        assert "reflected" not in answer.get_data(as_text=True)

    def test_every_path_says_which_verbs_it_takes(self, app: Flask) -> None:
        for rule, _, _, _ in openapi.operations(app):
            path = rule.rule.replace("<uuid:", "<").split("<")[0] + "".join(
                "01a2175a-3166-71f2-8520-7980a10af0f7" + part.partition(">")[2] for part in rule.rule.split("<")[1:]
            )
            answer = app.test_client().open(path, method="TRACE")
            assert (answer.status_code, answer.get_json()["code"]) == (405, "method_not_allowed"), path

    @pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "_method"])
    def test_a_header_does_not_change_the_verb(self, crew: Cast, header: str) -> None:
        spare = crew.vehicle()
        answer = crew.manager.post(f"/v1/vehicles/{spare}", {}, **{header: "DELETE", "If-Match": '"1"'})
        assert answer.status_code == 405
        assert crew.manager.get(f"/v1/vehicles/{spare}").status_code == 200

    def test_a_parameter_does_not_change_the_verb(self, crew: Cast) -> None:
        assert crew.manager.get(f"/v1/vehicles/{crew.corolla}?_method=DELETE").status_code == 422

    def test_head_asks_for_the_same_permission_as_get(self, crew: Cast) -> None:
        client = crew.app.test_client()
        assert client.head("/v1/users").status_code == 401
        assert client.head("/v1/users", headers=crew.ana.headers).status_code == 403
        shown = client.head(f"/v1/vehicles/{crew.corolla}", headers=crew.ana.headers)
        assert (shown.status_code, shown.get_data()) == (200, b"")


def address_of(app: Flask, forwarded: list[str], peer: str = "203.0.113.9") -> str:
    """Whom the service takes for the caller, when these X-Forwarded-For headers came from this peer."""
    headers = [("X-Forwarded-For", value) for value in forwarded]
    with app.test_request_context(headers=headers, environ_base={"REMOTE_ADDR": peer}):
        return client_address()


class TestAddresses:
    def test_without_proxies_the_client_cannot_choose_its_address(self, app: Flask) -> None:
        assert address_of(app, ["1.2.3.4"]) == "203.0.113.9"

    @pytest.mark.parametrize(
        ("hops", "forwarded", "seen"),
        [
            (1, ["1.2.3.4"], "1.2.3.4"),
            (1, ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
            (1, ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            (2, ["6.6.6.6, 1.2.3.4, 10.0.0.1"], "1.2.3.4"),
            (2, ["1.2.3.4"], "203.0.113.9"),
            (1, [], "203.0.113.9"),
            (1, [", ,"], "203.0.113.9"),
            (1, ["6.6.6.6,1.2.3.4,"], "1.2.3.4"),
        ],
    )
    def test_with_proxies_it_is_what_the_outermost_of_them_saw(
        self, app_with: AppWith, hops: int, forwarded: list[str], seen: str
    ) -> None:
        assert address_of(app_with(trusted_proxies=hops), forwarded) == seen

    def test_other_headers_name_no_address(self, app_with: AppWith) -> None:
        headers = {"X-Real-IP": "1.2.3.4", "Forwarded": "for=1.2.3.4", "X-Client-IP": "1.2.3.4", "True-Client-IP": "1.2.3.4"}
        app = app_with(trusted_proxies=1)
        with app.test_request_context(headers=headers, environ_base={"REMOTE_ADDR": "203.0.113.9"}):
            assert client_address() == "203.0.113.9"
