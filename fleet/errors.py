"""The tree of failures. Services raise them; `fleet.http` turns each into problem+json in one place.

FleetError
├── BadRequest 400          bad_request, malformed_json, invalid_cursor, idempotency_key_required, untrusted_host,
│                           invalid_token
├── Unauthenticated 401     unauthenticated, invalid_credentials, totp_required, token_expired, invalid_signature
├── PaymentDeclined 402     payment_declined
├── Forbidden 403           forbidden, second_person_required
├── NotFound 404            not_found
├── MethodNotAllowed 405    method_not_allowed
├── Conflict 409            conflict, duplicate, in_use, journal_period_closed, last_admin, overpayment,
│   │                       refund_exceeds_payment
│   ├── InProgress          idempotency_in_progress
│   ├── InvalidState        invalid_state
│   ├── RentalOverlap       rental_overlap
│   ├── NoVehicleAvailable  no_vehicle_available
│   ├── TooManyHolds        too_many_holds
│   ├── TooManyReservations too_many_reservations
│   └── OdometerOutOfSequence odometer_out_of_sequence
├── LengthRequired 411      length_required
├── VersionConflict 412     version_conflict
├── BodyTooLarge 413        body_too_large
├── UriTooLong 414          uri_too_long
├── UnsupportedMediaType 415 unsupported_media_type
├── Invalid 422             validation_error, unknown_field, idempotency_key_reused, entry_unbalanced,
│                           weak_password, amount_too_large, card_payments_disabled
├── PreconditionRequired 428 precondition_required
├── RateLimited 429         rate_limited
├── HeadersTooLarge 431     headers_too_large
└── Unavailable 503         dependency_unavailable
    └── Overloaded          overloaded
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import peewee


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of the input; `field` is a dotted path."""

    field: str
    code: str
    message: str


class FleetError(Exception):
    """A failure with a stable code. `extra` joins the problem document, `headers` the response."""

    status = 500
    code = "internal_error"
    title = "Internal error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        errors: list[FieldError] | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail
        self.code = code or self.code
        self.errors = errors or []
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


class BadRequest(FleetError):
    status, code, title = 400, "bad_request", "The request cannot be understood"


class Unauthenticated(FleetError):
    status, code, title = 401, "unauthenticated", "Authentication is needed"

    def __init__(self, detail: str | None = None, *, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"WWW-Authenticate": 'Bearer realm="fleet"'})


class PaymentDeclined(FleetError):
    """The gateway refused the card for good. `failure_code` says why, `payment_id` is the payment that failed."""

    status, code, title = 402, "payment_declined", "The card was declined"

    def __init__(self, payment_id: UUID, failure_code: str) -> None:
        super().__init__(extra={"payment_id": payment_id, "failure_code": failure_code})


class Forbidden(FleetError):
    status, code, title = 403, "forbidden", "Your role does not allow this"


class NotFound(FleetError):
    status, code, title = 404, "not_found", "There is no such thing, or it is not yours to see"


class MethodNotAllowed(FleetError):
    status, code, title = 405, "method_not_allowed", "This path does not take that method"


class Conflict(FleetError):
    status, code, title = 409, "conflict", "The request conflicts with the current state"


class InProgress(Conflict):
    """The first request with this key has not ended yet, or ended in this instant: ask again."""

    code, title = "idempotency_in_progress", "A request with this key is still running"

    def __init__(self) -> None:
        super().__init__(headers={"Retry-After": "1"})


class InvalidState(Conflict):
    code, title = "invalid_state", "The current state does not allow this"


class RentalOverlap(Conflict):
    code, title = "rental_overlap", "The vehicle is taken in that period"


class NoVehicleAvailable(Conflict):
    code, title = "no_vehicle_available", "No vehicle of the class is free in that period"


class TooManyHolds(Conflict):
    code, title = "too_many_holds", "The customer holds as many vehicles as may be held at once"


class TooManyReservations(Conflict):
    code, title = "too_many_reservations", "The customer has as many open reservations as may be"


class OdometerOutOfSequence(Conflict):
    code, title = "odometer_out_of_sequence", "The reading contradicts another one"


class LengthRequired(FleetError):
    status, code, title = 411, "length_required", "Send a Content-Length"


class VersionConflict(FleetError):
    status, code, title = 412, "version_conflict", "Somebody else changed it meanwhile"


class BodyTooLarge(FleetError):
    status, code, title = 413, "body_too_large", "The body is too large"


class UriTooLong(FleetError):
    status, code, title = 414, "uri_too_long", "The address is too long"


class UnsupportedMediaType(FleetError):
    status, code, title = 415, "unsupported_media_type", "Send application/json"


