"""What nobody would write by hand: random bytes at the JSON reader, random texts at every filter and cursor (API4, API8).

A run of the tests takes a few examples of each; `make fuzz` takes as many as FUZZ_EXAMPLES says.
"""

import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from flask import Flask
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from fleet import openapi
from fleet.errors import BadRequest, FleetError
from fleet.parsing import MAX_DEPTH, MAX_INT, Input, PageQuery, Query, read_body, read_query, strict_json
from tests.cast import Cast
from tests.security.matrix_scenes import SCENES, Stage
from tests.security.test_matrix import send

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
TEXTS = st.text() | st.text(st.characters(max_codepoint=127)) | st.sampled_from(["\x00", "'", "%", "\u0661", "infinity", "NaN"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A JSON document into which somebody has written at some places."""
    raw = bytearray(json.dumps(draw(JSON), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(raw)))
        written = draw(st.binary(max_size=4) | st.sampled_from([b"[", b"\\u0000", b"1e999"]))
        raw[place : place + draw(st.integers(0, 2))] = written
    return bytes(raw)


@fuzzed
@given(st.binary() | broken())
@example(b"[" * (MAX_DEPTH + 2) + b"]" * (MAX_DEPTH + 2))
@example(b'{"a":1,"a":1}')
def test_what_is_read_can_be_stored_and_all_else_is_refused(raw: bytes) -> None:
    try:
        read = strict_json(raw)
    except BadRequest as refusal:
        assert refusal.code == "malformed_json"
        return
    assert strict_json(orjson.dumps(read)) == read
    assert read == json.loads(raw)
    assert bounded(read)


def bounded(node: Any, depth: int = 0) -> bool:
    """Whether PostgreSQL holds it: no NUL, no integer past int8, no number that is none, nothing too deep."""
    if isinstance(node, dict):
        return all(bounded(key) and bounded(value, depth + 1) for key, value in node.items())
    if isinstance(node, list):
        return all(bounded(value, depth + 1) for value in node)
    if isinstance(node, str):
        return "\x00" not in node
    return depth <= MAX_DEPTH + 1 and (isinstance(node, float) or node is None or abs(node) <= MAX_INT)


@pytest.fixture(scope="module")
def declared(app: Flask) -> dict[str, Any]:
    """(method, pattern, declaration) by operation id."""
    found = openapi.operations(app)
    return {rule.endpoint.replace(".", "_"): (method, rule.rule, item) for rule, method, item, _ in found}


def bodies(declared: dict[str, Any]) -> set[type[Input]]:
    return {item.body for _, _, item in declared.values() if item.body}


def names_of(model: type[Input] | type[Query]) -> list[str]:
    """The names of its fields as a client writes them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def refuses_at_most(read: Callable[[], Any]) -> bool:
    """Whether it reads, or refuses as one refuses input. Anything else that is raised would be a 500."""
    try:
        read()
    except FleetError as refusal:
        return refusal.status in {400, 422}
    return True


def test_every_filter_takes_any_text_or_refuses_it(declared: dict[str, Any]) -> None:
    queries = [item.query for _, _, item in declared.values() if item.query and item.query.model_fields]

    @fuzzed
    @given(st.sampled_from(queries), st.data())
    def asked(query: type[Query], data: st.DataObject) -> None:
        arguments = data.draw(st.lists(st.tuples(st.sampled_from(names_of(query)), TEXTS), max_size=4))
        assert refuses_at_most(lambda: read_query(query, arguments))

    asked()


def test_every_body_takes_any_object_or_refuses_it(declared: dict[str, Any]) -> None:
    found = sorted(bodies(declared), key=lambda body: body.__name__)

    @fuzzed
    @given(st.sampled_from(found), st.data())
    def sent(body: type[Input], data: st.DataObject) -> None:
        wanted = data.draw(st.dictionaries(st.sampled_from([*names_of(body), "unknown"]), JSON, max_size=6))
        assert refuses_at_most(lambda: read_body(body, json.dumps(wanted).encode()))

    sent()


LONG = 900_000
EVIL = ["4 ", "a@", "\u00e9", "09:00-"]


def test_no_validation_is_slow_whatever_is_sent(declared: dict[str, Any]) -> None:
    """A megabyte over all fields, of the signs that patterns and libraries stumble over."""
    for body in bodies(declared):
        names = names_of(body)
        for evil in EVIL:
            text = evil * (LONG // len(evil.encode()) // max(len(names), 1))
            raw = json.dumps(dict.fromkeys(names, text), ensure_ascii=False).encode()
            began = time.thread_time()
            assert refuses_at_most(partial(read_body, body, raw))
            assert time.thread_time() - began < 0.5, (body, evil)


def test_every_list_has_its_cap_and_takes_no_cursor_that_it_did_not_give(crew: Cast, declared: dict[str, Any]) -> None:
    stage, lists = Stage(crew, crew.ben, crew.admin), 0
    for name, (method, pattern, item) in declared.items():
        if item.query is not None and issubclass(item.query, PageQuery):
            ask = SCENES[name](stage) if name in SCENES else SCENES["cache_flush"](stage)
            given_ = f"{ask.query}&" if ask.query else ""
            for more, status in (("limit=200", 200), ("limit=201", 422), ("cursor=djEuAAAA", 400), ("limit=1&limit=1", 422)):
                ask.query, ask.body = given_ + more, None
                assert send(crew.app, crew.admin, (method, pattern, item), ask).status_code == status, (name, more)
            lists += 1
    assert lists >= 18
