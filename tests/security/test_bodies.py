"""Bodies that a plain Flask service accepts, cuts or falls over: all are refused, with a problem that has a code."""

import gzip
import itertools
import time
from typing import Any

import orjson
import pytest

from fleet.db import db
from fleet.parsing import MAX_BODY_BYTES
from tests.cast import Cast

PATH = "/v1/branches"
_numbers = itertools.count(1)


def branch(**fields: Any) -> dict[str, Any]:
    """A branch that would be accepted, under a code that no other has."""
    return {"code": f"B{next(_numbers):04d}", "name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR", **fields}


BRANCH = branch()


def send(crew: Cast, raw: bytes, content_type: str = "application/json", **headers: str) -> Any:
    return crew.app.test_client().post(
        PATH,
        data=raw,
        content_type=content_type,
        headers={**crew.manager.headers, **{name.replace("_", "-"): value for name, value in headers.items()}},
    )


def with_name(raw: bytes) -> bytes:
    """A branch whose name is this raw piece of JSON."""
    return orjson.dumps(branch(name="?")).replace(b'"?"', raw)


def problem(answer: Any, status: int, code: str) -> bool:
    assert answer.mimetype == "application/problem+json", answer.get_data()[:200]
    assert (answer.status_code, answer.json["status"], answer.json["code"]) == (status, status, code)
    return True


def test_the_branch_that_the_others_spoil_is_accepted(crew: Cast) -> None:
    assert send(crew, orjson.dumps(branch())).status_code == 201
    assert send(crew, with_name(b'"Porto \\u00e9\\ud83d\\ude97"')).json["name"] == "Porto é🚗"


