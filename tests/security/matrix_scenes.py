"""What the operations of the role matrix are asked with: for each that needs it, a thing made ready to be acted on, and a body.

An operation without a scene is called with no path variable and no body. A scene is made anew for each call that is to
succeed, so that one call does not use up what the next one needs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fleet import auth, breakers, clock
from fleet.db import db
from fleet.rules import unsubscribing
from fleet.services import events, preferences
from tests.accounts import Telephone, enrolled
from tests.books import SCRATCH, issued, posted
from tests.cast import PASSWORD, Cast, Person, at, insert, iso
from tests.money import given_back, id_of, paid, wish
from tests.races.scenes import begun, out, reserved, window
from tests.stripe_server import GOOD_CARD, event, signature
from tests.tasks.outboxes import dead_letter

_numbers = count(1)


@dataclass
class Ask:
    """One call: path variables, body (bytes as they are) and query. `by` is who calls, where it cannot be just anybody."""

    ids: dict[str, Any] = field(default_factory=dict)
    body: Any = None
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    by: Person | None = None


@dataclass(frozen=True)
class Stage:
    """Who owns the thing that is asked for, and who asks."""

    cast: Cast
    owner: Person
    caller: Person


Scene = Callable[[Stage], Ask]


def fresh(prefix: str = "M") -> str:
    """A name that was not there before."""
    return f"{prefix}{next(_numbers):05}"


# --- rentals and money ------------------------------------------------------------------------------------------------


def _rental(make: Callable[..., str], stage: Stage, *, body: Any = None, **wanted: Any) -> Ask:
    path = make(stage.cast, vehicle_id=stage.cast.vehicle(), customer_id=stage.owner.customer_id, **wanted)
    return Ask({"rental_id": id_of(path)}, body)


def _reserve(stage: Stage) -> Ask:
    return Ask(body={"customer_id": stage.owner.customer_id, "vehicle_id": stage.cast.vehicle(), **window(1, 2)})


def _invoice(stage: Stage) -> Ask:
    return Ask({"invoice_id": issued(stage.cast, renter=stage.owner).id})


def _pay(stage: Stage) -> Ask:
    invoice = issued(stage.cast, renter=stage.owner)
    by_card = "customer" in stage.caller.roles
    return Ask(body=wish(invoice, method="card", reference=GOOD_CARD) if by_card else wish(invoice))


def _payment(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"payment_id": id_of(paid(stage.cast, issued(stage.cast, renter=stage.owner)))}, body)


def _refund(stage: Stage, *, body: Any = None) -> Ask:
    """One that waits for a second person: the agent asked for it."""
    payment = paid(stage.cast, issued(stage.cast, *[SCRATCH] * 11, renter=stage.owner), method="bank_transfer")
    return Ask({"refund_id": id_of(given_back(stage.cast, payment, amount=50_001))}, body)


def _entry(stage: Stage, *, body: Any = None) -> Ask:
    posted(stage.cast)
    return Ask({"entry_id": db.rows("SELECT max(id::text) FROM journal_entry WHERE reverses_id IS NULL")[0][0]}, body)


LINES = [{"account": account, "side": side, "amount": 5, "currency": "EUR"}
         for account, side in (("1000", "debit"), ("3000", "credit"))]  # fmt: skip


# --- people -----------------------------------------------------------------------------------------------------------


def _person() -> dict[str, Any]:
    email = f"{fresh('new-').lower()}@example.com"
    return {"first_name": "New", "last_name": "Person", "email": email, "phone": "+351210000000"}


def _customer(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"customer_id": stage.owner.customer_id}, body)


def _create_customer(stage: Stage) -> Ask:
    by = stage.cast.person("customer") if "customer" in stage.caller.roles else None
    return Ask(body={**_person(), "driver_license_number": fresh("L"), "driver_license_expiry": "2099-12-31"}, by=by)


def _user(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"user_id": stage.cast.person("driver").user_id}, body)


def _change_password(stage: Stage) -> Ask:
    body = {"current_password": PASSWORD, "new_password": "another horse battery staple"}
    return Ask(body=body, by=stage.cast.person(*stage.caller.roles))


def _login(stage: Stage) -> Ask:
    return Ask(body={"email": stage.cast.ben.email, "password": PASSWORD})


def _held_token(stage: Stage) -> Ask:
    token = auth.new_secret()
    row = (auth.secret_hash(token), stage.cast.person("driver").session_id)
    db.execute_sql("INSERT INTO refresh_token (token_hash, session_id) VALUES (%s, %s)", row)
    return Ask(body={"refresh_token": token})


def _api_key(stage: Stage) -> Ask:
    number = next(_numbers)
    key_id = insert(
        "api_key", user_id=stage.owner.user_id, name="A key", prefix=f"flt_{number:04}", expires_at=at(30),
        key_hash=number.to_bytes(32, "big"), permissions=["branches.read"],
    )  # fmt: skip
    return Ask({"key_id": key_id})


def _session(stage: Stage) -> Ask:
    """One beside the session that they ask in."""
    return Ask({"session_id": insert("user_session", user_id=stage.owner.user_id, expires_at=at(30))})


def _spare(stage: Stage) -> Person:
    """Somebody of the caller's role; of staff where a customer calls, who can have no second factor."""
    staff = [role for role in stage.caller.roles if role != "customer"]
    return stage.cast.person(*staff or ["driver"])


