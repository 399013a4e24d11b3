from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine

from fleet import clock
from fleet.db import db
from tests.cast import Answer, Cast, Person, at, iso


def reserve(person: Person, cast: Cast, *, start: float = 1, end: float = 3, **body: Any) -> Answer:
    """Ana's rental of the Corolla from the first to the third day from now, unless told otherwise."""
    wish = {
        "customer_id": cast.ana.customer_id,
        "vehicle_id": cast.corolla,
        "start_at": iso(at(start)),
        "end_at": iso(at(end)),
        **body,
    }
    wish = {name: value for name, value in wish.items() if value is not None}
    return person.post("/v1/rentals", wish, key=str(uuid4()))


def rental_of(cast: Cast, **body: Any) -> str:
    created = reserve(cast.agent, cast, **body)
    assert created.status_code == 201, created.json
    return created.headers["Location"]


def activated(cast: Cast, odometer_km: int = 1000, **body: Any) -> str:
    """A rental that began an hour ago and is out."""
    path = rental_of(cast, start=-1 / 24, end=2, **body)
    out = cast.agent.post(f"{path}/activate", {"start_odometer_km": odometer_km, "fuel_level_percent": 100})
    assert out.status_code == 200, out.json
    return path


class TestReserving:
    def test_an_agent_reserves_a_vehicle_for_a_customer(self, cast: Cast) -> None:
        created = reserve(cast.agent, cast, notes="window seat")
        assert created.status_code == 201
        rental = created.json
        assert rental["status"] == "reserved"
        assert rental["number"].startswith("RNT-")
        assert (rental["daily_rate"], rental["base_amount"], rental["total_amount"]) == (4500, 9000, 9000)
        assert rental["vehicle"] == {"plate_number": "AA-11-BB", "make": "Toyota", "model": "Corolla"}
        assert rental["customer"] == {"first_name": "Ana", "last_name": "Silva"}
        assert rental["pickup_branch_id"] == str(cast.lisbon)

    def test_the_answer_to_a_reservation_is_what_a_read_shows(self, cast: Cast) -> None:
        created = reserve(cast.agent, cast)
        shown = cast.agent.get(created.headers["Location"])
        assert shown.json == created.json
        assert shown.headers["ETag"] == created.headers["ETag"] == '"1"'

    def test_a_customer_reserves_for_themself(self, cast: Cast) -> None:
        assert reserve(cast.ana, cast).status_code == 201

    def test_a_customer_cannot_reserve_for_somebody_else(self, cast: Cast) -> None:
        refused = reserve(cast.ben, cast)
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "not_found")

    def test_an_overlap_is_refused_and_names_alternatives(self, cast: Cast) -> None:
        other = cast.vehicle(plate_number="BB-22-CC")
        reserve(cast.agent, cast)
        refused = reserve(cast.agent, cast, start=2, end=4)
        assert (refused.status_code, refused.json["code"]) == (409, "rental_overlap")
        alternatives = refused.json["alternatives"]
        assert [vehicle["id"] for vehicle in alternatives["vehicles"]] == [str(other)]
        assert alternatives["nearest_window"]["start_at"] == iso(at(3, hours=1))
        assert "Ana" not in refused.get_data(as_text=True)

    def test_back_to_back_rentals_touch_once_the_turnaround_is_over(self, cast: Cast) -> None:
        reserve(cast.agent, cast)
        assert reserve(cast.agent, cast, start=3, end=4).status_code == 409
        assert reserve(cast.agent, cast, start=3 + 1 / 24, end=4).status_code == 201

    def test_a_class_gives_the_vehicle_that_stood_idle_for_the_shortest_time(self, cast: Cast) -> None:
        busy_before = cast.vehicle(plate_number="BB-22-CC")
        reserve(cast.agent, cast, vehicle_id=busy_before, start=1, end=2)
        chosen = reserve(cast.agent, cast, vehicle_id=None, class_id=cast.compact, start=3, end=4)
        assert chosen.json["vehicle_id"] == str(busy_before)

    def test_a_class_that_is_booked_out_says_so(self, cast: Cast) -> None:
        reserve(cast.agent, cast)
        refused = reserve(cast.agent, cast, vehicle_id=None, class_id=cast.compact)
        assert (refused.status_code, refused.json["code"]) == (409, "no_vehicle_available")

    def test_a_vehicle_or_a_class_and_not_both(self, cast: Cast) -> None:
        assert reserve(cast.agent, cast, class_id=cast.compact).status_code == 422
        assert reserve(cast.agent, cast, vehicle_id=None).status_code == 422

    @pytest.mark.parametrize(
        ("start", "end", "code"),
        [
            (1, 1, "period_empty"),
            (1, 1 + 0.5 / 24, "period_too_short"),
            (1, 367, "period_too_long"),
            (-1, 1, "period_in_past"),
        ],
    )
    def test_a_period_is_bounded(self, cast: Cast, start: float, end: float, code: str) -> None:
        refused = reserve(cast.agent, cast, start=start, end=end)
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, code)

    def test_a_manager_may_backdate(self, cast: Cast) -> None:
        assert reserve(cast.manager, cast, start=-1, end=1).status_code == 201

    def test_a_vehicle_out_of_service_is_not_rented(self, cast: Cast) -> None:
        db.execute_sql("UPDATE vehicle SET status = 'out_of_service' WHERE id = %s", (cast.corolla,))
        assert reserve(cast.agent, cast).json["code"] == "invalid_state"
        assert reserve(cast.agent, cast, vehicle_id=None, class_id=cast.compact).json["code"] == "no_vehicle_available"

    def test_a_deactivated_customer_rents_nothing(self, cast: Cast) -> None:
        db.execute_sql("UPDATE customer SET status = 'deactivated' WHERE id = %s", (cast.ana.customer_id,))
        assert reserve(cast.agent, cast).json["errors"][0]["code"] == "not_active"

    def test_an_unknown_vehicle_is_named_as_such(self, cast: Cast) -> None:
        assert reserve(cast.agent, cast, vehicle_id=uuid4()).json["errors"][0]["field"] == "vehicle_id"

    def test_without_a_key_nothing_is_reserved(self, cast: Cast) -> None:
        refused = cast.agent.post("/v1/rentals", {"customer_id": cast.ana.customer_id})
        assert refused.status_code in {400, 422}
        wish = {"customer_id": cast.ana.customer_id, "vehicle_id": cast.corolla, "start_at": iso(at(1)), "end_at": iso(at(2))}
        refused = cast.agent.post("/v1/rentals", wish)
        assert (refused.status_code, refused.json["code"]) == (400, "idempotency_key_required")

    def test_the_same_key_gives_the_same_answer_and_one_rental(self, cast: Cast) -> None:
        wish = {"customer_id": cast.ana.customer_id, "vehicle_id": cast.corolla, "start_at": iso(at(1)), "end_at": iso(at(2))}
        first = cast.agent.post("/v1/rentals", wish, key="k")
        again = cast.agent.post("/v1/rentals", wish, key="k")
        assert (again.status_code, again.get_data()) == (201, first.get_data())
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Location"] == first.headers["Location"]
        other = cast.agent.post("/v1/rentals", {**wish, "notes": "x"}, key="k")
        assert (other.status_code, other.json["code"]) == (422, "idempotency_key_reused")
        assert db.one("SELECT count(*) FROM rental") == (1,)

    def test_a_refusal_is_replayed_too(self, cast: Cast) -> None:
        reserve(cast.agent, cast)
        wish = {"customer_id": cast.ana.customer_id, "vehicle_id": cast.corolla, "start_at": iso(at(1)), "end_at": iso(at(2))}
        first = cast.agent.post("/v1/rentals", wish, key="k")
        again = cast.agent.post("/v1/rentals", wish, key="k")
        assert (first.status_code, again.status_code) == (409, 409)
        assert again.get_data() == first.get_data()

    def test_two_actors_may_use_the_same_key(self, cast: Cast) -> None:
        wish = {"customer_id": cast.ana.customer_id, "vehicle_id": cast.corolla, "start_at": iso(at(1)), "end_at": iso(at(2))}
        assert cast.agent.post("/v1/rentals", wish, key="k").status_code == 201
        assert cast.manager.post("/v1/rentals", wish, key="k").status_code == 409

    def test_a_reservation_promises_its_confirmation(self, cast: Cast) -> None:
        created = reserve(cast.agent, cast)
        promised = db.rows("SELECT topic, queue, aggregate_id FROM outbox")
        assert [(topic, queue, str(of)) for topic, queue, of in promised] == [
            ("notifications.rental_reserved", "notifications", created.json["id"])
        ]


