"""Query strings, paths and headers that are almost right, far too long, or not text at all."""

from typing import Any

import pytest

from fleet import http, paging
from fleet.db import db
from fleet.parsing import Query
from tests.cast import Cast, at, iso

LONE_SURROGATE = "%ED%A0%80"
OVERLONG = "x" * 100_000


def get(crew: Cast, target: str, **headers: str) -> Any:
    """What the manager gets for this target, which is sent as it stands."""
    path, _, query = target.partition("?")
    return crew.app.test_client().get(
        path,
        headers={**crew.manager.headers, **{name.replace("_", "-"): value for name, value in headers.items()}},
        environ_overrides={"QUERY_STRING": query.encode().decode("latin-1"), "RAW_URI": target},
    )


def refused(answer: Any, field: str, status: int = 422) -> bool:
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json"), answer.get_data()
    assert field in {item["field"] for item in answer.json["errors"]}
    return True


def test_nothing_that_a_query_says_of_people_or_of_secrets_is_kept_in_memory(crew: Cast) -> None:
    before = http._recent_query.cache_info().currsize, paging._without_cursor.cache_info().currsize
    targets = ("/v1/customers?q=Kept-Nowhere&limit=1", "/v1/auth/password-reset?token=kept-nowhere", "/v1/rentals?kept=nowhere")
    for target in targets:
        assert get(crew, target).status_code in {200, 422}
    assert (http._recent_query.cache_info().currsize, paging._without_cursor.cache_info().currsize) == before
    assert {model.__name__ for model in kinds(Query) if model.recurs} == {"RentalQuery"}, "with ids, states and times alone"


def kinds(model: type[Query]) -> list[type[Query]]:
    return [model, *(kind for below in model.__subclasses__() for kind in kinds(below))]


