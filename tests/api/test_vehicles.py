from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from fleet import clock
from fleet.db import db
from tests.cast import Cast, at, insert, iso
from tests.statements import counted

YARIS = {"plate_number": "CC-22-DD", "make": "Toyota", "model": "Yaris", "year": 2025, "daily_rate": 3900}
NOBODY = "01900000-0000-7000-8000-000000000000"
VIN = "WVWZZZ1JZ3W386752"


def block(cast: Cast, vehicle_id: Any, kind: str = "manual", days: int = 1, **values: Any) -> Any:
    """A day of the vehicle's calendar, from `days` days on."""
    start, end = at(days), at(days + 1)
    span = {"start_at": start, "end_at": end, "occupied": f"[{iso(start)},{iso(end)})"}
    return insert("vehicle_block", vehicle_id=vehicle_id, kind=kind, **{**span, **values})


def move(cast: Cast, vehicle_id: Any, status: str, **headers: str) -> Any:
    return cast.manager.post(f"/v1/vehicles/{vehicle_id}/status", {"status": status}, **headers)


def statuses(cast: Cast, vehicle_id: Any) -> Any:
    return cast.manager.get(f"/v1/vehicles/{vehicle_id}").json["status"]


# --- registering and changing -----------------------------------------------------------------------------------------


def test_a_manager_registers_a_vehicle_and_everybody_sees_it(cast: Cast) -> None:
    made = cast.manager.post("/v1/vehicles", {**YARIS, "branch_id": str(cast.lisbon), "class_id": str(cast.compact)})
    assert (made.status_code, made.headers["ETag"], made.json["status"]) == (201, '"1"', "in_service")
    assert {name: made.json[name] for name in YARIS} == YARIS
    assert cast.ana.get(made.headers["Location"]).json == made.json


def test_an_agent_neither_registers_nor_changes_nor_sells_vehicles(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}"
    assert cast.agent.post("/v1/vehicles", YARIS).json["code"] == "forbidden"
    assert cast.agent.patch(path, {"color": "red"}, version="1").json["code"] == "forbidden"
    assert cast.agent.delete(path, version="1").json["code"] == "forbidden"
    assert cast.agent.post(f"{path}/status", {"status": "sold"}).json["code"] == "forbidden"


def test_plates_and_vins_have_one_spelling(cast: Cast) -> None:
    made = cast.manager.post("/v1/vehicles", {**YARIS, "plate_number": "  cc 22\t dd ", "vin": f" {VIN.lower()}"})
    assert (made.json["plate_number"], made.json["vin"]) == ("CC 22 DD", VIN)
    again = cast.manager.post("/v1/vehicles", {**YARIS, "plate_number": "Cc 22 dD"})
    assert (again.status_code, again.json["code"]) == (409, "duplicate")
    twin = cast.manager.post("/v1/vehicles", {**YARIS, "plate_number": "OTHER", "vin": VIN})
    assert (twin.status_code, twin.json["code"]) == (409, "duplicate")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("plate_number", " "),
        ("plate_number", "A\u200bB"),
        ("vin", "WVWZZZ1JZ3W38675O"),
        ("year", 1899),
        ("year", clock.now().year + 3),
        ("year", "2025"),
        ("make", ""),
        ("passenger_capacity", 0),
        ("odometer_km", -1),
        ("daily_rate", 0),
        ("daily_rate", 39.5),
        ("currency", "EURO"),
        ("status", "sold"),
        ("class_id", NOBODY),
        ("branch_id", NOBODY),
        ("id", NOBODY),
        ("version", 3),
    ],
)
def test_what_a_vehicle_cannot_be_is_refused_by_field(cast: Cast, field: str, value: Any) -> None:
    refused = cast.manager.post("/v1/vehicles", {**YARIS, field: value})
    assert (refused.status_code, [error["field"] for error in refused.json["errors"]]) == (422, [field])


def test_next_year_s_models_can_be_registered(cast: Cast) -> None:
    assert cast.manager.post("/v1/vehicles", {**YARIS, "year": clock.now().year + 1}).status_code == 201