class TestHolding:
    def test_a_hold_becomes_a_reservation(self, cast: Cast) -> None:
        held = reserve(cast.ana, cast, hold_minutes=15)
        assert held.json["status"] == "held"
        confirmed = cast.ana.post(held.headers["Location"] + "/confirm")
        assert (confirmed.status_code, confirmed.json["status"], confirmed.json["hold_expires_at"]) == (200, "reserved", None)

    def test_a_hold_keeps_others_away_until_it_expires(self, cast: Cast) -> None:
        held = reserve(cast.agent, cast, hold_minutes=15).headers["Location"]
        assert reserve(cast.agent, cast).status_code == 409
        with time_machine.travel(clock.now() + timedelta(minutes=16)):
            assert cast.agent.post(f"{held}/confirm").json["code"] == "invalid_state"
            assert reserve(cast.manager, cast).status_code == 201
            assert cast.agent.get(held).json["status"] == "expired"

    def test_a_class_booking_finds_the_vehicle_of_an_expired_hold(self, cast: Cast) -> None:
        reserve(cast.agent, cast, hold_minutes=15)
        with time_machine.travel(clock.now() + timedelta(minutes=16)):
            assert reserve(cast.manager, cast, vehicle_id=None, class_id=cast.compact).status_code == 201


class TestOpenHolds:
    """A customer who only holds keeps vehicles from those who would rent them."""

    def held(self, person: Person, cast: Cast, **body: Any) -> Answer:
        return reserve(person, cast, **{"vehicle_id": cast.vehicle(), "hold_minutes": 15, **body})

    def test_a_customer_has_five_open_holds_and_no_sixth(self, cast: Cast) -> None:
        assert [self.held(cast.ana, cast).status_code for _ in range(5)] == [201] * 5
        for refused in (self.held(cast.ana, cast), self.held(cast.agent, cast, vehicle_id=None, class_id=cast.compact)):
            assert (refused.status_code, refused.json["code"]) == (409, "too_many_holds")
        assert db.one("SELECT count(*) FROM vehicle_block") == (5,)

    def test_others_and_reservations_are_not_counted(self, cast: Cast, hold_limit: Callable[[int], None]) -> None:
        hold_limit(1)
        assert reserve(cast.ana, cast).status_code == 201
        assert self.held(cast.ana, cast).status_code == 201
        assert self.held(cast.ben, cast, customer_id=cast.ben.customer_id).status_code == 201
        assert reserve(cast.ana, cast, vehicle_id=cast.vehicle()).status_code == 201

    @pytest.mark.parametrize("ends", ["confirm", "cancel"])
    def test_a_hold_that_ended_makes_room(self, cast: Cast, hold_limit: Callable[[int], None], ends: str) -> None:
        hold_limit(1)
        hold = self.held(cast.ana, cast).headers["Location"]
        assert self.held(cast.ana, cast).status_code == 409
        assert cast.ana.post(f"{hold}/{ends}").status_code == 200
        assert self.held(cast.ana, cast).status_code == 201

    def test_a_hold_whose_time_is_over_makes_room_before_it_is_swept(
        self, cast: Cast, hold_limit: Callable[[int], None]
    ) -> None:
        hold_limit(1)
        self.held(cast.ana, cast)
        with time_machine.travel(clock.now() + timedelta(minutes=16)):
            assert self.held(cast.ana, cast).status_code == 201

    def test_the_first_answer_is_replayed_whatever_is_held_meanwhile(
        self, cast: Cast, hold_limit: Callable[[int], None]
    ) -> None:
        hold_limit(1)
        period = {"start_at": iso(at(1)), "end_at": iso(at(2))}
        wish = {"customer_id": cast.ana.customer_id, "vehicle_id": cast.corolla, "hold_minutes": 15, **period}
        first, again = (cast.ana.post("/v1/rentals", wish, key="twice") for _ in range(2))
        assert (first.status_code, again.status_code, again.json) == (201, 201, first.json)

    def test_nought_is_no_limit(self, cast: Cast, hold_limit: Callable[[int], None]) -> None:
        hold_limit(0)
        assert [self.held(cast.ana, cast).status_code for _ in range(6)] == [201] * 6