LIMITS = [
    "", "0", "-1", "+1", "201", "1e3", "1_0", "0x10", "1.0", "%201", "1%20", "1%00", "\u0661\u0660", "\uff11\uff10", "²",
    "NaN", "true", "null", "99999999999999999999", "9" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_is_plain_digits_from_1_to_200(crew: Cast, limit: str) -> None:
    assert refused(get(crew, f"/v1/branches?limit={limit}"), "limit")


@pytest.mark.parametrize("limit", ["1", "200", "050"])
def test_a_limit_within_bounds_is_taken(crew: Cast, limit: str) -> None:
    assert get(crew, f"/v1/branches?limit={limit}").status_code == 200


INSTANTS = [
    "10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59", "0000-01-01T00:00:00Z",
    "1999-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "infinity", "-infinity", "now", "today", "epoch", "1893456000",
    "2030-01-01", "2030-01-01T00:00:00", "2030-01-01T00:00Z", "2030-01-01 00:00:00Z", "2030-01-01T24:00:00Z",
    "2030-01-01T23:59:60Z", "2030-02-30T00:00:00Z", "2030-01-01T00:00:00%2B24:00", "2030-01-01T00:00:00%2B0100",
    "\u0662\u0660\u0663\u0660-01-01T00:00:00Z", "2030-01-01T00:00:00Z%00", "2030-01-01T00:00:00.Z", "%202030-01-01T00:00:00Z",
    "",
]  # fmt: skip


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_time_that_postgresql_would_poison_or_guess_is_refused(crew: Cast, instant: str) -> None:
    assert refused(get(crew, f"/v1/rentals?from={instant}"), "from")


@pytest.mark.parametrize("instant", INSTANTS)
def test_such_a_time_is_refused_in_a_body_too(crew: Cast, instant: str) -> None:
    sent = instant.replace("%2B", "+").replace("%20", " ").replace("%00", "")
    if sent == "2030-01-01T00:00:00Z":
        sent += " "
    wish = {"customer_id": str(crew.ana.customer_id), "vehicle_id": str(crew.corolla), "end_at": iso(at(2))}
    assert refused(crew.agent.post("/v1/rentals", {**wish, "start_at": sent}, key="poison"), "start_at")
    assert db.one("SELECT 1 FROM rental") is None


@pytest.mark.parametrize(
    "instant", ["2030-01-01T00:00:00Z", "2030-01-01t00:00:00z", "2030-06-01T02:00:00.123456%2B02:00", "2000-01-01T00:00:00Z"]
)
def test_an_rfc_3339_time_is_taken(crew: Cast, instant: str) -> None:
    assert get(crew, f"/v1/rentals?from={instant}").status_code == 200


IDS = [
    "1", "null", "%00", "' OR 1=1 --", "{01a2175a-3166-71f2-8520-7980a10af0f7}", "01a2175a316671f285207980a10af0f7",
    LONE_SURROGATE,
]  # fmt: skip


@pytest.mark.parametrize("value", IDS)
def test_an_id_that_is_none_is_refused_in_a_query_and_unknown_in_a_path(crew: Cast, value: str) -> None:
    assert refused(get(crew, f"/v1/rentals?vehicle_id={value}"), "vehicle_id")
    assert get(crew, f"/v1/rentals/{value}").status_code == 404


@pytest.mark.parametrize("field", ["cursor", "q", "status", "class_id"])
@pytest.mark.parametrize("value", ["a%00b", LONE_SURROGATE, OVERLONG, "%FF%FE", "'; DROP TABLE vehicle; --", "%25_%5C"])
def test_no_text_in_a_query_gets_further_than_a_refusal(crew: Cast, field: str, value: str) -> None:
    assert get(crew, f"/v1/vehicles?{field}={value}").status_code in {200, 400, 422}


def test_bytes_that_are_no_utf8_are_refused(crew: Cast) -> None:
    answer = crew.app.test_client().get(
        "/v1/vehicles", headers=crew.manager.headers, environ_overrides={"QUERY_STRING": "q=\xff\xed\xa0\x80"}
    )
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")


@pytest.mark.parametrize("query", ["status=held&status=active", "limit=1&limit=2", "customer_id=x&customer_id=x"])
def test_a_parameter_that_stands_twice_is_refused(crew: Cast, query: str) -> None:
    answer = get(crew, f"/v1/rentals?{query}")
    assert refused(answer, query.partition("=")[0])
    assert answer.json["errors"][0]["code"] == "repeated"


@pytest.mark.parametrize("name", ["page", "offset", "Limit", "limit[]", "access_token", "%00", LONE_SURROGATE, OVERLONG])
def test_an_unknown_parameter_is_refused(crew: Cast, name: str) -> None:
    answer = get(crew, f"/v1/branches?{name}=1")
    assert (answer.status_code, answer.json["code"]) == (422, "unknown_field")
    assert len(answer.get_data()) < 1000


def test_an_unknown_parameter_is_refused_where_none_is_taken(crew: Cast) -> None:
    assert get(crew, f"/v1/branches/{crew.lisbon}?expand=all").status_code == 422
    assert crew.manager.delete(f"/v1/branches/{crew.lisbon}?force=1", version="1").status_code == 422


def test_a_query_of_ten_thousand_parameters_is_refused(crew: Cast) -> None:
    answer = get(crew, "/v1/branches?" + "&".join(f"k{number}=1" for number in range(10_000)))
    assert (answer.status_code, answer.json["code"]) == (422, "unknown_field")


def test_a_token_in_the_query_opens_nothing(crew: Cast) -> None:
    for name in ("access_token", "token", "authorization", "api_key"):
        answer = crew.app.test_client().get("/v1/branches", query_string={name: crew.admin.token})
        assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthenticated")


STALE = [
    '"2"', "2", '"0"', '"-1"', '"1e0"', '"\xb9"', 'W/"1"', '"1", "2"', '""', "", "abc", '"' + "9" * 5000 + '"', '"1\xff"',
    "'1'",
]  # fmt: skip


@pytest.mark.parametrize("tag", STALE)
def test_an_if_match_that_is_not_the_version_changes_nothing(crew: Cast, tag: str) -> None:
    answer = crew.manager.patch(f"/v1/branches/{crew.lisbon}", {"name": "Stolen"}, If_Match=tag)
    assert (answer.status_code, answer.mimetype) == (412, "application/problem+json")
    assert db.one("SELECT name FROM branch WHERE id = %s", (crew.lisbon,)) == ("Lisbon Airport",)


@pytest.mark.parametrize("tag", ['"2"', "*garbage", '"' + "x" * 5000 + '"', "\xff\xfe", ""])
def test_an_if_none_match_of_something_else_shows_the_thing(crew: Cast, tag: str) -> None:
    assert get(crew, f"/v1/branches/{crew.lisbon}", If_None_Match=tag).status_code == 200


@pytest.mark.parametrize("tag", ['"1"', ' "1" ', 'W/"1"', '"7", "1"', "*"])
def test_an_if_none_match_of_the_version_saves_the_body(crew: Cast, tag: str) -> None:
    answer = get(crew, f"/v1/branches/{crew.lisbon}", If_None_Match=tag)
    assert (answer.status_code, answer.get_data(), answer.headers["ETag"]) == (304, b"", '"1"')


KEYS = ["", " ", "a b", "\xe9", "x" * 256, "tab\t", "\x7f", "clé"]


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-Idempotency-Key"])
@pytest.mark.parametrize("key", KEYS)
def test_an_idempotency_key_is_1_to_255_visible_ascii_characters(crew: Cast, key: str, header: str) -> None:
    sent = key.encode().decode("latin-1")
    answer = crew.manager.post("/v1/branches", BRANCH, **{header: sent})
    assert refused(answer, "Idempotency-Key")
    assert db.one("SELECT 1 FROM branch WHERE code = 'KEY'") is None


def test_the_longest_idempotency_key_is_taken(crew: Cast) -> None:
    assert crew.manager.post("/v1/branches", {**BRANCH, "code": "KEY255"}, Idempotency_Key="~" * 255).status_code == 201


BRANCH = {"code": "KEY", "name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR"}

CREDENTIALS = [
    "", "Bearer", "Bearer ", "Basic YWRtaW46YWRtaW4=", "bearer  x", "Bearer x y", "Bearer flt_", "Bearer flt_é",
    "Bearer \xff\xfe", "Bearer flt_\xff", "Bearer ..", "Bearer a.b.c", "Bearer " + "a" * 100_000,
    "Bearer flt_" + "a" * 100_000, "Bearer eyJhbGciOiJub25lIn0.e30.", "Token x", "Bearer\tx", "null",
]  # fmt: skip


@pytest.mark.parametrize("credential", CREDENTIALS, ids=lambda text: text[:20] or "none")
def test_credentials_that_are_none_open_nothing(crew: Cast, credential: str) -> None:
    headers = {"Authorization": credential.encode("utf-8").decode("latin-1")}
    answer = crew.app.test_client().get("/v1/branches", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