def test_a_vehicle_needs_a_rate_of_its_own_or_of_its_class(cast: Cast) -> None:
    unpriced = {name: value for name, value in YARIS.items() if name != "daily_rate"}
    refused = cast.manager.post("/v1/vehicles", unpriced)
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "daily_rate")
    free = insert("vehicle_class", code="FREE", name="Without a rate", currency="EUR")
    assert cast.manager.post("/v1/vehicles", {**unpriced, "class_id": str(free)}).status_code == 422
    priced = cast.manager.post("/v1/vehicles", {**unpriced, "class_id": str(cast.compact)})
    assert (priced.status_code, priced.json["daily_rate"]) == (201, None)
    path = priced.headers["Location"]
    assert cast.manager.patch(path, {"class_id": None}, version="1").json["errors"][0]["field"] == "daily_rate"
    assert cast.manager.patch(path, {"class_id": None, "daily_rate": 1}, version="1").status_code == 200


def test_a_vehicle_takes_the_currency_of_its_class_then_its_branch_then_the_house(cast: Cast) -> None:
    zurich = str(insert("branch", code="ZRH", name="Zürich", timezone="Europe/Zurich", currency="CHF"))
    homes = [{"branch_id": zurich, "class_id": str(cast.compact)}, {"branch_id": zurich}, {}]
    made = [cast.manager.post("/v1/vehicles", {**YARIS, "plate_number": f"P{i}", **home}) for i, home in enumerate(homes)]
    assert [vehicle.json["currency"] for vehicle in made] == ["EUR", "CHF", "USD"]


def test_a_vehicle_is_priced_in_the_currency_of_its_class(cast: Cast) -> None:
    refused = cast.manager.post("/v1/vehicles", {**YARIS, "class_id": str(cast.compact), "currency": "CHF"})
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "currency")
    refused = cast.manager.patch(f"/v1/vehicles/{cast.corolla}", {"currency": "CHF"}, version="1")
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "currency")
    swiss = insert("vehicle_class", code="SWISS", name="Swiss", currency="CHF", daily_rate=9000)
    refused = cast.manager.patch(f"/v1/vehicles/{cast.corolla}", {"class_id": str(swiss)}, version="1")
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "currency")
    moved = cast.manager.patch(f"/v1/vehicles/{cast.corolla}", {"class_id": str(swiss), "currency": "CHF"}, version="1")
    assert (moved.status_code, moved.json["currency"]) == (200, "CHF")


def test_two_edits_of_one_version_of_a_vehicle_do_not_bury_each_other(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}"
    assert cast.manager.patch(path, {"color": "red"}).json["code"] == "precondition_required"
    changed = cast.manager.patch(path, {"color": "red", "passenger_capacity": 5}, version="1")
    assert (changed.status_code, changed.json["color"], changed.headers["ETag"]) == (200, "red", '"2"')
    assert cast.manager.patch(path, {"color": "blue"}, version="1").json["code"] == "version_conflict"
    assert cast.manager.get(path).json["color"] == "red"
    assert cast.manager.get(path, If_None_Match='"2"').status_code == 304


@pytest.mark.parametrize("field", ["status", "odometer_km", "retired_at", "created_at"])
def test_status_and_odometer_are_not_edited_but_moved_and_read(cast: Cast, field: str) -> None:
    refused = cast.manager.patch(f"/v1/vehicles/{cast.corolla}", {field: 1}, version="1")
    assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")


def test_an_unknown_vehicle_is_not_found(cast: Cast) -> None:
    path = f"/v1/vehicles/{uuid4()}"
    assert cast.manager.get(path).status_code == 404
    assert cast.manager.patch(path, {"color": "red"}, version="1").status_code == 404
    assert cast.manager.delete(path, version="1").status_code == 404
    assert cast.manager.post(f"{path}/status", {"status": "sold"}).status_code == 404
    assert cast.manager.get(f"{path}/odometer-readings").status_code == 404
    assert cast.manager.post(f"{path}/odometer-readings", {"reading_km": 1}).status_code == 404


