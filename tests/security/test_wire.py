"""Requests that no client library would send, over a socket to gunicorn as it is deployed."""

import socket
import sys
from collections.abc import Iterator

import orjson
import pytest
from flask import Flask

from fleet import openapi
from fleet.db import db
from fleet.embedded import MARK, Databases
from tests.cast import Cast
from tests.races.crowd import Instance
from tests.source import ROOT

PATH = "/v1/branches"


@pytest.fixture(scope="module")
def instance(
    app: Flask, environment: dict[str, str], databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Instance]:
    """One gunicorn before the tests' databases."""
    command = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", "wsgi:app"]
    mark = {MARK: databases.postgres.environment[MARK]}
    started = Instance(command, ROOT, {**environment, **mark}, tmp_path_factory.mktemp("instance"))
    try:
        started.await_ready()
        yield started
    finally:
        started.terminate()
        started.await_end()


class Answered:
    """What came back on the connection, until the server had no more to say."""

    def __init__(self, received: bytes) -> None:
        self.raw = received
        head, _, self.body = received.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1]) if head else 0
        self.head = head.decode("latin-1").lower()


def say(instance: Instance, request: bytes) -> Answered:
    """Send these bytes, and no more, and read all that comes back."""
    received = b""
    with socket.create_connection(("127.0.0.1", instance.port), timeout=15) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        while True:
            try:
                piece = client.recv(65536)
            except ConnectionResetError:
                break
            if not piece:
                break
            received += piece
    return Answered(received)