def _ask_for_verification(stage: Stage) -> Ask:
    return Ask(by=stage.cast.person(*stage.caller.roles))


def _account_token(stage: Stage, *, purpose: str, **body: Any) -> Ask:
    """What a letter brought somebody."""
    token, now = auth.new_secret(), clock.now()
    bearer = stage.cast.person("driver").user_id
    row = (auth.secret_hash(token), bearer, purpose, clock.new_id(), now, now + timedelta(minutes=9))
    columns = "token_hash, user_id, purpose, promise_id, created_at, expires_at"
    db.execute_sql(f"INSERT INTO account_token ({columns}) VALUES (%s, %s, %s, %s, %s, %s)", row)
    return Ask(body={"token": token, **body})


def _confirm_factor(stage: Stage) -> Ask:
    by = _spare(stage)
    begun = by.post("/v1/auth/second-factor", {"current_password": PASSWORD})
    return Ask(body={"totp": Telephone(begun.json["secret"]).code()}, by=by)


def _factor(stage: Stage) -> Ask:
    """One that is in force, and what it takes to be rid of it."""
    by = _spare(stage)
    telephone, _ = enrolled(by)
    return Ask(body={"current_password": PASSWORD, "totp": telephone.code()}, by=by)


def _factor_of_user(stage: Stage) -> Ask:
    user = stage.cast.person("driver")
    enrolled(user)
    return Ask({"user_id": user.user_id})


def _unsubscribe(stage: Stage) -> Ask:
    key, customer_id = preferences._keys()[0], stage.owner.customer_id
    assert customer_id is not None
    token = unsubscribing.token(key, customer_id=customer_id, kind="rental_reminder", now=clock.now())
    return Ask(query=urlencode({"token": token}))


# --- vehicles ---------------------------------------------------------------------------------------------------------


def _branch(stage: Stage, *, body: Any = None) -> Ask:
    made = {"code": fresh(), "name": "A branch", "timezone": "UTC", "currency": "EUR"}
    return Ask({"branch_id": insert("branch", **made)}, body)


def _class(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"class_id": insert("vehicle_class", code=fresh(), name="A class", daily_rate=100, currency="EUR")}, body)


def _vehicle(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"vehicle_id": stage.cast.vehicle()}, body)


def _reading(stage: Stage) -> Ask:
    vehicle_id = stage.cast.vehicle()
    answer = stage.cast.manager.post(f"/v1/vehicles/{vehicle_id}/odometer-readings", {"reading_km": 7})
    return Ask({"vehicle_id": vehicle_id, "reading_id": answer.json["id"]})