# --- lists ------------------------------------------------------------------------------------------------------------


def plates(cast: Cast, query: str) -> list[str]:
    answered = cast.ana.get(f"/v1/vehicles{query}")
    assert answered.status_code == 200, answered.json
    return [row["plate_number"] for row in answered.json["data"]]


def test_vehicles_are_listed_newest_first_page_by_page(cast: Cast) -> None:
    for number in range(4):
        cast.vehicle(plate_number=f"P{number}")
    seen, path = [], "/v1/vehicles?limit=2"
    while path:
        page = cast.ana.get(path)
        seen += [row["plate_number"] for row in page.json["data"]]
        path = page.headers["Link"].split(">")[0][1:] if "Link" in page.headers else ""
    assert seen == ["P3", "P2", "P1", "P0", "AA-11-BB"]


def test_vehicles_are_found_by_status_class_and_branch(cast: Cast) -> None:
    porto = insert("branch", code="OPO", name="Porto", timezone="Europe/Lisbon", currency="EUR")
    van = insert("vehicle_class", code="VAN", name="Van", currency="EUR", daily_rate=9000)
    cast.vehicle(plate_number="VAN", class_id=van)
    cast.vehicle(plate_number="PORTO", branch_id=porto)
    cast.vehicle(plate_number="OUT", status="out_of_service")
    assert plates(cast, f"?class_id={van}") == ["VAN"]
    assert plates(cast, f"?branch_id={porto}") == ["PORTO"]
    assert plates(cast, "?status=out_of_service") == ["OUT"]
    assert plates(cast, f"?status=in_service&class_id={cast.compact}&branch_id={cast.lisbon}") == ["AA-11-BB"]
    assert plates(cast, f"?class_id={uuid4()}") == []


@pytest.mark.parametrize("q", ["aa-11", "1-b", "TOYO", "rolla", VIN[3:9].lower(), "%20corolla%20"])
def test_vehicles_are_found_by_any_part_of_plate_vin_make_and_model(cast: Cast, q: str) -> None:
    cast.vehicle(plate_number="OTHER")
    db.execute_sql("UPDATE vehicle SET vin = %s WHERE id = %s", (VIN, cast.corolla))
    assert plates(cast, f"?q={q}") == ["AA-11-BB"]


@pytest.mark.parametrize(("q", "found"), [("%25", "50%"), ("_", "A_B"), ("%5C", "A\\C"), ("%25%25", "")])
def test_wildcards_in_a_search_stand_for_themselves(cast: Cast, q: str, found: str) -> None:
    for plate in ("50%", "A_B", "A\\C"):
        cast.vehicle(plate_number=plate)
    assert plates(cast, f"?q={q}") == ([found] if found else [])


@pytest.mark.parametrize("query", ["status=rented", "class_id=x", "q=" + "a" * 101, "retired=maybe", "color=red"])
def test_a_filter_that_makes_no_sense_is_refused(cast: Cast, query: str) -> None:
    assert cast.ana.get(f"/v1/vehicles?{query}").status_code == 422


