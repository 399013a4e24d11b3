"""What happens is told in the stream of events: once, in order, and without a word about who the people are."""

from typing import Any
from uuid import uuid4

import orjson
import pytest

from fleet import clock
from fleet.db import db, transaction
from fleet.rules.events import PRIVATE, TYPES
from fleet.services import events, ledger, reservations
from tests.cast import Cast, Person, at
from tests.races.scenes import (
    activating,
    begun,
    blocking,
    cancelling,
    changing,
    completing,
    confirming,
    out,
    reserved,
    reserving,
)


def placed(reader: Person, query: str = "") -> list[dict[str, Any]]:
    """The stream as it reads once the sequencer has been there."""
    while events.put_in_order():
        pass
    answer = reader.get(f"/v1/events?limit=200{query}")
    assert answer.status_code == 200, answer.json
    return answer.json["data"]


def types(reader: Person) -> list[str]:
    return [event["type"] for event in placed(reader)]


def let_holds_end() -> None:
    db.execute_sql("UPDATE rental SET hold_expires_at = now() - interval '1 second' WHERE status = 'held'")


def register(cast: Cast) -> str:
    body = {"plate_number": "EV-01", "make": "Fiat", "model": "Panda", "year": 2024, "class_id": f"{cast.compact}"}
    made = cast.manager.post("/v1/vehicles", body)
    assert made.status_code == 201, made.json
    return made.headers["Location"]


class TestWhatIsTold:
    def test_the_life_of_a_rental(self, cast: Cast) -> None:
        rental = out(cast)
        assert completing(cast, rental)().status_code == 200
        ledger.post_invoices([invoice_id for (invoice_id,) in db.rows("SELECT id FROM invoice")])
        assert types(cast.manager) == [
            "rental.reserved", "vehicle.odometer_updated", "rental.activated", "vehicle.odometer_updated",
            "rental.completed", "invoice.issued", "ledger.posted",
        ]  # fmt: skip

    def test_the_life_of_a_hold(self, cast: Cast) -> None:
        held = reserved(cast, hold_minutes=30)
        assert changing(cast, held, notes="later")().status_code == 200
        assert confirming(cast, held)().status_code == 200
        assert cancelling(cast, held)().status_code == 200
        assert types(cast.manager) == ["rental.held", "rental.changed", "rental.reserved", "rental.cancelled"]

    def test_holds_that_expire_are_told_one_by_one(self, cast: Cast) -> None:
        rentals = {reserved(cast, hold_minutes=30, vehicle_id=cast.vehicle()).rpartition("/")[2] for _ in range(3)}
        let_holds_end()
        assert reservations.expire_holds() == 3
        expired = [event for event in placed(cast.manager) if event["type"] == "rental.expired"]
        assert {event["aggregate_id"] for event in expired} == rentals
        assert {event["data"]["status"] for event in expired} == {"expired"}

    def test_who_does_not_come(self, cast: Cast) -> None:
        rental = begun(cast)
        assert cast.agent.post(f"{rental}/no-show").status_code == 200
        assert types(cast.manager) == ["rental.reserved", "rental.no_show", "invoice.issued"]

    def test_a_charge_that_is_found_later(self, cast: Cast) -> None:
        rental = out(cast)
        cast.agent.post(f"{rental}/charges", {"type": "toll", "description": "Ponte 25 de Abril", "amount": 190})
        [told] = [event for event in placed(cast.manager) if event["type"] == "rental.changed"]
        assert [(charge["type"], charge["amount"]) for charge in told["data"]["charges"]] == [("toll", 190)]

    def test_the_life_of_a_vehicle(self, cast: Cast) -> None:
        vehicle = register(cast)
        cast.manager.post(f"{vehicle}/odometer-readings", {"reading_km": 12})
        cast.manager.post(f"{vehicle}/odometer-readings", {"reading_km": 12})
        cast.manager.post(f"{vehicle}/status", {"status": "out_of_service"})
        told = placed(cast.manager)
        assert [event["type"] for event in told] == [
            "vehicle.registered", "vehicle.odometer_updated", "vehicle.status_changed",
        ]  # fmt: skip
        assert [(event["data"]["odometer_km"], event["data"]["status"]) for event in told] == [
            (0, "in_service"), (12, "in_service"), (12, "out_of_service"),
        ]  # fmt: skip

    def test_a_vehicle_that_is_retired_leaves_service(self, cast: Cast) -> None:
        db.execute_sql("UPDATE vehicle SET odometer_km = 0")
        vehicle = register(cast)
        cast.manager.post(f"{vehicle}/odometer-readings", {"reading_km": 12})
        assert cast.manager.delete(vehicle, version="2").status_code == 204
        assert types(cast.manager)[-1] == "vehicle.status_changed"

    def test_entries_by_hand_and_what_takes_them_back(self, cast: Cast) -> None:
        lines = [{"account": a, "side": s, "amount": 5, "currency": "EUR"} for a, s in (("1000", "debit"), ("3000", "credit"))]
        body = {"booked_on": f"{clock.now():%Y-%m-%d}", "memo": "For Ana Silva", "lines": lines}
        entry = cast.accountant.post("/v1/ledger/entries", body, key=str(uuid4())).json
        cast.accountant.post(f"/v1/ledger/entries/{entry['id']}/reverse")
        first, second = placed(cast.accountant)
        assert (first["type"], second["type"]) == ("ledger.posted", "ledger.posted")
        assert (first["aggregate_id"], second["data"]["reverses_id"]) == (entry["id"], entry["id"])

    def test_nothing_is_told_of_what_was_refused(self, cast: Cast) -> None:
        rental = reserved(cast)
        before = types(cast.manager)
        assert activating(cast, reserved(cast, 5, 6))().status_code == 409
        assert cast.agent.post(f"{rental}/no-show").status_code == 409
        assert blocking(cast)().status_code == 409
        assert types(cast.manager) == [*before, "rental.reserved"]

    def test_every_type_that_is_told_is_published(self, cast: Cast) -> None:
        rental = out(cast)
        completing(cast, rental)()
        assert set(types(cast.manager)) <= set(TYPES)


