from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import icalendar
import pytest

from fleet import clock
from fleet.db import db
from tests.cast import Cast, at, insert, iso
from tests.statements import counted


def span(start: datetime, end: datetime) -> dict[str, str]:
    return {"start_at": iso(start), "end_at": iso(end)}


def block(cast: Cast, start: datetime, end: datetime, **values: Any) -> Any:
    return cast.agent.post(f"/v1/vehicles/{cast.corolla}/blocks", {**span(start, end), **values})


def rental_block(cast: Cast, start: datetime, end: datetime) -> Any:
    """A reservation of the Corolla by Ana, as it stands in the calendar; returns the rental's id."""
    rental_id = insert(
        "rental", number=f"RNT-{uuid4()}", status="reserved", vehicle_id=cast.corolla, customer_id=cast.ana.customer_id,
        start_at=start, end_at=end, daily_rate=1, currency="EUR", base_amount=1, total_amount=1, terms={},
    )  # fmt: skip
    occupied = f"[{iso(start)},{iso(end + timedelta(hours=1))})"
    insert(
        "vehicle_block", vehicle_id=cast.corolla, kind="reservation", rental_id=rental_id, start_at=start, end_at=end,
        occupied=occupied,
    )  # fmt: skip
    return rental_id


def seen(cast: Cast, query: str = "", **headers: str) -> list[dict[str, Any]]:
    answered = cast.agent.get(f"/v1/vehicles/{cast.corolla}/calendar{query}", **headers)
    assert answered.status_code == 200, answered.json
    return list(answered.json["data"])


# --- manual blocks ----------------------------------------------------------------------------------------------------


def test_a_manual_block_takes_the_vehicle_s_time(cast: Cast) -> None:
    made = block(cast, at(1), at(2), reason="Waiting for a new windscreen")
    assert (made.status_code, made.json["kind"], made.json["live"]) == (201, "manual", True)
    assert made.json["start_at"] == iso(at(1))
    assert cast.agent.get(made.headers["Location"]).json == made.json
    assert seen(cast) == [made.json]
    refused = block(cast, at(1, hours=23), at(3))
    assert (refused.status_code, refused.json["code"]) == (409, "rental_overlap")


def test_blocks_that_touch_do_not_overlap(cast: Cast) -> None:
    assert block(cast, at(1), at(2)).status_code == 201
    assert block(cast, at(2), at(3)).status_code == 201
    assert block(cast, at(0), at(1)).status_code == 201


def test_a_manual_block_leaves_a_rental_its_turnaround_time(cast: Cast) -> None:
    rental_block(cast, at(1), at(2))
    assert block(cast, at(2), at(3)).json["code"] == "rental_overlap"
    assert block(cast, at(2, hours=1), at(3)).status_code == 201


@pytest.mark.parametrize(
    ("start", "end", "code"),
    [
        (2, 1, "period_empty"),
        (1, 1, "period_empty"),
        (1, 367, "period_too_long"),
        (-2, -1, "period_in_past"),
    ],
)
def test_a_block_that_makes_no_sense_is_refused(cast: Cast, start: int, end: int, code: str) -> None:
    refused = block(cast, at(start), at(end))
    assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, code)


def test_a_block_may_have_begun_already(cast: Cast) -> None:
    assert block(cast, at(-2), at(1)).status_code == 201


def test_a_vehicle_that_left_the_fleet_is_not_blocked(cast: Cast) -> None:
    db.execute_sql("UPDATE vehicle SET status = 'sold' WHERE id = %s", (cast.corolla,))
    refused = block(cast, at(1), at(2))
    assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")


def test_a_vehicle_out_of_service_can_be_blocked(cast: Cast) -> None:
    db.execute_sql("UPDATE vehicle SET status = 'out_of_service' WHERE id = %s", (cast.corolla,))
    assert block(cast, at(1), at(2)).status_code == 201


def test_removing_a_manual_block_frees_its_time_and_keeps_its_history(cast: Cast) -> None:
    path = block(cast, at(1), at(2)).headers["Location"]
    assert cast.mechanic.delete(path).status_code == 204
    assert cast.mechanic.delete(path).status_code == 204
    assert block(cast, at(1), at(2)).status_code == 201
    assert [(one["kind"], one["live"]) for one in seen(cast)] == [("manual", False), ("manual", True)]


def test_a_rental_s_block_is_not_removed_by_hand(cast: Cast) -> None:
    rental_block(cast, at(1), at(2))
    refused = cast.agent.delete(f"/v1/vehicles/{cast.corolla}/blocks/{seen(cast)[0]['id']}")
    assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
    assert seen(cast)[0]["live"]


def test_a_block_of_another_vehicle_is_not_found(cast: Cast) -> None:
    made = block(cast, at(1), at(2)).json
    path = f"/v1/vehicles/{cast.vehicle()}/blocks/{made['id']}"
    assert (cast.agent.get(path).status_code, cast.agent.delete(path).status_code) == (404, 404)
    assert seen(cast)[0]["live"]


