from tests.cast import Cast

PORTO = {"code": "OPO", "name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR"}


def test_a_manager_opens_a_branch_and_everybody_sees_it(cast: Cast) -> None:
    created = cast.manager.post("/v1/branches", PORTO)
    assert created.status_code == 201
    assert created.headers["ETag"] == '"1"'
    shown = cast.ana.get(created.headers["Location"])
    assert shown.json == created.json


def test_an_agent_cannot_open_a_branch(cast: Cast) -> None:
    refused = cast.agent.post("/v1/branches", PORTO)
    assert (refused.status_code, refused.json["code"]) == (403, "forbidden")


def test_a_code_stands_for_one_branch(cast: Cast) -> None:
    refused = cast.manager.post("/v1/branches", {**PORTO, "code": "LIS"})
    assert (refused.status_code, refused.json["code"]) == (409, "duplicate")


def test_an_unknown_time_zone_or_tax_code_is_refused(cast: Cast) -> None:
    refused = cast.manager.post("/v1/branches", {**PORTO, "timezone": "Mars/Base"})
    assert refused.json["errors"] == [
        {"field": "timezone", "code": "unknown_timezone", "message": "must be an IANA time zone such as Europe/Lisbon"}
    ]
    refused = cast.manager.post("/v1/branches", {**PORTO, "tax_code": "NOPE"})
    assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, "tax_code")


def test_two_edits_of_one_version_do_not_bury_each_other(cast: Cast) -> None:
    path = f"/v1/branches/{cast.lisbon}"
    assert cast.manager.patch(path, {"name": "Lisboa"}).status_code == 428
    changed = cast.manager.patch(path, {"name": "Lisboa"}, version="1")
    assert (changed.status_code, changed.json["name"], changed.headers["ETag"]) == (200, "Lisboa", '"2"')
    assert cast.manager.patch(path, {"name": "Lissabon"}, version="1").status_code == 412
    assert cast.manager.get(path).json["name"] == "Lisboa"


def test_what_did_not_change_is_not_sent_again(cast: Cast) -> None:
    assert cast.agent.get(f"/v1/branches/{cast.lisbon}", If_None_Match='"1"').status_code == 304


def test_a_branch_with_vehicles_stays(cast: Cast) -> None:
    refused = cast.manager.delete(f"/v1/branches/{cast.lisbon}", version="1")
    assert (refused.status_code, refused.json["code"]) == (409, "in_use")


def test_a_branch_that_nothing_refers_to_can_be_removed(cast: Cast) -> None:
    porto = cast.manager.post("/v1/branches", PORTO).headers["Location"]
    assert cast.manager.delete(porto, version="9").status_code == 412
    assert cast.manager.delete(porto, version="1").status_code == 204
    assert cast.manager.get(porto).status_code == 404
