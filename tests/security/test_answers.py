"""What every answer carries, whatever was asked; and what none of them gives away."""

import json
import re
import socket
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import peewee
import pytest
from flask import Flask
from gunicorn.http.errors import LimitRequestLine

from deploy import answers
from fleet import openapi, problems
from fleet.db import db
from tests.cast import Cast
from tests.security.conftest import AppWith

ORIGIN = "https://console.example"
CSP = "default-src 'none'; frame-ancestors 'none'"

Ask = Callable[[Cast], Any]

# One answer of every kind: success, nothing to say, not changed, and each refusal.
ANSWERS: dict[int, Ask] = {
    200: lambda crew: crew.manager.get("/v1/branches"),
    201: lambda crew: crew.manager.post("/v1/branches", {"code": "HDR", "name": "H", "timezone": "UTC", "currency": "EUR"}),
    204: lambda crew: crew.manager.delete(f"/v1/vehicles/{crew.vehicle(plate_number='HD-RS')}", version="1"),
    304: lambda crew: crew.manager.get(f"/v1/branches/{crew.lisbon}", If_None_Match='"1"'),
    400: lambda crew: crew.manager.get("/v1/branches?cursor=x"),
    401: lambda crew: crew.app.test_client().get("/v1/branches"),
    403: lambda crew: crew.ana.get("/v1/users"),
    404: lambda crew: crew.ana.get("/nowhere"),
    405: lambda crew: crew.ana.put("/v1/branches"),
    409: lambda crew: crew.manager.delete(f"/v1/branches/{crew.lisbon}", version="1"),
    411: lambda crew: crew.manager.post("/v1/branches", None, Transfer_Encoding="chunked"),
    412: lambda crew: crew.manager.patch(f"/v1/branches/{crew.lisbon}", {"name": "x"}, version="9"),
    413: lambda crew: crew.manager.post("/v1/branches", {"name": "x" * 1024 * 1024}),
    415: lambda crew: crew.app.test_client().post("/v1/auth/login", data="x", content_type="text/plain"),
    422: lambda crew: crew.manager.get("/v1/branches?limit=0"),
    428: lambda crew: crew.manager.patch(f"/v1/branches/{crew.lisbon}", {"name": "x"}),
}


@pytest.fixture
def broken(crew: Cast, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The answer to a request in which something failed that nobody foresaw."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("password=hunter2 SELECT * FROM user_account at /srv/fleet/secret.py")

    token = crew.manager.headers
    monkeypatch.setattr(db, "_execute", fail)
    monkeypatch.setattr(db, "_run", fail)
    return crew.app.test_client().get("/v1/branches", headers=token)


@pytest.mark.parametrize("status", ANSWERS)
def test_every_answer_carries_the_security_headers(crew: Cast, status: int) -> None:
    answer = ANSWERS[status](crew)
    assert answer.status_code == status, answer.get_data()
    assert carries_security_headers(answer)
    assert "Strict-Transport-Security" not in answer.headers


def carries_security_headers(answer: Any) -> bool:
    headers = answer.headers
    assert (headers["X-Content-Type-Options"], headers["Referrer-Policy"]) == ("nosniff", "no-referrer")
    assert headers["Content-Security-Policy"] == CSP
    assert re.fullmatch(r"[0-9a-f]{32}", headers["X-Request-ID"])
    assert {"Server", "X-Powered-By"}.isdisjoint(headers.keys())
    return True


@pytest.mark.parametrize("status", [status for status in ANSWERS if status >= 400])
def test_every_refusal_is_a_problem_with_the_id_of_the_request(crew: Cast, status: int) -> None:
    answer = ANSWERS[status](crew)
    problem = answer.get_json()
    assert answer.mimetype == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id"} <= problem.keys()
    assert (problem["status"], problem["request_id"]) == (status, answer.headers["X-Request-ID"])
    assert openapi.codes()[problem["code"]] == status


@pytest.mark.parametrize("status", [200, 204, 304, 403, 404, 422])
def test_what_was_asked_with_credentials_is_stored_nowhere(crew: Cast, status: int) -> None:
    ask = ANSWERS[status] if status != 404 else lambda crew: crew.ana.get(f"/v1/rentals/{crew.corolla}")
    assert ask(crew).headers["Cache-Control"] == "no-store"


def test_production_asks_browsers_to_stay_with_https(app_with: AppWith) -> None:
    answer = app_with(env="production").test_client().get("/nowhere")
    assert answer.headers["Strict-Transport-Security"].startswith("max-age=31536000")


def test_what_gunicorn_refuses_itself_carries_the_same_headers(app_with: AppWith, monkeypatch: pytest.MonkeyPatch) -> None:
    app = app_with(env="production")
    monkeypatch.setattr(answers, "_HEADERS", {})
    answers.speak_for(app.extensions)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answers.refuse(None, None, ours, None, LimitRequestLine(5000, 4094))
        head = theirs.recv(65536).decode().partition("\r\n\r\n")[0]
    given = dict(line.split(": ", 1) for line in head.splitlines()[1:])
    assert given["Cache-Control"] == "no-store"
    assert set(app.test_client().get("/nowhere").headers.keys()) <= set(given)


def test_what_fails_outside_the_app_leaves_its_kind_and_its_place_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    asked = SimpleNamespace(method="GET", uri="/v1/customers?email=ana@example.org")
    ours, theirs = socket.socketpair()
    try:
        raise ValueError(asked.uri)
    except ValueError as error:
        with ours, theirs, caplog.at_level("WARNING", logger="gunicorn.error"):
            answers.refuse(None, asked, ours, ("192.0.2.7", 1), error)
            assert theirs.recv(65536).startswith(b"HTTP/1.1 500 ")
    [line] = caplog.records
    assert (line.__dict__["cause"], "test_answers.py" in line.__dict__["stack"][-1]) == ("ValueError", True)
    assert "192.0.2.7" not in f"{line.__dict__}" and "ana@" not in f"{line.__dict__}"


def test_an_unforeseen_failure_says_nothing_of_itself(broken: Any) -> None:
    assert (broken.status_code, broken.mimetype) == (500, "application/problem+json")
    assert broken.get_json()["code"] == "internal_error"
    assert carries_security_headers(broken)
    for inside in ("hunter2", "SELECT", "RuntimeError", "Traceback", ".py", "user_account"):
        assert inside not in broken.get_data(as_text=True)


class TestRequestIds:
    @pytest.mark.parametrize("sent", ["a", "Abc-123_4.5", "x" * 128])
    def test_a_good_id_is_kept(self, app: Flask, sent: str) -> None:
        answer = app.test_client().get("/nowhere", headers={"X-Request-ID": sent})
        assert answer.headers["X-Request-ID"] == answer.get_json()["request_id"] == sent

    @pytest.mark.parametrize(
        "sent",
        [
            "", "x" * 129, "a b", "a/b", "é", "\u0661", '"', "{}", "<script>", "a\tb", "a;b", "a,b", "%0d%0aX:x", "a\x00",
        ],
    )  # fmt: skip
    def test_another_is_replaced(self, app: Flask, sent: str) -> None:
        answer = app.test_client().get("/nowhere", headers={"X-Request-ID": sent.encode().decode("latin-1")})
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])

    def test_two_requests_have_two_ids(self, app: Flask) -> None:
        ids = {app.test_client().get("/nowhere").headers["X-Request-ID"] for _ in range(5)}
        assert len(ids) == 5