def test_a_page_of_vehicles_takes_the_same_statements_whatever_its_length(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = counted(monkeypatch)
    counts = []
    cast.ana.known()
    for wanted in (3, 30):
        for _ in range(wanted):
            cast.vehicle()
        sent.clear()
        assert len(plates(cast, f"?limit={wanted}")) == wanted
        counts.append(len(sent))
    assert counts == [1, 1]


# --- the lifecycle ----------------------------------------------------------------------------------------------------


def test_a_vehicle_goes_out_of_service_and_back(cast: Cast) -> None:
    out = move(cast, cast.corolla, "out_of_service")
    assert (out.status_code, out.json["status"], out.headers["ETag"]) == (200, "out_of_service", '"2"')
    assert move(cast, cast.corolla, "in_service").json["status"] == "in_service"


@pytest.mark.parametrize(
    ("old", "new"),
    [("in_service", "in_service"), ("in_service", "onboarding"), ("onboarding", "sold"), ("sold", "in_service")],
)
def test_a_vehicle_does_not_leave_its_lifecycle(cast: Cast, old: str, new: str) -> None:
    vehicle_id = cast.vehicle(status=old)
    refused = move(cast, vehicle_id, new)
    assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
    assert statuses(cast, vehicle_id) == old


def test_a_move_honours_the_version_where_it_is_sent(cast: Cast) -> None:
    assert move(cast, cast.corolla, "out_of_service", version="9").json["code"] == "version_conflict"
    assert move(cast, cast.corolla, "out_of_service", version="1").status_code == 200


@pytest.mark.parametrize("end", ["sold", "written_off"])
def test_a_vehicle_is_not_sold_from_under_its_customers(cast: Cast, end: str) -> None:
    block_id = block(cast, cast.corolla)
    refused = move(cast, cast.corolla, end)
    assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
    assert move(cast, cast.corolla, "out_of_service").status_code == 200
    db.execute_sql("UPDATE vehicle_block SET live = false WHERE id = %s", (block_id,))
    assert move(cast, cast.corolla, end).json["status"] == end


def test_a_manual_block_that_is_over_stops_no_sale(cast: Cast) -> None:
    block(cast, cast.corolla, days=-3)
    assert move(cast, cast.corolla, "sold").status_code == 200


def test_a_mechanic_takes_a_vehicle_out_of_service(cast: Cast) -> None:
    moved = cast.mechanic.post(f"/v1/vehicles/{cast.corolla}/status", {"status": "out_of_service"})
    assert moved.status_code == 200


# --- leaving the fleet ------------------------------------------------------------------------------------------------


def test_a_vehicle_without_a_history_is_removed(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}"
    assert cast.manager.delete(path).json["code"] == "precondition_required"
    assert cast.manager.delete(path, version="2").json["code"] == "version_conflict"
    assert cast.manager.delete(path, version="1").status_code == 204
    assert cast.manager.get(path).status_code == 404


def test_a_vehicle_with_a_reading_is_retired_and_stays_visible_but_unlisted(cast: Cast) -> None:
    path = f"/v1/vehicles/{cast.corolla}"
    cast.manager.post(f"{path}/odometer-readings", {"reading_km": 100})
    assert cast.manager.delete(path, version="2").status_code == 204
    kept = cast.manager.get(path).json
    assert (kept["status"], kept["retired_at"] is None) == ("out_of_service", False)
    assert (plates(cast, ""), plates(cast, "?retired=true")) == ([], ["AA-11-BB"])
    assert cast.manager.delete(path, version="3").status_code == 204
    assert cast.manager.get(path).json == kept


def test_a_retired_vehicle_does_not_come_back_into_service(cast: Cast) -> None:
    cast.manager.post(f"/v1/vehicles/{cast.corolla}/odometer-readings", {"reading_km": 100})
    cast.manager.delete(f"/v1/vehicles/{cast.corolla}", version="2")
    assert move(cast, cast.corolla, "in_service").json["code"] == "invalid_state"
    assert move(cast, cast.corolla, "sold").json["status"] == "sold"


def test_a_vehicle_with_live_blocks_neither_goes_nor_retires(cast: Cast) -> None:
    block_id = block(cast, cast.corolla)
    refused = cast.manager.delete(f"/v1/vehicles/{cast.corolla}", version="1")
    assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
    db.execute_sql("UPDATE vehicle_block SET live = false WHERE id = %s", (block_id,))
    assert cast.manager.delete(f"/v1/vehicles/{cast.corolla}", version="1").status_code == 204
    assert statuses(cast, cast.corolla) == "out_of_service"


def test_a_vehicle_that_never_got_into_service_can_be_retired_too(cast: Cast) -> None:
    vehicle_id = cast.vehicle(status="onboarding")
    block(cast, vehicle_id, live=False)
    assert cast.manager.delete(f"/v1/vehicles/{vehicle_id}", version="1").status_code == 204
    assert statuses(cast, vehicle_id) == "onboarding"
    assert move(cast, vehicle_id, "in_service").json["code"] == "invalid_state"


# --- the odometer -----------------------------------------------------------------------------------------------------


def read_off(cast: Cast, km: int, **values: Any) -> Any:
    return cast.agent.post(f"/v1/vehicles/{cast.corolla}/odometer-readings", {"reading_km": km, **values})


def test_a_reading_moves_the_odometer_of_the_vehicle(cast: Cast) -> None:
    reading = read_off(cast, 12_500)
    assert (reading.status_code, reading.json["source"], reading.json["reading_km"]) == (201, "manual", 12_500)
    assert cast.agent.get(reading.headers["Location"]).json == reading.json
    vehicle = cast.ana.get(f"/v1/vehicles/{cast.corolla}").json
    assert (vehicle["odometer_km"], vehicle["version"]) == (12_500, 2)


def test_readings_never_fall_in_the_order_in_which_they_were_measured(cast: Cast) -> None:
    hours_ago = {hours: iso(clock.now() - timedelta(hours=hours)) for hours in (1, 2, 3, 4)}
    assert read_off(cast, 1000, measured_at=hours_ago[3]).status_code == 201
    assert read_off(cast, 2000, measured_at=hours_ago[1]).status_code == 201
    for km, hours in ((999, 2), (2001, 2), (1001, 4), (1999, 1)):
        refused = read_off(cast, km, measured_at=hours_ago[hours])
        assert (refused.status_code, refused.json["code"]) == (409, "odometer_out_of_sequence"), (km, hours)
    assert read_off(cast, 1500, measured_at=hours_ago[2]).status_code == 201
    assert cast.ana.get(f"/v1/vehicles/{cast.corolla}").json["odometer_km"] == 2000


def test_no_reading_is_below_what_the_vehicle_came_with(cast: Cast) -> None:
    made = cast.manager.post("/v1/vehicles", {**YARIS, "odometer_km": 30_000}).json
    path = f"/v1/vehicles/{made['id']}/odometer-readings"
    assert cast.agent.post(path, {"reading_km": 29_999}).json["code"] == "odometer_out_of_sequence"
    earlier = {"reading_km": 29_999, "measured_at": iso(clock.now() - timedelta(days=30))}
    assert cast.agent.post(path, earlier).status_code == 201
    assert cast.agent.post(path, {"reading_km": 30_001}).status_code == 201
    assert cast.ana.get(f"/v1/vehicles/{made['id']}").json["odometer_km"] == 30_001


def test_a_reading_is_not_from_the_future(cast: Cast) -> None:
    refused = read_off(cast, 10, measured_at=iso(clock.now() + timedelta(minutes=6)))
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "measured_at")
    assert read_off(cast, 10, measured_at=iso(clock.now() + timedelta(minutes=4))).status_code == 201
    assert read_off(cast, 10, measured_at="2026-01-01T10:00:00").json["errors"][0]["code"] == "offset_required"


def test_readings_are_listed_newest_first_to_staff_alone(cast: Cast) -> None:
    for km in (10, 20, 30):
        read_off(cast, km)
    path = f"/v1/vehicles/{cast.corolla}/odometer-readings"
    first = cast.mechanic.get(f"{path}?limit=2").json
    assert [reading["reading_km"] for reading in first["data"]] == [30, 20]
    second = cast.mechanic.get(f"{path}?limit=2&cursor={first['next_cursor']}").json
    assert ([reading["reading_km"] for reading in second["data"]], second["next_cursor"]) == ([10], None)
    assert cast.ana.get(path).json["code"] == "forbidden"
    assert cast.ana.post(path, {"reading_km": 40}).json["code"] == "forbidden"


def test_a_vehicle_without_readings_has_an_empty_list(cast: Cast) -> None:
    assert cast.agent.get(f"/v1/vehicles/{cast.corolla}/odometer-readings").json == {"data": [], "next_cursor": None}


def test_a_reading_of_another_vehicle_is_not_found(cast: Cast) -> None:
    reading = read_off(cast, 10).json
    assert cast.agent.get(f"/v1/vehicles/{cast.vehicle()}/odometer-readings/{reading['id']}").status_code == 404
