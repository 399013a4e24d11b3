"""A cursor is good for one list, one filter and one reader, and nobody makes one but the service."""

import base64
import string
from collections.abc import Callable
from typing import Any

import pytest

from tests.cast import Cast, Person

ALPHABET = string.ascii_letters + string.digits + "-_="
LISTS = ["/v1/vehicles", "/v1/branches"]


@pytest.fixture(scope="module")
def many(crew: Cast) -> Cast:
    """More of everything than a page of one holds."""
    for _ in range(4):
        crew.vehicle()
    for number in range(3):
        body = {"code": f"CUR{number}", "name": "x", "timezone": "UTC", "currency": "EUR"}
        assert crew.manager.post("/v1/branches", body).status_code == 201
    return crew


def cursor_of(person: Person, path: str) -> str:
    cursor = person.get(path).get_json()["next_cursor"]
    assert isinstance(cursor, str)
    return cursor


def invalid(answer: Any) -> bool:
    assert (answer.status_code, answer.get_json().get("code")) == (400, "invalid_cursor"), answer.get_data()
    return True


@pytest.mark.parametrize("path", LISTS)
def test_pages_follow_each_other_without_gap_or_repetition(many: Cast, path: str) -> None:
    whole = [row["id"] for row in many.manager.get(f"{path}?limit=200").get_json()["data"]]
    seen, following = [], f"{path}?limit=1"
    while following:
        answer = many.manager.get(following)
        seen += [row["id"] for row in answer.get_json()["data"]]
        link = answer.headers.get("Link", "")
        following = link[1 : link.index(">")] if link else ""
    assert seen == whole == sorted(whole, reverse=True)


def test_a_cursor_goes_on_with_another_limit(many: Cast) -> None:
    cursor = cursor_of(many.manager, "/v1/vehicles?limit=1")
    assert len(many.manager.get(f"/v1/vehicles?limit=2&cursor={cursor}").get_json()["data"]) == 2


def test_a_cursor_with_any_character_changed_is_refused(many: Cast) -> None:
    cursor = cursor_of(many.manager, "/v1/vehicles?limit=1")
    for position, character in enumerate(cursor):
        # The last letters carry bits that decoders ignore: there, every other spelling is tried.
        for other in ALPHABET if position > len(cursor) - 4 else "AZaz09-_=":
            if other != character:
                changed = f"{cursor[:position]}{other}{cursor[position + 1 :]}"
                assert invalid(many.manager.get(f"/v1/vehicles?limit=1&cursor={changed}"))


CHANGES: list[Callable[[str], str]] = [
    lambda text: text[:-1],
    lambda text: text + "=",
    lambda text: text + "A",
    lambda text: "A" + text,
    lambda text: text.rstrip("="),
    lambda text: text.replace("=", "%0A="),
    lambda text: text.replace("-", "%2B").replace("_", "%2F") if {"-", "_"} & set(text) else "%2B" + text[1:],
    str.lower,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_cursor_cut_or_lengthened_is_refused(many: Cast, change: Any) -> None:
    cursor = cursor_of(many.manager, "/v1/vehicles?limit=1")
    assert invalid(many.manager.get(f"/v1/vehicles?cursor={change(cursor)}"))


GARBAGE = [
    "", "x", "====", "AAAA", "%00", "null", "é", "../..", "A" * 1024, base64.urlsafe_b64encode(b"\xff" * 32).decode(),
    "%ED%A0%80",
]  # fmt: skip


@pytest.mark.parametrize("cursor", GARBAGE)
def test_a_cursor_that_is_none_is_refused(many: Cast, cursor: str) -> None:
    answer = many.manager.get(f"/v1/vehicles?cursor={cursor}")
    assert answer.status_code in {400, 422}
    assert answer.get_json()["code"] in {"invalid_cursor", "validation_error"}


def test_a_cursor_does_not_move_to_another_list(many: Cast) -> None:
    cursor = cursor_of(many.manager, "/v1/vehicles?limit=1")
    for path in ("/v1/branches", "/v1/rentals", "/v1/customers", "/v1/vehicle-classes", "/v1/invoices"):
        assert invalid(many.manager.get(f"{path}?cursor={cursor}"))


def test_a_cursor_does_not_move_to_another_thing_of_its_kind(many: Cast) -> None:
    one, other = many.vehicle(), many.vehicle()
    for reading_km in (10, 20, 30):
        path = f"/v1/vehicles/{one}/odometer-readings"
        assert many.manager.post(path, {"reading_km": reading_km}).status_code == 201
    cursor = cursor_of(many.manager, f"/v1/vehicles/{one}/odometer-readings?limit=1")
    assert invalid(many.manager.get(f"/v1/vehicles/{other}/odometer-readings?cursor={cursor}"))


def test_a_cursor_does_not_move_to_another_filter(many: Cast) -> None:
    cursor = cursor_of(many.manager, f"/v1/vehicles?limit=1&class_id={many.compact}")
    assert invalid(many.manager.get(f"/v1/vehicles?cursor={cursor}"))
    assert invalid(many.manager.get(f"/v1/vehicles?cursor={cursor}&class_id={many.lisbon}"))
    assert invalid(many.manager.get(f"/v1/vehicles?cursor={cursor}&class_id={many.compact}&status=in_service"))
    assert many.manager.get(f"/v1/vehicles?cursor={cursor}&class_id={many.compact}").status_code == 200


def test_a_cursor_does_not_move_to_another_reader(many: Cast) -> None:
    cursor = cursor_of(many.manager, "/v1/vehicles?limit=1")
    for person in (many.admin, many.agent, many.ana):
        assert invalid(person.get(f"/v1/vehicles?cursor={cursor}"))


def test_a_next_page_has_the_filters_of_the_first(many: Cast) -> None:
    link = many.manager.get(f"/v1/vehicles?limit=1&class_id={many.compact}").headers["Link"]
    assert link.startswith("</v1/vehicles?") and link.endswith('>; rel="next"')
    assert f"class_id={many.compact}" in link and "limit=1" in link