class TestOpenReservations:
    """A customer who books and never comes keeps vehicles from others as well. The counter may book a whole fleet."""

    def booked(self, person: Person, cast: Cast, **body: Any) -> Answer:
        return reserve(person, cast, **{"vehicle_id": cast.vehicle(), **body})

    def test_a_customer_makes_so_many_and_no_more(self, cast: Cast, reservation_limit: Callable[[int], None]) -> None:
        reservation_limit(2)
        assert self.booked(cast.ana, cast).status_code == 201
        assert self.booked(cast.ana, cast, hold_minutes=15).status_code == 201
        by_class = {"vehicle_id": None, "class_id": cast.compact}
        for refused in (self.booked(cast.ana, cast), self.booked(cast.ana, cast, hold_minutes=15, **by_class)):
            assert (refused.status_code, refused.json["code"]) == (409, "too_many_reservations")
        assert db.one("SELECT count(*) FROM vehicle_block") == (2,)

    def test_the_counter_books_more_and_what_it_booked_counts(
        self, cast: Cast, reservation_limit: Callable[[int], None]
    ) -> None:
        reservation_limit(2)
        assert [self.booked(cast.agent, cast).status_code for _ in range(3)] == [201] * 3
        assert self.booked(cast.ana, cast).json["code"] == "too_many_reservations"
        assert self.booked(cast.ben, cast, customer_id=cast.ben.customer_id).status_code == 201

    @pytest.mark.parametrize("ends", ["activate", "cancel"])
    def test_a_reservation_that_ended_makes_room(
        self, cast: Cast, reservation_limit: Callable[[int], None], ends: str
    ) -> None:
        reservation_limit(1)
        reservation = rental_of(cast, start=-1 / 24, end=2)
        assert self.booked(cast.ana, cast).status_code == 409
        body = {"start_odometer_km": 1000, "fuel_level_percent": 100} if ends == "activate" else {}
        assert cast.agent.post(f"{reservation}/{ends}", body).status_code == 200
        assert self.booked(cast.ana, cast).status_code == 201

    def test_a_hold_is_confirmed_and_a_period_changed_at_the_limit(
        self, cast: Cast, reservation_limit: Callable[[int], None]
    ) -> None:
        reservation_limit(1)
        hold = self.booked(cast.ana, cast, hold_minutes=15).headers["Location"]
        assert cast.ana.post(f"{hold}/confirm").status_code == 200
        assert cast.agent.patch(hold, {"end_at": iso(at(4))}, version="2").status_code == 200

    def test_nought_is_no_limit(self, cast: Cast, reservation_limit: Callable[[int], None]) -> None:
        reservation_limit(0)
        assert [self.booked(cast.ana, cast).status_code for _ in range(21)] == [201] * 21

    def test_there_are_twenty_unless_it_is_said_otherwise(self, cast: Cast) -> None:
        assert [self.booked(cast.ana, cast).status_code for _ in range(21)] == [201] * 20 + [409]