class TestCors:
    @pytest.fixture
    def shared(self, app_with: AppWith) -> Flask:
        return app_with(cors_origins=(ORIGIN, "http://localhost:3000"))

    @pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/v1/branches"])
    def test_an_origin_on_the_list_may_read_every_answer(self, shared: Flask, path: str) -> None:
        answer = shared.test_client().get(path, headers={"Origin": ORIGIN})
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "Origin" in answer.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in answer.headers
        exposed = {name.strip() for name in answer.headers["Access-Control-Expose-Headers"].split(",")}
        assert {"ETag", "Location", "Link", "Retry-After", "X-Request-ID"} <= exposed
        assert {"RateLimit-Remaining", "Idempotency-Replayed"} <= exposed

    @pytest.mark.parametrize(
        "origin",
        [
            "https://evil.example", f"{ORIGIN}.evil.example", f"{ORIGIN}/", f"{ORIGIN}:443", "http://console.example",
            "null", "*", "", "HTTPS://CONSOLE.EXAMPLE", "https://console.example https://evil.example", "file://",
        ],
    )  # fmt: skip
    def test_another_origin_is_told_nothing(self, shared: Flask, origin: str) -> None:
        for method in ("GET", "OPTIONS"):
            answer = shared.test_client().open("/v1/branches", method=method, headers={"Origin": origin})
            assert "Access-Control" not in str(answer.headers)
            assert "Origin" in answer.headers.get("Vary", ""), "a cache must not hand this answer to an origin of the list"

    def test_a_preflight_is_answered_without_credentials(self, shared: Flask) -> None:
        asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "if-match,authorization"}
        path = "/v1/branches/01a2175a-3166-71f2-8520-7980a10af0f7"
        answer = shared.test_client().options(path, headers={"Origin": ORIGIN, **asked})
        assert answer.status_code in {200, 204}
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        for name in ("authorization", "content-type", "if-match", "if-none-match", "idempotency-key", "x-request-id"):
            assert name in allowed

    def test_without_a_list_no_origin_is_allowed(self, app: Flask) -> None:
        for method in ("GET", "OPTIONS"):
            answer = app.test_client().open("/health/live", method=method, headers={"Origin": ORIGIN})
            assert "Access-Control" not in str(answer.headers)


