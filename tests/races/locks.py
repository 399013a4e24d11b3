"""Which race shows when a lock is missing. A lock of the service that is not here fails the tests."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Race:
    """The test that fails without the lock, and the words with which it fails.

    `given` are the arguments of a parametrized test. `of` names the statement that the lock reaches when it is a piece of
    others; `replace` is then what is taken out of it.
    """

    test: str
    shows: str
    given: dict[str, Any] = field(default_factory=dict)
    of: str | None = None
    replace: tuple[str, str] | None = None


_CALENDAR = "tests/races/test_calendar_meetings.py::test_"
_RENTAL = "tests/races/test_rental_meetings.py::test_"
_KEY = "tests/races/test_key_meetings.py::test_"
_PEOPLE = "tests/races/test_people_meetings.py::test_"
_PROMISE = "tests/races/test_promise_meetings.py::test_"
_BOOK = "tests/races/test_book_meetings.py::test_"
_PAYMENT = "tests/races/test_payment_meetings.py::test_"
_ACCESS = "tests/races/test_access_meetings.py::test_"
_VEHICLE = "tests/races/test_vehicle_meetings.py::test_"
_EVENT = "tests/races/test_event_stream.py::test_"
_WEBHOOK = "tests/races/test_webhook_meetings.py::test_"
_LETTER = "tests/races/test_dead_letter_meetings.py::test_"
_FORGET = f"{_PROMISE}two_sweeps_share_what_is_to_be_forgotten"

LOCKS = {
    # The calendar: vehicles are shared by what takes their time, and kept by what changes them.
    "vehicle_for_update": Race(f"{_CALENDAR}a_vehicle_is_not_reserved_while_it_is_sold", "sold and reserved"),
    "_expected_for_update": Race(f"{_CALENDAR}a_vehicle_is_not_reserved_while_it_is_sold", "sold and reserved"),
    "READ_TO_RESERVE": Race(f"{_CALENDAR}a_vehicle_is_not_sold_while_its_reservation_is_written", "sold and reserved"),
    "PICK_TO_RESERVE": Race(
        f"{_CALENDAR}a_vehicle_is_not_sold_while_the_booking_of_its_class_is_written", "sold and reserved"
    ),
    "VEHICLE_TO_BLOCK_FOR_SHARE": Race(
        f"{_VEHICLE}a_vehicle_that_is_being_sold_is_looked_at_again_before_it_is_blocked", "sold and taken"
    ),
    "OVERDUE_VEHICLES_FOR_UPDATE": Race(
        f"{_VEHICLE}a_sweep_leaves_a_vehicle_that_is_being_booked_to_the_next_one", "ran into the booking"
    ),
    # Rentals
    "rental_for_update": Race(
        f"{_RENTAL}a_hold_that_is_confirmed_in_time_does_not_expire_meanwhile", "expired under its confirmation"
    ),
    "EXPIRE_HOLDS": Race(
        f"{_RENTAL}the_sweep_of_holds_passes_by_one_that_is_being_cancelled", "ran into the cancellation"
    ),
    "VEHICLE_TO_GIVE_UP_FOR_UPDATE": Race(
        f"{_RENTAL}the_sweep_of_no_shows_passes_by_a_rental_that_is_being_handed_over", "ran into the handover"
    ),
    # Idempotency keys
    "_CLAIM_COLUMNS": Race(
        f"{_KEY}a_second_booking_with_the_key_does_not_wait_for_the_first",
        "waited on the key",
        of="PICK_TO_RESERVE",
        replace=("pg_try_advisory_xact_lock($1)", "($1 IS NOT NULL)"),
    ),
    "_TAKE": Race(f"{_KEY}a_second_charge_with_the_key_does_not_wait_for_the_first", "waited on the key"),
    # People and classes
    "_CUSTOMER_SOURCE": Race(
        f"{_PEOPLE}a_customer_whose_booking_is_being_written_is_not_erased",
        "erased with a booking",
        of="READ_TO_RESERVE",
        replace=(" FOR KEY SHARE", ""),
    ),
    "CUSTOMER_TO_BOOK_FOR_UPDATE": Race(
        f"{_PEOPLE}of_two_holds_at_once_for_the_last_place_one_is_refused", "one hold too many"
    ),
    "customer_for_update": Race(f"{_PEOPLE}a_customer_who_is_being_erased_books_nothing", "erased with a booking"),
    "_standing_for_update": Race(f"{_PEOPLE}a_customer_who_is_being_erased_books_nothing", "erased with a booking"),
    "rentals_of_customer_for_update": Race(
        f"{_PEOPLE}an_erasure_waits_for_the_charge_on_a_rental_and_does_not_deadlock", "a deadlock"
    ),
    "user_for_update": Race(
        f"{_PEOPLE}an_erasure_leaves_the_account_of_somebody_who_is_being_hired", "did not see the new roles"
    ),
    "active_admins_for_update": Race(
        f"{_ACCESS}two_admins_who_deactivate_each_other_at_once_leave_one", "no admin is left"
    ),
    "proven_user_for_share": Race(
        f"{_ACCESS}a_session_that_the_old_password_opens_ends_with_its_change", "the old password lives on"
    ),
    "class_for_update": Race(
        f"{_VEHICLE}a_vehicle_is_not_registered_at_a_price_that_is_being_taken_back", "a vehicle without a price"
    ),
    "class_for_share": Race(
        f"{_VEHICLE}a_class_keeps_the_price_that_a_vehicle_is_being_registered_at",
        "a vehicle without a price",
        given={"changes": {"daily_rate": None}},
    ),
    # Money
    "invoice_for_update": Race(f"{_PAYMENT}of_two_payments_in_part_at_once_both_count", "a payment was turned away"),
    "payable_for_update": Race(f"{_PAYMENT}of_two_payments_in_part_at_once_both_count", "a payment was turned away"),
    "payment_for_update": Race(f"{_PAYMENT}of_two_refunds_in_part_at_once_both_count", "a refund was turned away"),
    "CLAIM_PENDING": Race(f"{_PAYMENT}two_sweeps_share_the_pending_payments", "waited for the other"),
    "CLAIM_SENT_REFUNDS": Race(f"{_PAYMENT}two_sweeps_share_the_refunds_that_were_sent", "waited for the other"),
    # Promises
    "CLAIM_DUE": Race(f"{_PROMISE}two_relays_do_not_claim_the_same_promise", "claimed twice"),
    "_LOCKED": Race(
        f"{_PROMISE}a_first_delivery_is_counted_for_one_worker", "delivered twice", of="COUNT_FIRST_DELIVERIES"
    ),
    "CONFIRM": Race(f"{_PROMISE}batches_that_overlap_are_confirmed_without_a_deadlock", "a deadlock"),
    "BURY_EXHAUSTED": Race(f"{_PROMISE}two_sweeps_share_what_is_exhausted", "waited for the other"),
    **{
        lock: Race(_FORGET, "waited for the other", given={"table": table})
        for lock, table in {
            "FORGET_CONFIRMED": "outbox",
            "FORGET_RECEIVED": "inbox",
            "FORGET_ANSWERS": "idempotency_record",
            "FORGET_SESSIONS": "user_session",
            "FORGET_TOKENS": "refresh_token",
            "FORGET_FAILURES": "login_throttle",
            "FORGET_ACCOUNT_TOKENS": "account_token",
            "FORGET_EVENTS": "event",
            "FORGET_DELIVERIES": "webhook_delivery",
            "FORGET_PROCESSES": "process_report",
        }.items()
    },
    # Events
    "SEQUENCER": Race(f"{_EVENT}two_sequencers_do_not_place_the_same_event", "not one after the other"),
    "CLAIMING": Race(f"{_WEBHOOK}an_endpoint_that_fails_is_tried_by_one_relay_alone", "two at once"),
    # The audit log
    "SEALER": Race("tests/races/test_audit_meetings.py::test_two_sealers_do_not_seal_the_same_event", "sealed by both"),
    # Dead letters
    "letter_for_update": Race(f"{_LETTER}two_who_replay_a_letter_at_once_replay_it_once", "replayed twice"),
    "letters_for_update": Race(f"{_LETTER}two_who_replay_the_same_choice_share_it", "waited for the other"),
    "FORGET_DISCARDED": Race(f"{_LETTER}a_letter_that_is_being_replayed_is_not_forgotten", "forgotten all the same"),
    # The database's own guards
    "guard_odometer": Race(
        f"{_BOOK}two_readings_typed_at_once_do_not_contradict_each_other", "both in order alone, and not together"
    ),
    "guard_line_in_time": Race(
        f"{_BOOK}no_line_joins_an_invoice_that_is_being_issued", "another invoice than was issued"
    ),
    "guard_period_open": Race(
        f"{_BOOK}nothing_is_booked_in_a_period_that_is_being_closed", "booked in a closed period"
    ),
}