class TestHandover:
    def test_a_vehicle_goes_out_with_its_reading(self, cast: Cast) -> None:
        rental = cast.agent.get(activated(cast, odometer_km=1234)).json
        assert (rental["status"], rental["start_odometer_km"], rental["start_fuel_percent"]) == ("active", 1234, 100)
        assert db.one("SELECT odometer_km FROM vehicle WHERE id = %s", (cast.corolla,)) == (1234,)
        assert db.rows("SELECT kind FROM vehicle_block") == [("rental",)]

    def test_an_expired_licence_stops_the_handover(self, cast: Cast) -> None:
        path = rental_of(cast, start=0, end=2)
        db.execute_sql("UPDATE customer SET driver_license_expiry = now()::date WHERE id = %s", (cast.ana.customer_id,))
        refused = cast.agent.post(f"{path}/activate", {"start_odometer_km": 10})
        assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")

    def test_a_vehicle_that_is_still_out_is_not_handed_over_again(self, cast: Cast) -> None:
        first = activated(cast)
        second = rental_of(cast, start=3, end=5)
        with time_machine.travel(at(3, hours=1)):
            assert cast.agent.post(f"{second}/activate", {"start_odometer_km": 2000}).json["code"] == "invalid_state"
            assert cast.agent.post(f"{first}/complete", {"end_odometer_km": 1900}, key="1").status_code == 200
            assert cast.agent.post(f"{second}/activate", {"start_odometer_km": 2000}).status_code == 200

    def test_a_rental_that_is_out_past_its_end_is_overdue(self, cast: Cast) -> None:
        path = activated(cast)
        assert cast.agent.get(path).json["overdue"] is False
        db.execute_sql("UPDATE rental SET start_at = now() - interval '2 days', end_at = now() - interval '1 minute'")
        assert cast.agent.get(path).json["overdue"] is True

    def test_an_early_handover_takes_the_time_before_too(self, cast: Cast) -> None:
        path = rental_of(cast, start=0.1, end=2)
        assert cast.agent.post(f"{path}/activate", {"start_odometer_km": 5}).status_code == 200
        assert db.rows("SELECT 1 FROM vehicle_block WHERE start_at <= now()") == [(1,)]

    def test_a_stale_version_stops_a_transition(self, cast: Cast) -> None:
        path = rental_of(cast, start=0, end=2)
        assert cast.agent.post(f"{path}/activate", {"start_odometer_km": 5}, version="7").status_code == 412


