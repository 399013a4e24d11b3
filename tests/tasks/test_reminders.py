"""The clock tells each customer once: a reminder before the pick-up, a word when the vehicle is late, and when a hold ended."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from fleet import clock, config
from fleet.db import db, patience
from fleet.models.rentals import Rental
from fleet.services import reminders
from tasks import maintenance
from tasks import notifications as consumers
from tests.books import rental_to_bill
from tests.cast import Cast, at
from tests.tasks.outboxes import at_once

HOUR = timedelta(hours=1)


def moment(hours: float) -> datetime:
    """So many hours from now, to the second: what is looked at is how long that is, not the full hour."""
    return clock.now() + hours * HOUR


def reserved(cast: Cast, *, starts_in_h: float, booked_h_ago: float = 100, **values: Any) -> Rental:
    start, booked = moment(starts_in_h), moment(-booked_h_ago)
    times: dict[str, Any] = {"start_at": start, "end_at": start + 48 * HOUR, "created_at": booked, "updated_at": booked}
    blank = {"actual_start_at": None, "actual_end_at": None}
    return rental_to_bill(cast, **{"status": "reserved", **times, **blank, **values})


def out(cast: Cast, *, late_h: float) -> Rental:
    end = moment(-late_h)
    start = end - 48 * HOUR
    values: dict[str, Any] = {"start_at": start, "end_at": end, "actual_start_at": start, "actual_end_at": None}
    return rental_to_bill(cast, status="active", **values)


def expired(cast: Cast, *, hours_ago: float) -> Rental:
    values: dict[str, Any] = {"start_at": at(5), "end_at": at(6), "hold_expires_at": moment(-hours_ago)}
    return rental_to_bill(cast, status="expired", actual_start_at=None, actual_end_at=None, **values)


def promised(kind: str) -> list[UUID]:
    """The rentals about which a notice of this kind is promised."""
    rows = db.rows("SELECT aggregate_id FROM outbox WHERE topic = %s ORDER BY id", (f"notifications.{kind}",))
    return [rental_id for (rental_id,) in rows]


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Changes settings for the test."""
    usual = config.current()
    yield lambda **changes: config.use(replace(usual, **changes))
    config.use(usual)


