"""A page of rentals shows each as it is, though most of it was rendered for an earlier one."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fleet import rendering
from fleet.db import db
from tests.api.test_rentals import activated, rental_of
from tests.cast import Cast


def listed(cast: Cast) -> list[dict[str, Any]]:
    data: list[dict[str, Any]] = cast.agent.get("/v1/rentals").json["data"]
    return data


def is_shown_as_it_is(cast: Cast, path: str) -> None:
    assert listed(cast) == [cast.agent.get(path).json]


def test_whatever_happens_to_a_rental_shows_at_once(cast: Cast) -> None:
    path = activated(cast)
    seen = listed(cast)

    def now_differs() -> None:
        is_shown_as_it_is(cast, path)
        assert listed(cast) != seen[-1:]
        seen.extend(listed(cast))

    cast.agent.post(f"{path}/charges", {"type": "toll", "description": "A1", "amount": 300})
    now_differs()
    cast.agent.post(f"{path}/complete", {"end_odometer_km": 1200, "fuel_level_percent": 50}, key="back")
    now_differs()
    cast.agent.post(f"{path}/charges", {"type": "cleaning", "description": "Sand", "amount": 2500})
    now_differs()


def test_a_vehicle_and_a_customer_show_by_their_present_names(cast: Cast) -> None:
    path = rental_of(cast)
    listed(cast)
    db.execute_sql("UPDATE vehicle SET plate_number = 'NEW-1' WHERE id = %s", (cast.corolla,))
    assert listed(cast)[0]["vehicle"]["plate_number"] == "NEW-1"
    db.execute_sql("UPDATE customer SET last_name = 'Souza' WHERE id = %s", (cast.ana.customer_id,))
    assert listed(cast)[0]["customer"]["last_name"] == "Souza"
    is_shown_as_it_is(cast, path)


def test_a_rental_becomes_overdue_by_itself(cast: Cast) -> None:
    path = activated(cast)
    assert not listed(cast)[0]["overdue"]
    db.execute_sql("UPDATE rental SET end_at = now() + interval '0.2 seconds', start_at = now() - interval '1 day'")
    before = listed(cast)[0]
    db.execute_sql("SELECT pg_sleep(0.3)")
    after = listed(cast)[0]
    assert (before["overdue"], after["overdue"]) == (False, True)
    assert before["version"] == after["version"]
    is_shown_as_it_is(cast, path)


def test_what_reads_rows_that_are_newer_than_the_page_keeps_them_by_their_own_stamp() -> None:
    rendered = rendering.Rendered(dict)
    [shown] = rendered.rows(["a 1"], lambda _: [{"id": "a", "stamp": "a 2"}])
    assert rendered.rows(["a 2"], lambda _: []) == [shown], "it is kept"
    assert rendered.rows(["a 1"], lambda _: []) == [], "but not as the older one"


def test_rows_that_are_gone_by_the_time_they_are_read_are_left_out() -> None:
    rendered = rendering.Rendered(dict)
    assert [row["id"] for row in rendered.rows(["a 1", "b 1"], lambda _: [{"id": "b", "stamp": "b 1"}])] == ["b"]


def test_no_more_is_kept_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_MOST_KEPT", 10)
    rendered = rendering.Rendered(dict)

    def page(first: int) -> None:
        ids = [str(first + number) for number in range(7)]
        shown = rendered.rows([f"{id_} 1" for id_ in ids], lambda ids: [{"id": id_, "stamp": f"{id_} 1"} for id_ in ids])
        assert [row["id"] for row in shown] == ids

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(page, range(200)))
    assert len(rendered._kept) <= 10
