from tests.cast import Cast

VAN = {"code": "VAN", "name": "Van", "daily_rate": 9900, "currency": "EUR", "turnaround_after_minutes": 90}


def test_a_manager_makes_a_class_and_everybody_sees_it(cast: Cast) -> None:
    made = cast.manager.post("/v1/vehicle-classes", VAN)
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    assert {name: made.json[name] for name in VAN} == VAN
    assert cast.ana.get(made.headers["Location"]).json == made.json


def test_a_class_without_a_currency_has_the_house_s(cast: Cast) -> None:
    made = cast.manager.post("/v1/vehicle-classes", {"code": "VAN", "name": "Van"})
    assert (made.json["currency"], made.json["daily_rate"]) == ("USD", None)


def test_an_agent_makes_and_changes_no_class(cast: Cast) -> None:
    assert cast.agent.post("/v1/vehicle-classes", VAN).json["code"] == "forbidden"
    path = f"/v1/vehicle-classes/{cast.compact}"
    assert cast.agent.patch(path, {"name": "Small"}, version="1").json["code"] == "forbidden"
    assert cast.agent.delete(path, version="1").json["code"] == "forbidden"


def test_a_code_stands_for_one_class(cast: Cast) -> None:
    refused = cast.manager.post("/v1/vehicle-classes", {**VAN, "code": "COMPACT"})
    assert (refused.status_code, refused.json["code"]) == (409, "duplicate")


def test_what_a_class_cannot_be_is_refused_field_by_field(cast: Cast) -> None:
    wrong = {"daily_rate": 0, "turnaround_before_minutes": 1441, "free_cancellation_hours": -1, "currency": "XXX"}
    refused = cast.manager.post("/v1/vehicle-classes", {**VAN, **wrong})
    assert refused.status_code == 422
    assert {error["field"] for error in refused.json["errors"]} == set(wrong)


def test_two_edits_of_one_version_of_a_class_do_not_bury_each_other(cast: Cast) -> None:
    path = f"/v1/vehicle-classes/{cast.compact}"
    changed = cast.manager.patch(path, {"daily_rate": 5000}, version="1")
    assert (changed.status_code, changed.json["daily_rate"], changed.headers["ETag"]) == (200, 5000, '"2"')
    assert cast.manager.patch(path, {"daily_rate": 4000}, version="1").json["code"] == "version_conflict"
    assert cast.manager.get(path).json["daily_rate"] == 5000


def test_an_edit_that_changes_nothing_is_no_edit(cast: Cast) -> None:
    path = f"/v1/vehicle-classes/{cast.compact}"
    answered = cast.manager.patch(path, {}, version="1")
    assert (answered.status_code, answered.json["version"]) == (200, 1)
    assert cast.manager.patch(path, {}, version="7").status_code == 412


def test_the_currency_of_a_class_stays_while_vehicles_are_priced_in_it(cast: Cast) -> None:
    path = f"/v1/vehicle-classes/{cast.compact}"
    refused = cast.manager.patch(path, {"currency": "CHF"}, version="1")
    assert (refused.status_code, refused.json["code"]) == (409, "in_use")
    van = cast.manager.post("/v1/vehicle-classes", VAN).headers["Location"]
    assert cast.manager.patch(van, {"currency": "CHF"}, version="1").json["currency"] == "CHF"


def test_a_class_keeps_its_rate_while_vehicles_without_one_of_their_own_are_in_it(cast: Cast) -> None:
    path = f"/v1/vehicle-classes/{cast.compact}"
    refused = cast.manager.patch(path, {"daily_rate": None}, version="1")
    assert (refused.status_code, refused.json["code"]) == (409, "in_use")
    assert cast.manager.patch(f"/v1/vehicles/{cast.corolla}", {"daily_rate": 7000}, version="1").status_code == 200
    assert cast.manager.patch(path, {"daily_rate": None}, version="1").json["daily_rate"] is None


def test_a_class_with_vehicles_stays(cast: Cast) -> None:
    refused = cast.manager.delete(f"/v1/vehicle-classes/{cast.compact}", version="1")
    assert (refused.status_code, refused.json["code"]) == (409, "in_use")


def test_a_class_that_nothing_refers_to_can_be_removed(cast: Cast) -> None:
    van = cast.manager.post("/v1/vehicle-classes", VAN).headers["Location"]
    assert cast.manager.delete(van).json["code"] == "precondition_required"
    assert cast.manager.delete(van, version="2").json["code"] == "version_conflict"
    assert cast.manager.delete(van, version="1").status_code == 204
    assert cast.manager.get(van).status_code == 404


def test_classes_are_listed_newest_first(cast: Cast) -> None:
    cast.manager.post("/v1/vehicle-classes", VAN)
    first = cast.ana.get("/v1/vehicle-classes?limit=1")
    assert [row["code"] for row in first.json["data"]] == ["VAN"]
    second = cast.ana.get(f"/v1/vehicle-classes?limit=1&cursor={first.json['next_cursor']}")
    assert ([row["code"] for row in second.json["data"]], second.json["next_cursor"]) == (["COMPACT"], None)