def request(method: str = "GET", target: str = "/health/live", body: bytes = b"", /, **headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def post(crew: Cast, body: bytes, **headers: str) -> bytes:
    return request("POST", PATH, body, Content_Type="application/json", **crew.manager.headers, **headers)


def branch(code: str) -> bytes:
    return orjson.dumps({"code": code, "name": "Wire", "timezone": "UTC", "currency": "EUR"})


def exists(code: str) -> bool:
    return db.one("SELECT 1 FROM branch WHERE code = %s", (code,)) is not None


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


def test_the_request_that_the_others_spoil_is_accepted(instance: Instance, crew: Cast) -> None:
    body = branch("WIRE")
    assert say(instance, post(crew, body, Content_Length=f"{len(body)}")).status == 201
    assert exists("WIRE")


@pytest.mark.parametrize("target", ["/health/live", "/nowhere", "/v1/branches", "/docs"])
def test_no_answer_names_its_server(instance: Instance, target: str) -> None:
    answer = say(instance, request("GET", target))
    assert answer.status in {200, 401, 404}
    for name in ("server:", "gunicorn", "werkzeug", "python"):
        assert name not in answer.head


@pytest.mark.parametrize("size", [1, 1024 * 1024, 3 * 1024 * 1024], ids=["short", "as long as may be", "too long"])
def test_a_chunked_body_is_refused_and_not_cut(instance: Instance, crew: Cast, size: int) -> None:
    answer = say(instance, post(crew, chunked(branch("CHUNK"), b" " * size), Transfer_Encoding="chunked"))
    assert (answer.status, orjson.loads(answer.body)["code"]) == (411, "length_required")
    assert not exists("CHUNK")


def test_a_body_over_the_cap_is_refused_before_it_came(instance: Instance, crew: Cast) -> None:
    answer = say(instance, post(crew, branch("LONG"), Content_Length=f"{10 * 1024**3}"))
    assert (answer.status, orjson.loads(answer.body)["code"]) == (413, "body_too_large")


def test_half_a_body_is_no_body(instance: Instance, crew: Cast) -> None:
    body = branch("HALF")
    answer = say(instance, post(crew, body, Content_Length=f"{len(body) + 10}"))
    assert answer.status in {0, 400}
    assert not exists("HALF")


SMUGGLED: dict[str, tuple[dict[str, str], bytes]] = {
    "a length and chunks": ({"Content_Length": "4", "Transfer_Encoding": "chunked"}, chunked(b"{}")),
    "two lengths": ({"Content_Length": "2", "content_length": "40"}, b"{}"),
    "a length list": ({"Content_Length": "2, 40"}, b"{}"),
    "a signed length": ({"Content_Length": "+2"}, b"{}"),
    "a negative length": ({"Content_Length": "-1"}, b""),
    "a length with an underscore": ({"Content_Length": "1_0"}, b"{}        "),
    "a length in hexadecimal": ({"Content_Length": "0x2"}, b"{}"),
    "a length in Latin-1 digits": ({"Content_Length": "\xb2"}, b"{}"),
    "chunks under another name": ({"Transfer_Encoding": "xchunked"}, chunked(b"{}")),
    "chunks twice": ({"Transfer_Encoding": "chunked, chunked"}, chunked(b"{}")),
    "a name with a space": ({"Transfer_Encoding ": "chunked", "Content_Length": "2"}, b"{}"),
    "a chunk size with a sign": ({"Transfer_Encoding": "chunked"}, b"+2\r\n{}\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize(("headers", "body"), SMUGGLED.values(), ids=SMUGGLED.keys())
def test_a_request_whose_end_is_in_doubt_is_refused(
    instance: Instance, crew: Cast, headers: dict[str, str], body: bytes
) -> None:
    second = b"DELETE /v1/branches/smuggled HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: second\r\n\r\n"
    answer = say(instance, post(crew, body + second, **headers).replace(b"Connection: close\r\n", b""))
    assert 400 <= answer.status < 500 or answer.status == 501
    assert b"second" not in answer.raw, "a part of the request was taken for another one"


STRANGE = {
    "no HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "nothing": b"\r\n\r\n",
    "an old version": b"GET /health/live\r\n\r\n",
    "a version to come": b"GET /health/live HTTP/9.9\r\nHost: a\r\n\r\n",
    "a small verb": b"get /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
    "a verb of signs": b"G(T /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in the path": b"GET /health/\x00live HTTP/1.1\r\nHost: a\r\n\r\n",
    "a NUL in a header": request(X_Thing="a\x00b"),
    "a bare line feed": b"GET /health/live HTTP/1.1\nHost: a\n\n",
    "a folded header": b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "a header without a colon": b"GET /health/live HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n",
    "a line too long": request("GET", "/" + "x" * 10_000),
    "a header too long": request(X_Thing="x" * 20_000),
    "a thousand headers": request(**{f"X_{number}": "1" for number in range(1000)}),
}


@pytest.mark.parametrize("sent", STRANGE.values(), ids=STRANGE.keys())
def test_what_is_no_request_is_refused_without_a_word_of_the_inside(instance: Instance, sent: bytes) -> None:
    answer = say(instance, sent)
    assert answer.status == 0 or (400 <= answer.status < 506 and answer.status != 500)
    for inside in (b"Traceback", b".py", b"gunicorn", b"Server:"):
        assert inside not in answer.raw
    if answer.status:
        assert is_problem(answer)
        problem = orjson.loads(answer.body)
        assert f"x-request-id: {problem['request_id']}" in answer.head
        assert f'"request_id": "{problem["request_id"]}"' in instance.said


SECRET = "eyJhbGciOiJFUzI1NiJ9.c2VjcmV0"
TELLING = {
    "a token before a control character": request(Authorization=f"Bearer {SECRET}\x01"),
    "a token on a line without a colon": request().replace(b"\r\n\r\n", f"\r\nAuthorization Bearer {SECRET}\r\n\r\n".encode()),
    "a token on a folded line": request().replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer\r\n {SECRET}\r\n\r\n".encode()),
    "a token in the name of a header": request().replace(b"\r\n\r\n", f"\r\n{SECRET} x: y\r\n\r\n".encode()),
    "a query with a control character": request("GET", f"/v1/customers?email={SECRET}\x01"),
    "a target with a blank": request("GET", f"/v1/customers?email={SECRET} x"),
    "a token for a verb": request(f"{SECRET}(", "/"),
    "a token for a version": request().replace(b"HTTP/1.1", f"HTTP/{SECRET}".encode()),
    "a token for an expectation": request(Expect=SECRET),
    "a token for a coding": request(Transfer_Encoding=SECRET),
}


@pytest.mark.parametrize("sent", TELLING.values(), ids=TELLING.keys())
def test_of_what_is_refused_nothing_is_logged_but_the_kind(instance: Instance, sent: bytes) -> None:
    answer = say(instance, sent)
    assert (answer.status, is_problem(answer)) == (400, True)
    said = instance.said
    line = next(line for line in said.splitlines() if orjson.loads(answer.body)["request_id"] in line)
    assert orjson.loads(line)["cause"]
    assert SECRET not in said and "Invalid request from" not in said


def is_problem(answer: Answered) -> bool:
    """Whether it is a refusal as the app itself would write it."""
    problem = orjson.loads(answer.body)
    assert (problem["status"], openapi.codes()[problem["code"]]) == (answer.status, answer.status)
    assert "content-type: application/problem+json" in answer.head
    assert "x-content-type-options: nosniff" in answer.head and "content-security-policy: default-src 'none'" in answer.head
    return True


def test_bytes_that_are_no_utf8_break_nothing(instance: Instance, crew: Cast) -> None:
    for target in ("/\xff\xfe", "/v1/branches?limit=\xff", "/v1/branches?\xed\xa0\x80=1"):
        answer = say(instance, request("GET", target, **crew.manager.headers))
        assert answer.status in {400, 404, 422} and is_problem(answer)


def test_a_header_with_an_underscore_does_not_stand_for_one_with_a_hyphen(instance: Instance, crew: Cast) -> None:
    body = branch("UNDER")
    sent = post(crew, body, Content_Length=f"{len(body)}").replace(b"Authorization:", b"Authorization_:")
    assert say(instance, sent.replace(b"Authorization_:", b"HTTP_AUTHORIZATION:")).status == 401
    sent = post(crew, body, Content_Length=f"{len(body)}").replace(b"Content-Type:", b"Content_Type:")
    assert say(instance, sent).status == 415


def test_an_absolute_target_is_the_same_path_and_reflects_nothing(instance: Instance) -> None:
    answer = say(instance, request("GET", "http://evil.example//v1//x"))
    assert answer.status == 404
    assert b"evil.example" not in answer.raw


def test_it_serves_after_all_of_this(instance: Instance) -> None:
    assert say(instance, request()).status == 200