class TestReminders:
    def test_a_rental_that_begins_within_a_day_is_promised_one(self, cast: Cast) -> None:
        soon = reserved(cast, starts_in_h=23.9)
        reserved(cast, starts_in_h=24.1)
        assert reminders.promise_due()["rental_reminder"] == 1
        assert promised("rental_reminder") == [soon.id]

    def test_it_is_promised_once_however_often_the_sweep_runs(self, cast: Cast) -> None:
        reserved(cast, starts_in_h=20)
        assert [reminders.promise_due()["rental_reminder"] for _ in range(3)] == [1, 0, 0]

    def test_sweeps_at_once_promise_it_once(self, cast: Cast) -> None:
        for _ in range(120):
            reserved(cast, starts_in_h=20)
        done = at_once([reminders.promise_due] * 4)
        assert sum(counts["rental_reminder"] for counts in done) == 120
        assert len(set(promised("rental_reminder"))) == len(promised("rental_reminder")) == 120

    def test_a_booking_made_within_the_day_gets_none(self, cast: Cast) -> None:
        reserved(cast, starts_in_h=20, booked_h_ago=1)
        assert reminders.promise_due()["rental_reminder"] == 0

    def test_a_rental_that_moves_away_is_reminded_of_again_before_its_new_start(self, cast: Cast) -> None:
        rental = reserved(cast, starts_in_h=20)
        reminders.promise_due()
        self.move(rental, starts_in_h=100, moved_h_ago=1)
        assert reminders.promise_due()["rental_reminder"] == 0
        self.move(rental, starts_in_h=23, moved_h_ago=90)
        assert reminders.promise_due()["rental_reminder"] == 1
        assert promised("rental_reminder") == [rental.id, rental.id]

    def test_a_rental_that_moves_near_had_its_letter_just_now(self, cast: Cast) -> None:
        rental = reserved(cast, starts_in_h=100)
        self.move(rental, starts_in_h=5, moved_h_ago=0)
        assert reminders.promise_due()["rental_reminder"] == 0

    def test_what_is_not_reserved_or_has_begun_gets_none(self, cast: Cast) -> None:
        reserved(cast, starts_in_h=-1)
        for status in ("cancelled", "no_show", "expired"):
            reserved(cast, starts_in_h=20, status=status)
        assert reminders.promise_due()["rental_reminder"] == 0

    def test_how_early_is_a_setting_and_nil_switches_them_off(self, cast: Cast, asked_of: Any) -> None:
        reserved(cast, starts_in_h=20)
        asked_of(reminder_hours=0)
        assert "rental_reminder" not in reminders.promise_due()
        assert promised("rental_reminder") == []
        asked_of(reminder_hours=19)
        assert reminders.promise_due()["rental_reminder"] == 0
        asked_of(reminder_hours=21)
        assert reminders.promise_due()["rental_reminder"] == 1

    def test_many_are_promised_in_batches(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reminders, "BATCH", 2)
        for _ in range(5):
            reserved(cast, starts_in_h=20)
        assert [reminders.promise_due()["rental_reminder"] for _ in range(2)] == [5, 0]

    def test_a_run_ends_with_its_time_after_each_kind_had_its_turn(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reminders, "BATCH", 2)
        for _ in range(5):
            reserved(cast, starts_in_h=20)
        late = out(cast, late_h=2)
        ticks = iter([0.0, 0.0, reminders.BUDGET_S])
        with monkeypatch.context() as patch:
            patch.setattr(reminders, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
            assert reminders.promise_due()["rental_reminder"] == 2
        assert promised("rental_overdue") == [late.id]
        assert reminders.promise_due()["rental_reminder"] == 3

    @staticmethod
    def move(rental: Rental, *, starts_in_h: float, moved_h_ago: float) -> None:
        """As a change of the rental does, so many hours ago."""
        start = moment(starts_in_h)
        db.execute_sql("ALTER TABLE rental DISABLE TRIGGER rental_version")
        try:
            db.execute_sql(
                "UPDATE rental SET start_at = %s, end_at = %s, updated_at = %s WHERE id = %s",
                (start, start + 48 * HOUR, moment(-moved_h_ago), rental.id),
            )
        finally:
            db.execute_sql("ALTER TABLE rental ENABLE TRIGGER rental_version")


class TestLateVehicles:
    def test_a_vehicle_that_is_late_beyond_the_grace_is_asked_back_once(self, cast: Cast) -> None:
        late = out(cast, late_h=1.1)
        assert [reminders.promise_due()["rental_overdue"] for _ in range(3)] == [1, 0, 0]
        assert promised("rental_overdue") == [late.id]

    def test_a_little_late_is_not_late(self, cast: Cast) -> None:
        out(cast, late_h=0.9)
        assert reminders.promise_due()["rental_overdue"] == 0

    def test_the_grace_is_a_setting(self, cast: Cast, asked_of: Any) -> None:
        out(cast, late_h=0.9)
        asked_of(overdue_notice_minutes=30)
        assert reminders.promise_due()["rental_overdue"] == 1

    def test_a_vehicle_that_is_late_again_after_an_extension_is_asked_back_again(self, cast: Cast) -> None:
        rental = out(cast, late_h=10)
        reminders.promise_due()
        db.execute_sql("UPDATE rental SET end_at = %s WHERE id = %s", (moment(-2), rental.id))
        assert reminders.promise_due()["rental_overdue"] == 1


class TestHoldsThatEnded:
    def test_a_hold_that_ended_is_told_once(self, cast: Cast) -> None:
        ended = expired(cast, hours_ago=0.1)
        assert [reminders.promise_due()["rental_expired"] for _ in range(3)] == [1, 0, 0]
        assert promised("rental_expired") == [ended.id]

    def test_what_ended_days_ago_is_no_news(self, cast: Cast) -> None:
        expired(cast, hours_ago=25)
        assert reminders.promise_due()["rental_expired"] == 0


# Some have two ways that are short: either will do.
DUE = {
    "rental_reserved": reminders.DUE_REMINDERS,
    "rental_active|rental_vehicle_out_once": reminders.DUE_OVERDUE,
    "rental_by_status|rental_pkey": reminders.DUE_EXPIRED,
}


@pytest.mark.parametrize("index", DUE)
def test_what_is_due_is_found_without_reading_every_rental(cast: Cast, index: str) -> None:
    one = reserved(cast, starts_in_h=20, status="expired")
    columns = [name for (name,) in db.rows(
        "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'rental' ORDER BY ordinal_position"
    )]  # fmt: skip
    changed = {
        "id": "('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid",  # all of them older than any id of today
        "number": "'OLD-' || n",
        "status": "(ARRAY['completed','completed','expired','reserved'])[1 + n %% 4]",
        "start_at": "start_at + interval '100 days'",
        "end_at": "end_at + interval '100 days'",
        "actual_start_at": "now()",
        "actual_end_at": "now()",
    }
    values = ", ".join(changed.get(name, name) for name in columns)
    names = ", ".join(columns)
    with patience(60):
        db.execute_sql(
            f"INSERT INTO rental ({names}) SELECT {values} FROM rental, generate_series(1, 4000) n WHERE id = %s", (one.id,)
        )
        db.execute_sql("ANALYZE rental")
    known = {"now": clock.now(), "window": 24 * HOUR, "grace": HOUR, "made_since": reminders.first_id_of(moment(-72))}
    plan = "\n".join(line for (line,) in db.rows(f"EXPLAIN {DUE[index]}", known))
    assert re.search(index, plan) and "Seq Scan" not in plan, plan


def test_the_sweep_and_the_letters_belong_together(cast: Cast) -> None:
    """What the sweep promises is what the consumer sends: neither takes it for outdated."""
    reserved(cast, starts_in_h=20)
    out(cast, late_h=3)
    expired(cast, hours_ago=0.1)
    maintenance.promise_notices()
    for kind in ("rental_reminder", "rental_overdue", "rental_expired"):
        [promise] = db.rows("SELECT id::text FROM outbox WHERE topic = %s", (f"notifications.{kind}",))
        getattr(consumers, kind)(list(promise))
    told = db.rows("SELECT kind, status FROM notification WHERE channel = 'email' ORDER BY kind")
    assert told == [("rental_expired", "sent"), ("rental_overdue", "sent"), ("rental_reminder", "sent")]