class TestTheData:
    def shown(self, cast: Cast, event: dict[str, Any], path: str) -> dict[str, Any]:
        """What the API says of the thing, without what events leave out."""
        return without_private(cast.admin.get(f"{path}/{event['aggregate_id']}").json)

    def test_is_the_thing_as_the_api_answers_it(self, cast: Cast) -> None:
        rental = out(cast, notes="Ana's mother drives too")
        cast.agent.post(f"{rental}/charges", {"type": "toll", "description": "Ponte 25 de Abril", "amount": 190})
        completing(cast, rental)()
        ledger.post_invoices([invoice_id for (invoice_id,) in db.rows("SELECT id FROM invoice")])
        last = {event["type"]: event for event in placed(cast.manager)}
        paths = {
            "rental.completed": "/v1/rentals",
            "invoice.issued": "/v1/invoices",
            "ledger.posted": "/v1/ledger/entries",
            "vehicle.odometer_updated": "/v1/vehicles",
        }
        for type_, path in paths.items():
            assert last[type_]["data"] == self.shown(cast, last[type_], path), type_

    def test_is_the_same_at_the_reservation_as_later(self, cast: Cast) -> None:
        rental = reserved(cast, notes="Ana's mother drives too")
        [told] = placed(cast.manager)
        assert told["data"] == self.shown(cast, told, "/v1/rentals")
        cancelling(cast, rental)()
        assert placed(cast.manager)[-1]["data"].keys() == told["data"].keys()

    def test_says_nothing_about_who_the_people_are(self, cast: Cast) -> None:
        rental = out(cast, notes="Ana Silva's mother drives too")
        cast.agent.post(f"{rental}/charges", {"type": "fine", "description": "Ana Silva, too fast", "amount": 190})
        completing(cast, rental)()
        cancelling(cast, reserved(cast, 20, 21), reason="Ana Silva is ill")()
        ledger.post_invoices([invoice_id for (invoice_id,) in db.rows("SELECT id FROM invoice")])
        told = orjson.dumps(placed(cast.manager)).decode()
        assert f"{cast.ana.customer_id}" in told
        assert not [word for word in ("Ana", "Silva", cast.ana.email, "example.com") if word in told]