class TestLogs:
    NASTY = ["\n{\"level\":\"ERROR\"}", "\r\nX: y", "\x1b[2J", "\x00", "é", "\u2028", '"', "\\", "%0a", "\xff\xfe", "a" * 5000]

    def lines(self, written: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in written.splitlines()]

    @pytest.mark.parametrize("nasty", NASTY, ids=lambda text: repr(text)[:20])
    def test_a_line_is_one_json_object_whatever_is_sent(
        self, app_with: AppWith, capsys: pytest.CaptureFixture[str], nasty: str
    ) -> None:
        app = app_with(log_level="INFO")
        sent = nasty.encode().decode("latin-1")
        header = sent.replace("\n", " ").replace("\r", " ")
        capsys.readouterr()
        app.test_client().get(
            "/v1/" + sent,
            headers={"X-Request-ID": header, "User-Agent": header, "traceparent": header, "Authorization": f"Bearer {header}"},
        )
        app.test_client().open("/v1/branches", method="FOO", query_string={"q": nasty}, headers={"X-Forwarded-For": header})
        written = capsys.readouterr()
        lines = self.lines(written.out)
        assert [line["message"] for line in lines] == ["request", "request"]
        assert [line["status"] for line in lines] == [404, 405]
        assert written.err == ""

    def test_a_line_names_what_helps_and_nothing_secret(
        self, app_with: AppWith, crew: Cast, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app = app_with(log_level="INFO")
        capsys.readouterr()
        token = crew.ana.token
        sent = {"Authorization": f"Bearer {token}", "X-Request-ID": "mine"}
        app.test_client().get(f"/v1/vehicles/{crew.corolla}", headers=sent)
        app.test_client().post("/v1/auth/login", json={"email": crew.ana.email, "password": "not the right one"})
        written = capsys.readouterr().out
        shown, refused = [line for line in self.lines(written) if line["message"] == "request"]
        said = (shown["request_id"], shown["method"], shown["operation"], shown["status"])
        assert said == ("mine", "GET", "vehicles.show", 200)
        assert shown["actor"] == f"user:{crew.ana.user_id}"
        assert refused["status"] == 401
        assert token not in written and "not the right one" not in written and crew.ana.email not in written

    def test_an_unforeseen_failure_is_one_line_too(
        self, app_with: AppWith, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app = app_with(log_level="INFO")
        monkeypatch.setitem(app.view_functions, "operations.live", lambda: 1 / 0)
        capsys.readouterr()
        assert app.test_client().get("/health/live").status_code == 500
        failure, request = self.lines(capsys.readouterr().out)
        assert (failure["message"], failure["request_id"]) == ("unexpected failure", request["request_id"])
        assert "ZeroDivisionError" in failure["exc_info"]

    def test_a_row_that_the_database_refuses_is_not_logged(
        self, app_with: AppWith, crew: Cast, capsys: pytest.CaptureFixture[str]
    ) -> None:
        app = app_with(log_level="INFO")
        capsys.readouterr()
        with app.test_request_context(), pytest.raises(peewee.IntegrityError) as refusal:
            crew.customer(first_name="Secretly", email="NOT-LOWER@EXAMPLE.COM")
        with app.test_request_context():
            assert problems.translate(refusal.value).status == 500
        [line] = self.lines(capsys.readouterr().out)
        assert (line["sqlstate"], line["table"], line["constraint"]) == ("23514", "customer", "customer_email_lower")
        assert "test_answers.py" in "".join(line["at"])
        assert "Secretly" not in f"{line}" and "NOT-LOWER" not in f"{line}"

    def test_half_a_surrogate_in_a_message_loses_no_line(self, app_with: AppWith, capsys: pytest.CaptureFixture[str]) -> None:
        app = app_with(log_level="INFO")
        capsys.readouterr()
        app.logger.error("half: %s", "\ud800", extra={"more": ["\udfff"]})
        written = capsys.readouterr()
        assert [line["level"] for line in self.lines(written.out)] == ["ERROR"]
        assert written.err == ""


class TestDocs:
    def test_the_docs_are_served_from_here_alone(self, app: Flask) -> None:
        page = app.test_client().get("/docs")
        assert page.status_code == 200
        assert "http://" not in page.text and "https://" not in page.text
        assert "unsafe-eval" not in page.headers["Content-Security-Policy"]
        for path in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            file = app.test_client().get(path)
            assert (file.status_code, file.headers["X-Content-Type-Options"]) == (200, "nosniff")
            file.close()

    @pytest.mark.parametrize("path", ["/docs", "/docs/start.js", "/docs/css/swagger-ui.css", "/openapi.json"])
    def test_the_docs_can_be_switched_off(self, app_with: AppWith, path: str) -> None:
        answer = app_with(docs_enabled=False, env="production").test_client().get(path)
        assert (answer.status_code, answer.get_json()["code"]) == (404, "not_found")