def test_customers_neither_see_nor_make_blocks(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}"
    assert cast.ana.post(f"{path}/blocks", span(at(1), at(2))).json["code"] == "forbidden"
    assert cast.ana.get(f"{path}/calendar").json["code"] == "forbidden"
    assert cast.ana.get(f"{path}/calendar.ics").json["code"] == "forbidden"


def test_an_unknown_vehicle_has_no_calendar(cast: Cast) -> None:
    path = f"/v1/vehicles/{uuid4()}"
    assert cast.agent.post(f"{path}/blocks", span(at(1), at(2))).status_code == 404
    assert cast.agent.get(f"{path}/calendar").status_code == 404
    assert cast.agent.get(f"{path}/calendar.ics").status_code == 404


# --- the calendar -----------------------------------------------------------------------------------------------------


def test_a_calendar_shows_the_coming_thirty_days_in_the_order_of_time(cast: Cast) -> None:
    for day in (29, 3, 31, 1):
        block(cast, at(day), at(day, hours=2))
    insert(
        "vehicle_block", vehicle_id=cast.corolla, kind="manual", start_at=at(-3), end_at=at(-2),
        occupied=f"[{iso(at(-3))},{iso(at(-2))})", live=False,
    )  # fmt: skip
    assert [one["start_at"] for one in seen(cast)] == [iso(at(1)), iso(at(3)), iso(at(29))]
    assert [one["live"] for one in seen(cast, f"?from={iso(at(-5))}")] == [False, True, True]


def test_a_window_holds_what_reaches_into_it_and_not_what_only_touches_it(cast: Cast) -> None:
    for first, last in ((1, 2), (2, 3), (3, 4)):
        block(cast, at(first), at(last))
    inside = seen(cast, f"?from={iso(at(2))}&to={iso(at(3))}")
    assert [one["start_at"] for one in inside] == [iso(at(2))]
    assert len(seen(cast, f"?from={iso(at(1, hours=23))}&to={iso(at(3, hours=1))}")) == 3


@pytest.mark.parametrize(("first", "last"), [(1, 1), (2, 1), (0, 401)])
def test_a_window_is_forward_and_at_most_400_days(cast: Cast, first: int, last: int) -> None:
    path = f"/v1/vehicles/{cast.corolla}/calendar"
    for kind in ("", ".ics"):
        refused = cast.agent.get(f"{path}{kind}?from={iso(at(first))}&to={iso(at(last))}")
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "to")
    assert cast.agent.get(f"{path}?from={iso(at(0))}&to={iso(at(400))}").status_code == 200


def test_a_long_calendar_comes_in_pages_without_gaps(cast: Cast) -> None:
    for day in (5, 1, 4, 2, 3):
        block(cast, at(day), at(day, hours=2))
    found, path = [], f"/v1/vehicles/{cast.corolla}/calendar?limit=2&from={iso(at(0))}"
    while path:
        page = cast.agent.get(path)
        found += [one["start_at"] for one in page.json["data"]]
        path = page.headers["Link"].split(">")[0][1:] if "Link" in page.headers else ""
    assert found == [iso(at(day)) for day in (1, 2, 3, 4, 5)]


def test_which_rental_it_is_is_told_to_those_who_see_every_rental(cast: Cast) -> None:
    rental_id = rental_block(cast, at(1), at(2))
    assert seen(cast)[0]["rental_id"] == str(rental_id)
    as_mechanic = cast.mechanic.get(f"/v1/vehicles/{cast.corolla}/calendar").json["data"]
    assert [(one["kind"], one["rental_id"]) for one in as_mechanic] == [("reservation", None)]


def test_a_page_of_a_calendar_takes_the_same_statements_whatever_its_length(
    cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = counted(monkeypatch)
    counts = []
    for day in range(1, 31):
        block(cast, at(day), at(day, hours=2))
    for wanted in (3, 30):
        sent.clear()
        assert len(seen(cast, f"?limit={wanted}&to={iso(at(40))}")) == wanted
        counts.append(len(sent))
    assert counts == [1, 1]


def test_calendar_programs_read_what_occupies_the_vehicle(cast: Cast) -> None:
    block(cast, at(1), at(2), reason="Windscreen; left, cracked")
    gone = block(cast, at(3), at(4)).headers["Location"]
    cast.agent.delete(gone)
    rental_block(cast, at(5), at(6))
    answered = cast.agent.get(f"/v1/vehicles/{cast.corolla}/calendar.ics")
    assert answered.content_type == "text/calendar; charset=utf-8"
    events = icalendar.Calendar.from_ical(answered.get_data(as_text=True)).walk("VEVENT")
    assert [(str(one["summary"]), one.decoded("dtstart"), one.decoded("dtend")) for one in events] == [
        ("Manual", at(1), at(2)),
        ("Reservation", at(5), at(6)),
    ]
    assert str(events[0]["description"]) == "Windscreen; left, cracked"
    assert "Ana" not in answered.get_data(as_text=True)


def test_a_feed_is_the_same_each_time_it_is_fetched(cast: Cast) -> None:
    block(cast, at(1), at(2))
    path = f"/v1/vehicles/{cast.corolla}/calendar.ics?from={iso(clock.now().replace(microsecond=0))}"
    assert cast.agent.get(path).data == cast.agent.get(path).data