class TestReturn:
    def test_a_return_settles_and_invoices_in_one_go(self, cast: Cast) -> None:
        path = activated(cast)
        back = cast.agent.post(
            f"{path}/complete",
            {
                "end_odometer_km": 1100,
                "fuel_level_percent": 80,
                "charges": [{"type": "damage", "description": "Scratch", "amount": 15000}],
            },
            key="back",
        )
        assert back.status_code == 200, back.json
        rental = back.json
        assert rental["status"] == "completed"
        assert [(item["type"], item["amount"]) for item in rental["charges"]] == [("fuel", 2000), ("damage", 15000)]
        assert rental["total_amount"] == rental["base_amount"] + 17000
        ((status, net, tax),) = db.rows("SELECT status, net_amount, tax_amount FROM invoice")
        assert (status, net) == ("open", rental["total_amount"])
        assert tax == round((rental["base_amount"] + 2000) * 0.23)
        topics = {topic for (topic,) in db.rows("SELECT topic FROM outbox WHERE aggregate_type = 'invoice'")}
        assert topics == {"accounting.post_invoice", "notifications.invoice_issued"}
        assert db.rows("SELECT live FROM vehicle_block") == [(False,)]

    def test_a_second_return_finds_the_rental_completed(self, cast: Cast) -> None:
        path = activated(cast)
        assert cast.agent.post(f"{path}/complete", {"end_odometer_km": 1100}, key="1").status_code == 200
        assert cast.agent.post(f"{path}/complete", {"end_odometer_km": 1100}, key="2").json["code"] == "invalid_state"
        assert db.one("SELECT count(*) FROM invoice") == (1,)

    def test_a_late_return_costs_started_hours(self, cast: Cast) -> None:
        path = activated(cast)
        with time_machine.travel(at(2, hours=2.5)):
            back = cast.agent.post(f"{path}/complete", {"end_odometer_km": 1100}, key="late")
        assert [(item["type"], item["amount"]) for item in back.json["charges"]] == [("late_fee", 3600)]

    def test_an_odometer_does_not_run_backwards(self, cast: Cast) -> None:
        path = activated(cast, odometer_km=1000)
        refused = cast.agent.post(f"{path}/complete", {"end_odometer_km": 999}, key="b")
        assert (refused.status_code, refused.json["code"]) == (409, "odometer_out_of_sequence")

    def test_a_return_is_not_in_the_future_nor_before_the_handover(self, cast: Cast) -> None:
        path = activated(cast)
        body = {"end_odometer_km": 1100, "returned_at": iso(at(1))}
        assert cast.agent.post(f"{path}/complete", body, key="f").json["errors"][0]["code"] == "in_future"
        body = {"end_odometer_km": 1100, "returned_at": iso(at(-1))}
        assert cast.agent.post(f"{path}/complete", body, key="p").json["errors"][0]["code"] == "before_handover"

    def test_what_is_found_later_gets_an_invoice_of_its_own(self, cast: Cast) -> None:
        path = activated(cast)
        toll = {"type": "toll", "description": "Bridge", "amount": 185}
        assert cast.agent.post(f"{path}/charges", toll).status_code == 201
        assert db.one("SELECT count(*) FROM invoice") == (0,)
        back = cast.agent.post(f"{path}/complete", {"end_odometer_km": 1100}, key="c")
        assert back.json["total_amount"] == back.json["base_amount"] + 185
        fine = {"type": "fine", "description": "Speeding", "amount": 6000}
        assert cast.agent.post(f"{path}/charges", fine).status_code == 201
        assert db.rows("SELECT net_amount FROM invoice ORDER BY id")[-1] == (6000,)
        assert cast.agent.get(path).json["total_amount"] == back.json["total_amount"] + 6000
        listed = cast.agent.get(f"{path}/charges").json["data"]
        assert [item["type"] for item in listed] == ["fine", "toll"]