def _block(stage: Stage) -> Ask:
    vehicle_id = stage.cast.vehicle()
    answer = stage.cast.manager.post(f"/v1/vehicles/{vehicle_id}/blocks", window(1, 2))
    return Ask({"vehicle_id": vehicle_id, "block_id": answer.json["id"]})


def _wanted(stage: Stage) -> Ask:
    return Ask(query=urlencode(window(1, 2)))


# --- operators --------------------------------------------------------------------------------------------------------

HOOK = {"url": "https://203.0.114.7/hooks"}


def _endpoint(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"endpoint_id": UUID(stage.cast.admin.post("/v1/webhook-endpoints", HOOK).json["id"])}, body)


def _delivery(stage: Stage) -> Ask:
    """One that was given up, so that it can be sent again."""
    endpoint_id = _endpoint(stage).ids["endpoint_id"]
    events.record("rental.reserved", "rental", clock.new_id(), {})
    while events.put_in_order():
        pass
    db.execute_sql("UPDATE webhook_delivery SET status = 'dead', dead_at = now() WHERE status = 'queued'")
    found = db.rows("SELECT id FROM webhook_delivery WHERE endpoint_id = %s", (endpoint_id,))
    return Ask({"delivery_id": found[0][0]})


def _letter(stage: Stage, *, body: Any = None) -> Ask:
    return Ask({"letter_id": dead_letter()}, body)


def _breaker(stage: Stage) -> Ask:
    breakers.breaker("smtp")
    return Ask({"name": "smtp"}, {"reason": "As the matrix says"})


def _signed_event(stage: Stage) -> Ask:
    payload = event("customer.created", {"id": fresh("cus_"), "object": "customer"})
    return Ask(body=payload, headers={"Stripe-Signature": signature(payload)})


