"""What every column of every table is, how long its rows are kept, and what becomes of it when a person is erased.

The one place where that is said. It drives what is masked in logs and in the audit log; the tests hold to it the database (no
column is left out), retention, the export and the erasure of a person, and docs/security/privacy.md.

- public: may be shown to everybody who may sign in.
- internal: of the business; it names people by their ids at most, which lead to nobody once the person is erased.
- personal: tells of a person. - sensitive: of a person, and shown to few of those who see the rest. - secret: opens something.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    PUBLIC = "public"
    INTERNAL = "internal"
    PERSONAL = "personal"
    SENSITIVE = "sensitive"
    SECRET = "secret"  # noqa: S105 - the name of a kind


class Fate(StrEnum):
    """What an erasure does to a personal value, at once unless said otherwise."""

    OVERWRITTEN = "overwritten"
    DELETED = "deleted"
    EXPIRES = "goes with its row"
    KEPT = "kept"


class Held(NamedTuple):
    """A value that tells of a person: where the export has it, its fate at an erasure, and why, where that is not obvious.

    `export` is a path in the answer of GET /v1/customers/<id>/export; "" where it is not in there, for the reason given.
    """

    export: str
    fate: Fate
    why: str = ""
    kind: Kind = Kind.PERSONAL


@dataclass(frozen=True)
class Table:
    """A table's columns by kind (names with spaces between) and how long a row is kept, `kept`, counted from `since`.

    `kept` None: as long as the business keeps its books, or until somebody removes the row.
    """

    kept: timedelta | None = None
    since: str = "for good"
    public: str = ""
    internal: str = ""
    hidden: str = ""
    """Secrets: digests, which nobody can read back."""
    sealed: str = ""
    """Secrets that have to be read again: encrypted (fleet.sealing)."""
    people: Mapping[str, Held] = field(default_factory=dict)

    def kinds(self) -> Iterator[tuple[str, Kind]]:
        """Each column with its kind."""
        secrets = f"{self.hidden} {self.sealed}"
        for kind, names in ((Kind.PUBLIC, self.public), (Kind.INTERNAL, self.internal), (Kind.SECRET, secrets)):
            yield from ((name, kind) for name in names.split())
        yield from ((name, held.kind) for name, held in self.people.items())


_BOOKS = "part of the books, which the law wants unchanged"
_STAFF_WORDS = "the words of staff about a decision, kept with the books; given out by hand"
_VERSIONED = "version created_at updated_at"


def _erased(place: str, *names: str, kind: Kind = Kind.PERSONAL) -> dict[str, Held]:
    return {name: Held(f"{place}.{name}", Fate.OVERWRITTEN, kind=kind) for name in names}


TABLES: dict[str, Table] = {
    # --- people
    "customer": Table(
        since="until the person is erased",
        internal=f"id user_id status erased_at {_VERSIONED}",
        hidden="driver_license_digest",
        sealed="driver_license_sealed",
        people={
            **_erased("profile", "first_name", "last_name", "email", "phone", "address", "language", "driver_license_expiry"),
            **_erased("profile", "driver_license_number", "date_of_birth", kind=Kind.SENSITIVE),
        },
    ),
    "user_account": Table(
        since="until the person is erased",
        internal=f"id roles deactivated_at email_verified_at {_VERSIONED}",
        hidden="password_hash",
        people=_erased("account", "email", "first_name", "last_name", "phone"),
    ),
    "user_session": Table(
        kept=timedelta(days=30),
        since="its end",
        internal="id user_id expires_at ended_at end_reason",
        people={
            name: Held(f"sessions.{name}", Fate.EXPIRES, "the session ends at once") for name in ("created_at", "last_used_at")
        },
    ),
    "api_key": Table(
        internal="id user_id prefix permissions created_at expires_at revoked_at",
        hidden="key_hash",
        people={
            **_erased("api_keys", "name"),
            "last_used_at": Held("api_keys.last_used_at", Fate.KEPT, "tells whether a key was misused; the key is revoked"),
        },
    ),
    "refresh_token": Table(
        kept=timedelta(days=30), since="its issue", internal="session_id issued_at used_at", hidden="token_hash"
    ),
    "account_token": Table(
        kept=timedelta(days=1),
        since="its end or expiry",
        internal="user_id purpose promise_id created_at expires_at ended_at",
        hidden="token_hash",
    ),
    "second_factor": Table(
        since="until its user or an admin removes it",
        internal="user_id created_at confirmed_at last_step failures",
        sealed="secret",
    ),
    "recovery_code": Table(since="as long as its second factor", internal="user_id used_at", hidden="code_hash"),
    "login_throttle": Table(
        kept=timedelta(minutes=15),
        since="the last failure",
        internal="failures last_failure_at",
        people={"account_hash": Held("", Fate.EXPIRES, "a digest of what somebody typed, for a quarter of an hour")},
    ),
    "notification_preference": Table(
        since="until the person is erased",
        internal=f"customer_id {_VERSIONED}",
        people={
            name: Held("notification_preferences.kinds", Fate.DELETED) for name in ("email_kinds", "sms_kinds")
        },
    ),
    "notification": Table(
        internal="id kind channel customer_id rental_id invoice_id payment_id refund_id status reason created_at "
        "attempted_at sent_at"
    ),
    # --- rentals and the calendar
    "rental": Table(
        internal="id number status vehicle_id class_id customer_id start_at end_at hold_expires_at actual_start_at "
        "actual_end_at pickup_branch_id dropoff_branch_id daily_rate currency base_amount total_amount deposit_amount terms "
        f"start_odometer_km end_odometer_km start_fuel_percent end_fuel_percent created_by {_VERSIONED}",
        people=_erased("rentals", "notes", "cancel_reason"),
    ),
    "rental_charge": Table(
        internal="id rental_id type amount created_by created_at",
        people={"description": Held("rentals.charges.description", Fate.KEPT, _BOOKS)},
    ),
    "rental_notice": Table(internal="rental_id kind about_at created_at"),
    "vehicle_block": Table(internal="id vehicle_id kind rental_id start_at end_at occupied live reason created_by created_at"),
    # --- the fleet
    "branch": Table(public=f"id code name timezone currency tax_code address phone email opening_hours {_VERSIONED}"),
    "vehicle_class": Table(
        public="id code name description daily_rate currency late_fee_per_hour fuel_fee_per_percent cancellation_fee "
        f"free_cancellation_hours no_show_fee turnaround_before_minutes turnaround_after_minutes {_VERSIONED}"
    ),
    "vehicle": Table(
        public="id make model year class_id branch_id fuel_type transmission color passenger_capacity daily_rate currency",
        internal=f"plate_number vin status odometer_km odometer_epoch initial_odometer_km retired_at {_VERSIONED}",
    ),
    "odometer_reading": Table(
        internal="id vehicle_id epoch reading_km measured_at source recorded_by voided_at void_reason created_at"
    ),
    "tax_code": Table(public="code name rate_bps"),
    # --- the books
    "invoice": Table(
        internal="id number status customer_id rental_id currency net_amount tax_amount total_amount settled_amount "
        f"credited_amount pending_amount issued_at due_at issued_txid {_VERSIONED}"
    ),
    "invoice_line": Table(
        internal="invoice_id position type rule quantity unit_amount net_amount tax_code tax_bps tax_amount",
        people={"description": Held("invoices.lines.description", Fate.KEPT, _BOOKS)},
    ),
    "payment": Table(
        internal="id status invoice_id customer_id currency amount refunded_amount method recorded_by captured_at failed_at "
        f"failure_code gateway_reference attempt_ends_at {_VERSIONED}",
        hidden="claim request_print",
        people={"reference": Held("payments.reference", Fate.KEPT, _BOOKS)},
    ),
    "refund": Table(
        internal="id status payment_id amount needs_approval requested_by approved_by approved_at rejected_by rejected_at "
        f"sent_at settled_at failed_at failure_code gateway_reference attempt_ends_at {_VERSIONED}",
        people={name: Held("", Fate.KEPT, _STAFF_WORDS) for name in ("reason", "rejection_reason")},
    ),
    "dispute": Table(internal=f"id status payment_id amount fee_amount reason gateway_reference closed_at {_VERSIONED}"),
    "journal_entry": Table(
        internal="id booked_on source_type source_id event line_count reverses_id recorded_by txid created_at",
        people={"memo": Held("", Fate.KEPT, f"{_BOOKS}; names invoices and payments, not people")},
    ),
    "journal_line": Table(internal="entry_id position booked_on account_code side amount currency"),
    "ledger_account": Table(internal="code name kind normal_side contra active created_at"),
    "fiscal_period": Table(internal="id span closed_at"),
    "document_counter": Table(internal="series last_number"),
    # --- what the service remembers of its own work
    "idempotency_record": Table(
        kept=timedelta(hours=24),
        since="the request",
        internal="actor method path key status headers created_at",
        hidden="fingerprint",
        people={"body": Held("", Fate.DELETED, "repeats for a day what was answered once", Kind.SENSITIVE)},
    ),
    "audit_event": Table(
        since="for good, or for AUDIT_KEEP_DAYS",
        internal="id at actor action object_type object_id before after request_id",
        people={"address": Held("", Fate.KEPT, "who did what from where; nothing may change it, so that it can be believed")},
    ),
    "audit_seal": Table(internal="position event_id key_id previous hash"),
    "audit_anchor": Table(internal="position key_id hash mac made_at"),
    "audit_unsealed": Table(since="until it is sealed", internal="event_id"),
    "outbox": Table(
        kept=timedelta(days=7),
        since="its confirmation (180 days where somebody discarded it)",
        internal="id topic queue aggregate_type aggregate_id payload request_id traceparent created_at next_attempt_at "
        "publishes deliveries confirmed_at dead_at last_error last_error_at first_error_at replays replayed_at discarded_at "
        "discarded_by discard_reason",
    ),
    "inbox": Table(kept=timedelta(days=8), since="its work", internal="consumer message_id processed_at"),
    "event": Table(
        kept=timedelta(days=90),
        since="it happened",
        internal="id insert_order position type occurred_at aggregate_type aggregate_id schema_version data",
    ),
    "webhook_endpoint": Table(
        since="until it is removed",
        internal="id event_types description enabled disabled_reason disabled_at previous_secret_until created_by "
        f"deleted_at {_VERSIONED} url",
        sealed="secret previous_secret",
    ),
    "webhook_health": Table(internal="endpoint_id failing_since failures rest_until last_success_at last_failure_at slow"),
    "webhook_delivery": Table(
        kept=timedelta(days=30),
        since="it was queued",
        internal="id endpoint_id event_id status attempts attempts_before next_attempt_at leased_until last_attempt_at "
        "delivered_at dead_at response_status last_error duration_ms created_at",
    ),
    "breaker_control": Table(internal="name state epoch controlled_by reason controlled_at"),
    "process_report": Table(kept=timedelta(days=1), since="its last report", internal="name kind reported_at queues paused "
    "handled"),
    "lifecycle_transition": Table(internal="thing from_status to_status"),
    "schema_migration": Table(internal="id name applied"),
}

_OPEN = frozenset(name for table in TABLES.values() for name, kind in table.kinds() if kind in {Kind.PUBLIC, Kind.INTERNAL})
PRIVATE = frozenset(name for table in TABLES.values() for name, _ in table.kinds()) - _OPEN
"""Columns that are personal, sensitive or secret wherever they occur: masked by their name alone."""