class TestGivingUp:
    def test_an_early_cancellation_is_free(self, cast: Cast) -> None:
        path = rental_of(cast, start=3, end=4)
        cancelled = cast.ana.post(f"{path}/cancel", {"reason": "ill"})
        assert (cancelled.json["status"], cancelled.json["total_amount"]) == ("cancelled", 0)
        assert db.one("SELECT count(*) FROM invoice") == (0,)
        assert reserve(cast.agent, cast, start=3, end=4).status_code == 201

    def test_a_late_cancellation_costs_the_agreed_fee(self, cast: Cast) -> None:
        path = rental_of(cast, start=0.5, end=2)
        cancelled = cast.ana.post(f"{path}/cancel", {})
        assert cancelled.json["total_amount"] == 2000
        assert db.one("SELECT net_amount, tax_amount FROM invoice") == (2000, 460)

    def test_the_fee_is_that_of_the_day_of_booking(self, cast: Cast) -> None:
        path = rental_of(cast, start=0.5, end=2)
        db.execute_sql("UPDATE vehicle_class SET cancellation_fee = 99999")
        assert cast.agent.post(f"{path}/cancel", {}).json["total_amount"] == 2000

    def test_a_rental_that_is_out_is_not_cancelled(self, cast: Cast) -> None:
        assert cast.agent.post(activated(cast) + "/cancel", {}).json["code"] == "invalid_state"

    def test_a_no_show_is_one_only_after_the_start(self, cast: Cast) -> None:
        path = rental_of(cast, start=0, end=2)
        assert cast.agent.post(f"{path}/no-show").json["code"] == "invalid_state"
        with time_machine.travel(at(0, hours=3)):
            gone = cast.agent.post(f"{path}/no-show")
        assert (gone.json["status"], gone.json["total_amount"]) == ("no_show", 4500)


class TestChanging:
    def test_an_extension_is_priced_and_checked(self, cast: Cast) -> None:
        path = rental_of(cast)
        longer = cast.agent.patch(path, {"end_at": iso(at(5))}, version="1")
        assert (longer.status_code, longer.json["total_amount"], longer.headers["ETag"]) == (200, 18000, '"2"')

    def test_an_extension_into_the_next_rental_is_refused_with_alternatives(self, cast: Cast) -> None:
        path = rental_of(cast)
        reserve(cast.agent, cast, start=4, end=5)
        refused = cast.agent.patch(path, {"end_at": iso(at(4.5))}, version="1")
        assert (refused.status_code, refused.json["code"]) == (409, "rental_overlap")
        assert "alternatives" in refused.json
        assert cast.agent.get(path).json["end_at"] == iso(at(3))

    def test_a_rental_moves_to_another_vehicle_at_that_ones_rate(self, cast: Cast) -> None:
        other = cast.vehicle(plate_number="BB-22-CC", daily_rate=9900)
        path = rental_of(cast)
        moved = cast.agent.patch(path, {"vehicle_id": other}, version="1")
        assert (moved.json["vehicle_id"], moved.json["total_amount"]) == (str(other), 19800)
        assert reserve(cast.agent, cast).status_code == 201

    def test_a_rental_that_is_out_can_only_end_at_another_time(self, cast: Cast) -> None:
        other = cast.vehicle()
        path = activated(cast)
        version = str(cast.agent.get(path).json["version"])
        assert cast.agent.patch(path, {"vehicle_id": other}, version=version).json["code"] == "invalid_state"
        assert cast.agent.patch(path, {"start_at": iso(at(1))}, version=version).json["code"] == "invalid_state"
        assert cast.agent.patch(path, {"end_at": iso(at(3))}, version=version).status_code == 200

    def test_a_stale_edit_is_refused(self, cast: Cast) -> None:
        path = rental_of(cast)
        assert cast.agent.patch(path, {"notes": "a"}).status_code == 428
        assert cast.agent.patch(path, {"notes": "a"}, version="1").status_code == 200
        assert cast.agent.patch(path, {"notes": "b"}, version="1").status_code == 412

    def test_the_price_is_not_the_clients_to_send(self, cast: Cast) -> None:
        for field in ("total_amount", "status", "daily_rate", "version", "id"):
            refused = cast.agent.patch(rental_of(cast, start=10, end=11), {field: 1}, version="1")
            assert (refused.status_code, refused.json["code"]) == (422, "unknown_field")
            db.execute_sql("UPDATE vehicle_block SET live = false")