SCENES: dict[str, Scene] = {
    "access_change_password": _change_password,
    "access_login": _login,
    "access_logout": _held_token,
    "access_refresh": _held_token,
    "api_keys_create": lambda stage: Ask(body={"name": "A key", "permissions": ["branches.read"]}),
    "api_keys_revoke": _api_key,
    "api_keys_show": _api_key,
    "branches_change": partial(_branch, body={"name": "Renamed"}),
    "branches_create": lambda stage: Ask(body={"code": fresh(), "name": "New", "timezone": "UTC", "currency": "EUR"}),
    "branches_remove": _branch,
    "branches_show": _branch,
    "cache_flush": lambda stage: Ask(body={}),
    "calendar_block": partial(_vehicle, body={"start_at": iso(at(1)), "end_at": iso(at(2))}),
    "calendar_feed": _vehicle,
    "calendar_free": _wanted,
    "calendar_show": _vehicle,
    "calendar_show_block": _block,
    "calendar_summary": _wanted,
    "calendar_unblock": _block,
    "card_events_take": _signed_event,
    "circuit_breakers_force_closed": _breaker,
    "circuit_breakers_force_open": _breaker,
    "circuit_breakers_release": _breaker,
    "customers_change": partial(_customer, body={"first_name": "Renamed"}),
    "customers_create": _create_customer,
    "customers_deactivate": _customer,
    "customers_erase": _customer,
    "customers_export": _customer,
    "customers_show": _customer,
    "dead_letters_discard": partial(_letter, body={"reason": "As the matrix says"}),
    "dead_letters_replay": _letter,
    "dead_letters_replay_chosen": lambda stage: Ask(body={"topic": "accounting.post_invoice"}),
    "dead_letters_show": _letter,
    "invoices_document": _invoice,
    "invoices_show": _invoice,
    "ledger_balance": lambda stage: Ask({"code": "1000"}),
    "ledger_open_account": lambda stage: Ask(body={"code": f"{next(_numbers) % 1000 + 8000}", "name": "New", "kind": "asset"}),
    "ledger_post": lambda stage: Ask(body={"booked_on": "2026-06-30", "memo": "By hand", "lines": LINES}),
    "ledger_reverse": partial(_entry, body={}),
    "ledger_show": _entry,
    "notifications_ask_to_unsubscribe": _unsubscribe,
    "notifications_choose": partial(_customer, body={"kinds": {"rental_reminder": {"email": False}}}),
    "notifications_show": _customer,
    "notifications_unsubscribe": _unsubscribe,
    "payments_approve_refund": _refund,
    "payments_create": _pay,
    "payments_refunds_of_payment": _payment,
    "payments_reject_refund": partial(_refund, body={"reason": "As the matrix says"}),
    "payments_request_refund": partial(_payment, body={"amount": 5}),
    "payments_show": _payment,
    "payments_show_refund": _refund,
    "recovery_ask_for_reset": lambda stage: Ask(body={"email": stage.cast.ben.email}),
    "recovery_ask_for_verification": _ask_for_verification,
    "recovery_reset": partial(_account_token, purpose="password_reset", new_password="another horse battery staple"),
    "recovery_verify": partial(_account_token, purpose="email_verification"),
    "rentals_activate": partial(_rental, begun, body={"start_odometer_km": 1000}),
    "rentals_add_charge": partial(_rental, out, body={"type": "toll", "description": "Bridge", "amount": 185}),
    "rentals_cancel": partial(_rental, reserved, body={}),
    "rentals_change": partial(_rental, reserved, body={"notes": "Child seat"}),
    "rentals_charges": partial(_rental, reserved),
    "rentals_complete": partial(_rental, out, body={"end_odometer_km": 1100}),
    "rentals_confirm": partial(_rental, reserved, hold_minutes=15),
    "rentals_no_show": partial(_rental, begun),
    "rentals_reserve": _reserve,
    "rentals_show": partial(_rental, reserved),
    "second_factors_confirm": _confirm_factor,
    "second_factors_disable": _factor,
    "second_factors_enrol": lambda stage: Ask(body={"current_password": PASSWORD}, by=_spare(stage)),
    "second_factors_remove": _factor_of_user,
    "second_factors_renew_recovery_codes": _factor,
    "sessions_end": _session,
    "sessions_end_of_user": _user,
    "sessions_end_others": lambda stage: Ask(by=stage.cast.person(*stage.caller.roles)),
    "users_change": partial(_user, body={"first_name": "Renamed"}),
    "users_create": lambda stage: Ask(body={**_person(), "password": PASSWORD, "roles": ["driver"]}),
    "users_deactivate": _user,
    "users_register": lambda stage: Ask(body={**_person(), "password": PASSWORD}),
    "users_set_roles": partial(_user, body={"roles": ["rental_agent"]}),
    "users_show": _user,
    "vehicle_classes_change": partial(_class, body={"name": "Renamed"}),
    "vehicle_classes_create": lambda stage: Ask(body={"code": fresh(), "name": "New"}),
    "vehicle_classes_remove": _class,
    "vehicle_classes_show": _class,
    "vehicles_change": partial(_vehicle, body={"color": "blue"}),
    "vehicles_move": partial(_vehicle, body={"status": "out_of_service"}),
    "vehicles_reading": _reading,
    "vehicles_readings": _vehicle,
    "vehicles_record": partial(_vehicle, body={"reading_km": 7}),
    "vehicles_register": lambda stage: Ask(
        body={"plate_number": fresh(), "make": "Renault", "model": "Clio", "year": 2024, "class_id": stage.cast.compact}
    ),
    "vehicles_remove": _vehicle,
    "vehicles_show": _vehicle,
    "webhooks_change": partial(_endpoint, body={"description": "Renamed"}),
    "webhooks_create": lambda stage: Ask(body=HOOK),
    "webhooks_deliveries": _endpoint,
    "webhooks_redeliver": _delivery,
    "webhooks_remove": _endpoint,
    "webhooks_rotate_secret": _endpoint,
    "webhooks_show": _endpoint,
    "webhooks_show_delivery": _delivery,
    "webhooks_test": _endpoint,
}