def without_private(shown: Any) -> Any:
    if isinstance(shown, dict):
        return {name: without_private(value) for name, value in shown.items() if name not in PRIVATE}
    return [without_private(item) for item in shown] if isinstance(shown, list) else shown


class TestReading:
    def test_an_event_has_the_fields_of_the_contract(self, cast: Cast) -> None:
        rental = reserved(cast)
        [event] = placed(cast.manager)
        assert set(event) == {
            "id", "type", "occurred_at", "aggregate_type", "aggregate_id", "sequence", "schema_version", "data",
        }  # fmt: skip
        assert (event["aggregate_type"], event["aggregate_id"]) == ("rental", rental.rpartition("/")[2])
        assert (event["sequence"], event["schema_version"]) == (1, 1)
        assert event["occurred_at"] == event["data"]["created_at"]

    def test_goes_on_after_the_last_one(self, cast: Cast) -> None:
        for day in range(1, 6):
            reserved(cast, day * 10, day * 10 + 1)
        assert [event["sequence"] for event in placed(cast.manager, "&after=2")] == [3, 4, 5]
        assert placed(cast.manager, "&after=5") == []
        assert placed(cast.manager, f"&after={2**63 - 1}") == []

    def test_pages_follow_each_other(self, cast: Cast) -> None:
        for day in range(1, 6):
            reserved(cast, day * 10, day * 10 + 1)
        placed(cast.manager)
        path, seen = "/v1/events?limit=2&after=1", []
        while path:
            page = cast.manager.get(path)
            seen += [event["sequence"] for event in page.json["data"]]
            path = page.headers.get("Link", "").partition(">")[0].removeprefix("<")
            assert bool(path) == bool(page.json["next_cursor"])
        assert seen == [2, 3, 4, 5]

    def test_one_type_alone(self, cast: Cast) -> None:
        reserved(cast)
        reserved(cast, 10, 11, hold_minutes=5)
        assert [event["sequence"] for event in placed(cast.manager, "&type=rental.held")] == [2]

    @pytest.mark.parametrize("query", ["after=-1", "after=1e3", "after=x", f"after={2**63}", "type=rental.exploded", "limit=0"])
    def test_a_question_that_means_nothing_is_refused(self, cast: Cast, query: str) -> None:
        assert cast.manager.get(f"/v1/events?{query}").status_code == 422

    def test_a_cursor_is_good_for_its_question_only(self, cast: Cast) -> None:
        for day in (1, 5):
            reserved(cast, day * 10, day * 10 + 1)
        placed(cast.manager)
        cursor = cast.manager.get("/v1/events?limit=1").json["next_cursor"]
        assert cast.manager.get(f"/v1/events?limit=1&cursor={cursor}").json["data"][0]["sequence"] == 2
        assert cast.manager.get(f"/v1/events?after=1&cursor={cursor}").json["code"] == "invalid_cursor"

    def test_is_for_those_who_see_it_all_anyway(self, cast: Cast) -> None:
        answers = {role: person.get("/v1/events").status_code for role, person in cast.staff.items()}
        readers = {"admin", "fleet_manager", "accountant"}
        assert answers == {role: 200 if role in readers else 403 for role in cast.staff}


def test_nobody_reads_an_event_before_it_has_its_place(cast: Cast) -> None:
    reserved(cast)
    assert cast.manager.get("/v1/events").json == {"data": [], "next_cursor": None}


def test_an_event_goes_with_its_fact(cast: Cast) -> None:
    with pytest.raises(ZeroDivisionError), transaction():
        events.record("rental.changed", "rental", clock.new_id(), {"seen": at()})
        raise ZeroDivisionError
    assert placed(cast.manager) == []


def test_a_reservation_costs_no_more_statements_for_its_event(cast: Cast, statements: list[str]) -> None:
    reserving(cast)()
    assert [name for name in statements if "event" in name.lower()] == []
    assert db.rows("SELECT type FROM event") == [("rental.reserved",)]