class TestSeeing:
    def test_a_customer_sees_only_their_own(self, cast: Cast) -> None:
        path = rental_of(cast)
        assert cast.ana.get(path).status_code == 200
        assert cast.ben.get(path).status_code == 404
        assert cast.ben.get("/v1/rentals").json["data"] == []
        assert cast.ben.get(f"/v1/rentals?customer_id={cast.ana.customer_id}").json["data"] == []
        assert cast.ben.post(f"{path}/cancel", {}).status_code == 404
        assert cast.mechanic.get(path).status_code == 403

    def test_filters_select(self, cast: Cast) -> None:
        path = rental_of(cast)
        rental_of(cast, start=10, end=12)
        found = cast.agent.get(f"/v1/rentals?status=reserved&from={iso(at(2))}&to={iso(at(4))}").json["data"]
        assert [item["id"] for item in found] == [path.rsplit("/", 1)[1]]
        assert cast.agent.get("/v1/rentals?status=completed").json["data"] == []

    def test_a_list_takes_as_many_statements_for_thirty_rentals_as_for_three(self, cast: Cast, statements: "list[str]") -> None:
        for day in range(3):
            rental_of(cast, start=1 + 2 * day, end=2 + 2 * day)
        cast.agent.known()
        statements.clear()
        assert len(cast.agent.get("/v1/rentals").json["data"]) == 3
        few = len(statements)
        for day in range(3, 30):
            rental_of(cast, start=1 + 2 * day, end=2 + 2 * day)
        statements.clear()
        assert len(cast.agent.get("/v1/rentals").json["data"]) == 30
        assert len(statements) == few == 2
        statements.clear()
        assert len(cast.agent.get("/v1/rentals").json["data"]) == 30
        assert len(statements) == 1, "what was shown before is only looked at for changes"

    def test_a_reservation_takes_two_statements_beside_begin_and_commit(self, cast: Cast, statements: "list[str]") -> None:
        cast.agent.known()
        statements.clear()
        assert reserve(cast.agent, cast).status_code == 201
        assert len(statements) == 2

    def test_a_refused_reservation_takes_few_statements_too(self, cast: Cast, statements: "list[str]") -> None:
        reserve(cast.agent, cast)
        statements.clear()
        assert reserve(cast.agent, cast).status_code == 409
        assert len(statements) == 4, statements

    def test_a_number_that_was_read_aloud_finds_its_rental(self, cast: Cast) -> None:
        number = reserve(cast.agent, cast).json["number"]
        reserve(cast.agent, cast, start=10, end=11)
        assert [item["number"] for item in cast.agent.get(f"/v1/rentals?number={number}").json["data"]] == [number]
        assert cast.ben.get(f"/v1/rentals?number={number}").json["data"] == []

    def test_what_is_overdue_can_be_listed(self, cast: Cast) -> None:
        activated(cast)
        assert cast.agent.get("/v1/rentals?overdue=true").json["data"] == []
        assert len(cast.agent.get("/v1/rentals?overdue=false").json["data"]) == 1
        db.execute_sql("UPDATE rental SET start_at = now() - interval '2 days', end_at = now() - interval '1 minute'")
        assert len(cast.agent.get("/v1/rentals?overdue=true").json["data"]) == 1

    def test_a_charge_was_made_at_the_same_time_wherever_it_is_shown(self, cast: Cast) -> None:
        path = activated(cast)
        cast.agent.post(f"{path}/charges", {"type": "toll", "description": "Bridge", "amount": 185})
        (shown,) = cast.agent.get(path).json["charges"]
        (listed,) = cast.agent.get(f"{path}/charges").json["data"]
        assert shown == listed