class Invalid(FleetError):
    status, code, title = 422, "validation_error", "The input is not valid"

    @classmethod
    def field(cls, field: str, code: str, message: str) -> "Invalid":
        """One wrong field."""
        return cls(f"{field}: {message}", errors=[FieldError(field, code, message)])


class PreconditionRequired(FleetError):
    status, code, title = 428, "precondition_required", "Send If-Match with the version that you read"


class RateLimited(FleetError):
    status, code, title = 429, "rate_limited", "Too many requests"


class HeadersTooLarge(FleetError):
    status, code, title = 431, "headers_too_large", "The headers are too large"


class Unavailable(FleetError):
    status, code, title = 503, "dependency_unavailable", "Something that this needs is away; try again soon"

    def __init__(self, detail: str | None = None, *, retry_after_s: int = 1) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after_s)})


class Overloaded(Unavailable):
    """Nothing was done: more came than could be served in time."""

    code, title = "overloaded", "Too much to do at this moment; try again soon"


# The database refuses last, for the truth. Each constraint that a client's input can reach has its error here; one that
# is not listed is a defect of ours and answers 500.
NO_OVERLAP = "vehicle_block_no_overlap"
CONSTRAINTS: dict[str, type[FleetError] | tuple[type[FleetError], str]] = {
    "user_email_key": (Conflict, "duplicate"),
    "branch_code_key": (Conflict, "duplicate"),
    "vehicle_class_code_key": (Conflict, "duplicate"),
    "vehicle_plate_number_key": (Conflict, "duplicate"),
    "vehicle_vin_key": (Conflict, "duplicate"),
    "customer_email_key": (Conflict, "duplicate"),
    "customer_driver_license_number_key": (Conflict, "duplicate"),
    "customer_driver_license_digest_key": (Conflict, "duplicate"),
    "customer_user_key": (Conflict, "duplicate"),
    "ledger_account_pkey": (Conflict, "duplicate"),
    NO_OVERLAP: RentalOverlap,
    "rental_pickup_branch_id_fkey": Invalid,
    "rental_dropoff_branch_id_fkey": Invalid,
    # The first request committed between our look at its key and our own record: the advisory lock was free by then.
    "idempotency_record_pkey": InProgress,
    "rental_vehicle_out_once": InvalidState,
    "vehicle_transition": InvalidState,
    "webhook_delivery_transition": InvalidState,
    "rental_transition": InvalidState,
    "invoice_transition": InvalidState,
    "odometer_sequence": OdometerOutOfSequence,
    "vehicle_rate_somewhere": Invalid,
    "rental_odometer": OdometerOutOfSequence,
    "invoice_not_oversettled": (Conflict, "overpayment"),
    "payment_transition": InvalidState,
    "payment_not_overrefunded": (Conflict, "refund_exceeds_payment"),
    # Its advisory lock lets one request at a time look for the payment of a key; this is what remains if it did not.
    "payment_claim_key": InProgress,
    "refund_transition": InvalidState,
    "refund_second_person": (Forbidden, "second_person_required"),
    "journal_entry_source_key": (Conflict, "duplicate"),
    "journal_entry_balanced": (Invalid, "entry_unbalanced"),
    "journal_entry_period_open": (Conflict, "journal_period_closed"),
    "journal_entry_reversed_once": (Conflict, "duplicate"),
    "journal_line_account_active": Invalid,
    "journal_line_account_code_fkey": Invalid,
}

# SQLSTATEs by which PostgreSQL says "not now" (lock and statement timeouts, deadlock, serialization, shutdown, too many
# connections) rather than "never".
_NOT_NOW = {"55P03", "57014", "40P01", "40001", "57P01", "57P02", "57P03", "53300", "25P03", "25P02"}
_STILL_REFERENCED = "23503"


def constraint_of(error: peewee.PeeweeException) -> str:
    """The name of the constraint that refused; empty where none did."""
    diagnosis = getattr(getattr(error, "orig", None), "diag", None)
    return getattr(diagnosis, "constraint_name", None) or ""


def from_database(error: peewee.PeeweeException) -> FleetError | None:
    """What a refusal by the database means to a client; None when it is a defect of ours."""
    driver = getattr(error, "orig", None)
    state = getattr(driver, "pgcode", None)
    if state in _NOT_NOW or (state is None and isinstance(error, peewee.OperationalError | peewee.InterfaceError)):
        return Unavailable()
    known = CONSTRAINTS.get(constraint_of(error))
    if isinstance(known, tuple):
        kind, code = known
        return kind(code=code)
    if known is not None:
        return known()
    if state == _STILL_REFERENCED and isinstance(error, peewee.IntegrityError):
        return Conflict("Something else still refers to it", code="in_use")
    return None