MALFORMED = {
    "nothing": b"",
    "spaces": b"  ",
    "no JSON": b"code=OPO",
    "half an object": b'{"code":',
    "two documents": b"{}{}",
    "single quotes": b"{'code':'OPO'}",
    "a comment": b'{"code":"OPO"/**/}',
    "a trailing comma": b'{"code":"OPO",}',
    "NaN": b'{"a":NaN}',
    "Infinity": b'{"a":Infinity}',
    "-Infinity": b'{"a":-Infinity}',
    "1e400": b'{"a":1e400}',
    "-1e400": b'{"a":-1e400}',
    "an integer past int8": b'{"a":9223372036854775808}',
    "an integer below int8": b'{"a":-9223372036854775809}',
    "5000 digits": b'{"a":%s}' % (b"9" * 5000),
    "a leading zero": b'{"a":01}',
    "a number of a million digits": b'{"a":1.%s}' % (b"1" * 1_000_000),
    "100,000 [": b"[" * 100_000,
    "100,000 {": b'{"a":' * 100_000,
    "nesting of 40 lists": b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
    "a key twice": b'{"code":"A","code":"B"}',
    "a key twice, spelled differently": b'{"code":"A","c\\u006fde":"B"}',
    "a key twice, deep inside": b'{"a":[{"b":{"c":1,"c":1}}]}',
    "a byte order mark": b"\xef\xbb\xbf" + orjson.dumps(BRANCH),
    "UTF-16": orjson.dumps(BRANCH).decode().encode("utf-16"),
    "UTF-16 without a mark": orjson.dumps(BRANCH).decode().encode("utf-16-le"),
    "UTF-32": orjson.dumps(BRANCH).decode().encode("utf-32"),
    "Latin-1": with_name('"Óbidos"'.encode("latin-1")),
    "an overlong UTF-8 sequence": with_name(b'"\xc0\xaf"'),
    "a raw NUL": with_name(b'"a\x00b"'),
    "an escaped NUL": with_name(b'"a\\u0000b"'),
    "an escaped NUL in a key": b'{"a\\u0000":1}',
    "a high surrogate alone": with_name(b'"\\ud83d"'),
    "a low surrogate alone": with_name(b'"\\uDE97 x"'),
    "surrogates in the wrong order": with_name(b'"\\ude97\\ud83d"'),
    "a surrogate in UTF-8": with_name(b'"\xed\xa0\x80"'),
    "a surrogate in a key": b'{"\\ud83d":1}',
    "a surrogate deep inside": b'{"opening_hours":{"mon":["\\udfff"]}}',
    "a raw line break in a text": with_name(b'"a\nb"'),
    "50,000 keys": b"{" + b",".join(b'"k%d":1' % number for number in range(50_000)) + b"}",
    "300,000 elements": b'{"a":[' + b"0," * 300_000 + b"0]}",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_json_is_refused_at_once(crew: Cast, raw: bytes) -> None:
    started = time.thread_time()
    answer = send(crew, raw)
    assert problem(answer, 400, "malformed_json")
    assert time.thread_time() - started < 0.5


NO_OBJECTS = {"a list": b"[]", "null": b"null", "a text": b'"x"', "a number": b"1", "true": b"true", "objects": b"[{}]"}


@pytest.mark.parametrize("raw", NO_OBJECTS.values(), ids=NO_OBJECTS.keys())
def test_a_body_that_is_no_object_is_refused(crew: Cast, raw: bytes) -> None:
    assert problem(send(crew, raw), 422, "validation_error")


def test_a_backslash_before_u0000_is_text_like_any_other(crew: Cast) -> None:
    answer = send(crew, with_name(b'"a\\\\u0000 \\\\ud83d"'))
    assert (answer.status_code, answer.json.get("name")) == (201, "a\\u0000 \\ud83d")


WRONG_TYPES: dict[str, Any] = {
    "a number for a text": 1,
    "true for a text": True,
    "null for a text": None,
    "a list for a text": ["Porto"],
    "an object for a text": {"$ne": ""},
    "nothing but spaces": "   ",
    "a line break": "Por\nto",
    "an escape sequence of terminals": "\x1b[31m",
    "the right-to-left override": "a\u202eb",
    "201 characters": "x" * 201,
}


@pytest.mark.parametrize("name", WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_a_value_of_the_wrong_shape_is_named(crew: Cast, name: Any) -> None:
    answer = send(crew, orjson.dumps({**BRANCH, "name": name}))
    assert problem(answer, 422, "validation_error")
    assert [item["field"] for item in answer.json["errors"]] == ["name"]


@pytest.mark.parametrize("field", ["id", "version", "created_at", "updated_at", "__class__", "code ", "Code", ""])
def test_a_field_that_is_not_the_clients_is_refused(crew: Cast, field: str) -> None:
    answer = send(crew, orjson.dumps({**BRANCH, field: "x"}))
    assert problem(answer, 422, "unknown_field")
    assert [(item["field"], item["code"]) for item in answer.json["errors"]] == [(field, "unknown_field")]


def test_a_long_unknown_field_is_not_echoed_at_length(crew: Cast) -> None:
    answer = send(crew, orjson.dumps({"x" * 100_000: 1}))
    assert problem(answer, 422, "unknown_field")
    assert len(answer.get_data()) < 2000


def test_many_wrong_fields_are_not_all_told(crew: Cast) -> None:
    answer = send(crew, orjson.dumps({f"k{number}": number for number in range(900)}))
    assert problem(answer, 422, "unknown_field")
    assert len(answer.json["errors"]) == 50


MEDIA_TYPES = [
    "text/plain", "text/json", "application/vnd.api+json", "application/merge-patch+json", "application/xml",
    "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=utf-16",
    "application/json; charset=latin-1", "application/jsonp", "*/*", "",
]  # fmt: skip


@pytest.mark.parametrize("content_type", MEDIA_TYPES)
def test_another_media_type_is_refused(crew: Cast, content_type: str) -> None:
    assert problem(send(crew, orjson.dumps(BRANCH), content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json", "APPLICATION/JSON", 'application/json; charset="UTF-8"'])
def test_json_in_utf8_is_accepted_as_it_may_be_spelled(crew: Cast, content_type: str) -> None:
    assert send(crew, orjson.dumps(branch()), content_type).status_code == 201


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
def test_a_compressed_body_is_refused(crew: Cast, encoding: str) -> None:
    answer = send(crew, gzip.compress(orjson.dumps(BRANCH)), Content_Encoding=encoding)
    assert problem(answer, 415, "unsupported_media_type")


def test_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_not(crew: Cast) -> None:
    spaces = b" " * (MAX_BODY_BYTES - len(orjson.dumps(branch())))
    assert send(crew, orjson.dumps(branch()) + spaces).status_code == 201
    assert problem(send(crew, orjson.dumps(branch()) + spaces + b" "), 413, "body_too_large")


def test_a_chunked_body_is_refused_and_not_cut(crew: Cast) -> None:
    answer = crew.app.test_client().post(
        PATH,
        content_type="application/json",
        headers={**crew.manager.headers, "Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input": _Endless(orjson.dumps(branch(code="CHUNK"))), "wsgi.input_terminated": True},
    )
    assert problem(answer, 411, "length_required")
    assert db.one("SELECT 1 FROM branch WHERE code = 'CHUNK'") is None


def test_without_credentials_no_body_is_looked_at(crew: Cast) -> None:
    for raw in (b"[" * 100_000, b"x" * (MAX_BODY_BYTES + 1), b"\x00"):
        answer = crew.app.test_client().post(PATH, data=raw, content_type="application/json")
        assert problem(answer, 401, "unauthenticated")


def test_a_call_that_takes_no_body_refuses_one_with_content(crew: Cast) -> None:
    path = f"/v1/rentals/{crew.corolla}/confirm"
    assert problem(crew.agent.post(path, {"status": "reserved"}), 422, "unknown_field")
    assert problem(crew.agent.post(path, {}), 404, "not_found")


class _Endless:
    """What a server hands on for a chunked body: content and then as much as anybody reads."""

    def __init__(self, start: bytes) -> None:
        self.left = start

    def read(self, size: int = -1) -> bytes:
        given, self.left = self.left, b" " * 65536
        return given

    readline = read