class TestHoles:
    """What a hostile reviewer found, so that it stays closed."""

    def test_a_rental_does_not_move_to_a_vehicle_that_is_out_and_late(self, cast: Cast) -> None:
        activated(cast)
        db.execute_sql("UPDATE rental SET start_at = now() - interval '2 days', end_at = now() - interval '2 minutes'")
        db.execute_sql(
            "UPDATE vehicle_block SET start_at = now() - interval '2 days', end_at = now() - interval '2 minutes',"
            " occupied = tstzrange(now() - interval '2 days', now() - interval '2 minutes')"
        )
        start = iso(clock.now() + timedelta(minutes=5))
        path = rental_of(cast, vehicle_id=cast.vehicle(), start=0.01, end=2)
        version = cast.agent.get(path).headers["ETag"].strip('"')
        refused = cast.agent.patch(path, {"vehicle_id": cast.corolla, "start_at": start}, version=version)
        assert (refused.status_code, refused.json["code"]) == (409, "rental_overlap")

    def test_a_vehicle_is_not_handed_over_weeks_early_for_nothing(self, cast: Cast) -> None:
        path = rental_of(cast, start=20, end=21)
        assert cast.agent.post(f"{path}/activate", {"start_odometer_km": 1}).json["code"] == "invalid_state"

    def test_shortening_a_rental_that_is_out_does_not_make_it_cheaper(self, cast: Cast) -> None:
        path = activated(cast)
        before = cast.agent.get(path)
        version = before.headers["ETag"].strip('"')
        shorter = cast.agent.patch(path, {"end_at": iso(clock.now() + timedelta(hours=2))}, version=version)
        assert (shorter.status_code, shorter.json["total_amount"]) == (200, before.json["total_amount"])

    def test_an_extension_needs_a_licence_as_long(self, cast: Cast) -> None:
        path = activated(cast)
        db.execute_sql("UPDATE customer SET driver_license_expiry = now()::date + 3 WHERE id = %s", (cast.ana.customer_id,))
        version = cast.agent.get(path).headers["ETag"].strip('"')
        assert cast.agent.patch(path, {"end_at": iso(at(30))}, version=version).json["code"] == "invalid_state"

    def test_a_charge_beyond_every_amount_is_refused(self, cast: Cast) -> None:
        path = activated(cast)
        refused = cast.agent.post(f"{path}/charges", {"type": "other", "description": "x", "amount": 10**12})
        assert (refused.status_code, refused.json["code"]) == (422, "amount_too_large")

    def test_an_unknown_branch_is_a_wrong_field(self, cast: Cast) -> None:
        assert reserve(cast.agent, cast, dropoff_branch_id=uuid4()).status_code == 422
        assert reserve(cast.agent, cast, pickup_branch_id=uuid4()).status_code == 422

    def test_a_rental_stays_in_its_currency(self, cast: Cast) -> None:
        other = cast.vehicle(class_id=None, daily_rate=9900, currency="JPY")
        assert cast.agent.patch(rental_of(cast), {"vehicle_id": other}, version="1").json["code"] == "invalid_state"

    def test_cancelling_after_the_start_costs_no_less_than_not_coming(self, cast: Cast) -> None:
        path = rental_of(cast, start=0, end=2)
        with time_machine.travel(at(0, hours=3)):
            assert cast.ana.post(f"{path}/cancel", {}).json["total_amount"] == 4500

    def test_a_hold_whose_time_is_over_does_not_change(self, cast: Cast) -> None:
        held = reserve(cast.agent, cast, hold_minutes=15).headers["Location"]
        with time_machine.travel(clock.now() + timedelta(minutes=16)):
            assert cast.agent.patch(held, {"end_at": iso(at(5))}, version="1").json["code"] == "invalid_state"

    def test_a_charge_that_could_not_be_invoiced_with_its_tax_is_refused(self, cast: Cast) -> None:
        path = activated(cast)
        charge = {"type": "other", "description": "x", "amount": 6 * 10**11}
        assert cast.agent.post(f"{path}/charges", charge).json["code"] == "amount_too_large"
        assert cast.agent.post(f"{path}/complete", {"end_odometer_km": 1100}, key="back").status_code == 200
