"""Whatever an administrator does leaves an event in the audit log, with who did it, from where, and without personal data."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from fleet import clock, logs, openapi
from fleet.db import transaction
from fleet.errors import Conflict, VersionConflict
from fleet.models.audit import AuditEvent
from fleet.models.ledger import EntryLine
from fleet.models.vehicles import Vehicle
from fleet.services import api_keys, branches, ledger, odometer, people, users, vehicle_classes, vehicles, webhooks
from tests import source
from tests.cast import Cast
from tests.source import of_room

# Every operation that changes something, and the export of a person: what it is called in the audit log.
AUDITED = {
    "users.create": "users.create",
    "users.change": "users.change",
    "users.set_roles": "users.set_roles",
    "users.deactivate": "users.deactivate",
    "api_keys.create": "api_keys.create",
    "api_keys.revoke": "api_keys.revoke",
    "branches.create": "branches.open",
    "branches.change": "branches.change",
    "branches.remove": "branches.remove",
    "vehicle_classes.create": "vehicle_classes.create",
    "vehicle_classes.change": "vehicle_classes.change",
    "vehicle_classes.remove": "vehicle_classes.remove",
    "vehicles.register": "vehicles.register",
    "vehicles.change": "vehicles.change",
    "vehicles.move": "vehicles.change_status",
    "vehicles.remove": "vehicles.remove",
    "people.deactivate": "customers.deactivate",
    "people.erase": "customers.erase",
    "people.export": "customers.export",
    "payments.approve_refund": "refunds.approve",
    "payments.reject_refund": "refunds.reject",
    "ledger.open_account": "ledger.open_account",
    "ledger.post": "ledger.post",
    "ledger.reverse": "ledger.reverse",
    "webhooks.create": "webhooks.create",
    "webhooks.change": "webhooks.change",
    "webhooks.remove": "webhooks.remove",
    "webhooks.rotate_secret": "webhooks.rotate_secret",
    "webhooks.redeliver": "webhooks.redeliver",
    "dead_letters.replay": "dead_letters.replay",
    "dead_letters.replay_chosen": "dead_letters.replay",
    "dead_letters.discard": "dead_letters.discard",
    "circuit_breakers.force_open": "circuit_breakers.open",
    "circuit_breakers.force_closed": "circuit_breakers.close",
    "circuit_breakers.release": "circuit_breakers.release",
    "cache.flush": "cache.flush",
    "access.change_password": "password.changed",
    "recovery.reset": "password.reset",
    "sessions.end_of_user": "sessions.end",
    "second_factors.confirm": "second_factor.enabled",
    "second_factors.renew_recovery_codes": "second_factor.recovery_codes_renewed",
    "second_factors.disable": "second_factor.removed",
    "second_factors.remove": "second_factor.removed",
}
ONES_OWN = "somebody's own account or choice, no act over others"
BUSINESS = "daily business: the row says who and when, and an event of the stream tells it"
NOT_AUDITED = {
    "access.login": ONES_OWN,
    "access.refresh": ONES_OWN,
    "access.logout": ONES_OWN,
    "users.register": ONES_OWN,
    "recovery.ask_for_reset": ONES_OWN,
    "recovery.ask_for_verification": ONES_OWN,
    "recovery.verify": ONES_OWN,
    "second_factors.enrol": "nothing holds before it is confirmed",
    "sessions.end": ONES_OWN,
    "sessions.end_others": ONES_OWN,
    "notifications.choose": ONES_OWN,
    "notifications.unsubscribe": ONES_OWN,
    "people.create": "daily business: a renter is taken in, or takes themselves in",
    "people.change": "daily business: what is corrected here is personal data, which no audit row may hold",
    "vehicles.record": BUSINESS,
    "calendar.block": BUSINESS,
    "calendar.unblock": BUSINESS,
    "rentals.reserve": BUSINESS,
    "rentals.change": BUSINESS,
    "rentals.confirm": BUSINESS,
    "rentals.activate": BUSINESS,
    "rentals.complete": BUSINESS,
    "rentals.cancel": BUSINESS,
    "rentals.no_show": BUSINESS,
    "rentals.add_charge": BUSINESS,
    "payments.create": BUSINESS,
    "payments.request_refund": "the refund says who asked for it, and the decision about it is audited",
    "card_events.take": "no person: an event of the gateway, kept with the payment",
    "webhooks.test": "sends an event that says nothing",
}


def operations(app: Flask) -> set[str]:
    """What changes something, by module and function; reads change nothing, but an export takes a person's data out."""
    return {
        f"{view.__module__.rpartition('.')[2]}.{view.__name__}"
        for _, method, _, view in openapi.operations(app)
        if method != "GET" or view.__name__ == "export"
    }


def test_every_operation_that_changes_something_is_audited_or_says_why_not(app: Flask) -> None:
    assert operations(app) == set(AUDITED) | set(NOT_AUDITED)
    assert not set(AUDITED) & set(NOT_AUDITED)


def test_every_action_of_the_audit_log_is_recorded_somewhere() -> None:
    said = {text for name in of_room("fleet.services") for text in source.strings(name)}
    # Those of the breakers are put together, of the room and a word.
    words = {action.removeprefix("circuit_breakers.") for action in AUDITED.values()}
    assert words <= said


Done = tuple[Any, Any]


def add_user(cast: Cast) -> Done:
    user = users.create(
        cast.admin.actor,
        email="new@example.com",
        password="a long enough sentence",
        roles=["driver"],
        first_name="Ana",
        last_name="Nova",
    )
    return user.id, (None, {"roles": ["driver"]})


def change_user(cast: Cast) -> Done:
    changes = {"first_name": "Secretname", "phone": "+351910000000"}
    users.change(cast.admin.actor, cast.agent.user_id, expected_version=1, changes=changes)
    return cast.agent.user_id, ({"first_name": "***", "phone": None}, {"first_name": "***", "phone": "***"})


def change_roles(cast: Cast) -> Done:
    users.set_roles(cast.admin.actor, cast.agent.user_id, roles=["driver", "admin"], expected_version=1)
    return cast.agent.user_id, ({"roles": ["rental_agent"]}, {"roles": ["admin", "driver"]})


def deactivate_user(cast: Cast) -> Done:
    users.deactivate(cast.admin.actor, cast.agent.user_id, expected_version=1)
    return cast.agent.user_id, None


def make_key(cast: Cast) -> Done:
    key, _ = api_keys.create(cast.admin.actor, name="Ana's till", permissions=["vehicles.read"], expires_at=None)
    return key.id, None


def revoke_key(cast: Cast) -> Done:
    key, _ = api_keys.create(cast.admin.actor, name="till", permissions=["vehicles.read"], expires_at=None)
    api_keys.revoke(cast.admin.actor, key.id)
    return key.id, (None, {"revoked": True})


def made_branch(cast: Cast) -> Any:
    return branches.open_branch(cast.admin.actor, code="OPO", name="Porto", timezone="Europe/Lisbon", currency="EUR")


def open_branch(cast: Cast) -> Done:
    return made_branch(cast).id, None


def change_branch(cast: Cast) -> Done:
    branches.change(cast.admin.actor, cast.lisbon, expected_version=1, changes={"name": "Lisbon", "currency": "EUR"})
    return cast.lisbon, ({"name": "Lisbon Airport"}, {"name": "Lisbon"})


def remove_branch(cast: Cast) -> Done:
    branch = made_branch(cast)
    branches.remove(cast.admin.actor, branch.id, expected_version=1)
    return branch.id, ({"code": "OPO"}, None)


def make_class(cast: Cast) -> Done:
    made = vehicle_classes.create(cast.admin.actor, currency="EUR", code="VAN", name="Van", daily_rate=9000)
    return made.id, (None, {"code": "VAN", "name": "Van", "daily_rate": 9000, "currency": "EUR"})


def change_class(cast: Cast) -> Done:
    vehicle_classes.change(cast.admin.actor, cast.compact, expected_version=1, changes={"daily_rate": 5000})
    return cast.compact, ({"daily_rate": 4500}, {"daily_rate": 5000})


def remove_class(cast: Cast) -> Done:
    made = vehicle_classes.create(cast.admin.actor, currency="EUR", code="VAN", name="Van")
    vehicle_classes.remove(cast.admin.actor, made.id, expected_version=1)
    return made.id, ({"code": "VAN"}, None)


def register_vehicle(cast: Cast) -> Done:
    values = {"plate_number": "CC-33-DD", "make": "Kia", "model": "Rio", "year": 2024, "daily_rate": 4000}
    made = vehicles.register(cast.admin.actor, currency="EUR", class_id=None, branch_id=None, **values)
    return made.id, None


def change_vehicle(cast: Cast) -> Done:
    vehicles.change(cast.admin.actor, cast.corolla, expected_version=1, changes={"daily_rate": 4000})
    return cast.corolla, ({"daily_rate": None}, {"daily_rate": 4000})


def write_off(cast: Cast) -> Done:
    vehicles.change_status(cast.admin.actor, cast.corolla, status="written_off")
    return cast.corolla, ({"status": "in_service"}, {"status": "written_off"})


def remove_vehicle(cast: Cast) -> Done:
    vehicles.remove(cast.admin.actor, cast.corolla, expected_version=None)
    return cast.corolla, ({"status": "in_service"}, None)


def retire_vehicle(cast: Cast) -> Done:
    with transaction():
        odometer.record(cast.admin.actor, Vehicle.get_by_id(cast.corolla), 5, clock.now(), "manual")
    vehicles.remove(cast.admin.actor, cast.corolla, expected_version=None)
    return cast.corolla, None


def ana(cast: Cast) -> UUID:
    assert cast.ana.customer_id is not None
    return cast.ana.customer_id


def deactivate_customer(cast: Cast) -> Done:
    people.deactivate(cast.admin.actor, ana(cast), expected_version=1)
    return ana(cast), ({"status": "active"}, {"status": "deactivated"})


def erase_customer(cast: Cast) -> Done:
    people.erase(cast.admin.actor, ana(cast), expected_version=1)
    return ana(cast), None


def export_customer(cast: Cast) -> Done:
    people.exported(cast.admin.actor, ana(cast))
    return ana(cast), (None, None)


def open_account(cast: Cast) -> Done:
    ledger.open_account(cast.admin.actor, code="6900", name="Sundries", kind="expense", contra=False)
    return "6900", (None, {"account": "6900", "name": "Sundries", "kind": "expense", "contra": False})


def posted(cast: Cast) -> Any:
    lines = [EntryLine("1010", "debit", 100, "EUR"), EntryLine("3000", "credit", 100, "EUR")]
    return ledger.post(cast.admin.actor, booked_on=clock.now().date(), memo="Capital of Ana Silva", lines=lines)["id"]


def post(cast: Cast) -> Done:
    return posted(cast), None


def reverse(cast: Cast) -> Done:
    entry_id = posted(cast)
    reversal = ledger.reverse(cast.admin.actor, entry_id, booked_on=None, memo=None)
    return entry_id, (None, {"reversed_by_id": str(reversal["id"])})


def made_endpoint(cast: Cast) -> UUID:
    url = "https://93.184.216.34/hooks/Secretname"
    made, _ = webhooks.create(cast.admin.actor, url=url, event_types=None, description=None, enabled=True)
    return UUID(f"{made.id}")


def make_endpoint(cast: Cast) -> Done:
    return made_endpoint(cast), (None, {"url": "93.184.216.34", "event_types": None, "enabled": True})


def change_endpoint(cast: Cast) -> Done:
    endpoint_id = made_endpoint(cast)
    webhooks.change(cast.admin.actor, endpoint_id, expected_version=1, changes={"enabled": False})
    return endpoint_id, ({"enabled": True}, {"enabled": False})


def remove_endpoint(cast: Cast) -> Done:
    endpoint_id = made_endpoint(cast)
    webhooks.remove(cast.admin.actor, endpoint_id, expected_version=1)
    return endpoint_id, ({"url": "93.184.216.34"}, None)


def rotate_secret(cast: Cast) -> Done:
    endpoint_id = made_endpoint(cast)
    webhooks.rotate_secret(cast.admin.actor, endpoint_id, expected_version=1)
    return endpoint_id, None


DEEDS: dict[str, Callable[[Cast], Done]] = {
    "users.create": add_user,
    "users.change": change_user,
    "users.set_roles": change_roles,
    "users.deactivate": deactivate_user,
    "api_keys.create": make_key,
    "api_keys.revoke": revoke_key,
    "branches.open": open_branch,
    "branches.change": change_branch,
    "branches.remove": remove_branch,
    "vehicle_classes.create": make_class,
    "vehicle_classes.change": change_class,
    "vehicle_classes.remove": remove_class,
    "vehicles.register": register_vehicle,
    "vehicles.change": change_vehicle,
    "vehicles.change_status": write_off,
    "vehicles.remove": remove_vehicle,
    "vehicles.retire": retire_vehicle,
    "customers.deactivate": deactivate_customer,
    "customers.erase": erase_customer,
    "customers.export": export_customer,
    "ledger.open_account": open_account,
    "ledger.post": post,
    "ledger.reverse": reverse,
    "webhooks.create": make_endpoint,
    "webhooks.change": change_endpoint,
    "webhooks.remove": remove_endpoint,
    "webhooks.rotate_secret": rotate_secret,
}
# Those that have tests of their own, beside what they tell.
TESTED_ELSEWHERE = {
    "refunds.approve", "refunds.reject", "webhooks.redeliver", "dead_letters.replay", "dead_letters.discard",
    "circuit_breakers.open", "circuit_breakers.close", "circuit_breakers.release", "cache.flush",
    "password.changed", "password.reset", "sessions.end", "second_factor.enabled", "second_factor.recovery_codes_renewed",
    "second_factor.removed",
}  # fmt: skip


def test_every_action_has_a_deed_that_shows_it() -> None:
    assert set(AUDITED.values()) - TESTED_ELSEWHERE <= set(DEEDS)


@pytest.mark.parametrize("action", DEEDS)
def test_a_deed_is_in_the_audit_log_and_says_no_secret(cast: Cast, action: str) -> None:
    with logs.context(request_id="req-1", client_address="192.0.2.1"):
        object_id, states = DEEDS[action](cast)
    [event] = AuditEvent.select().where(AuditEvent.action == action)
    assert (event.actor, event.object_id) == (f"user:{cast.admin.user_id}", f"{object_id}")
    assert (event.request_id, event.address) == ("req-1", "192.0.2.1")
    if states is not None:
        assert (event.before, event.after) == states
    told = f"{event.before} {event.after}"
    assert not re.search(r"@|Secretname|Ana|Silva|flt_|whsec|\+351", told), told


def test_a_change_that_changes_nothing_leaves_no_event(cast: Cast) -> None:
    branches.change(cast.admin.actor, cast.lisbon, expected_version=None, changes={"name": "Lisbon Airport"})
    assert AuditEvent.select().count() == 0


def test_a_change_that_is_refused_leaves_no_event(cast: Cast) -> None:
    with pytest.raises(VersionConflict):
        users.change(cast.admin.actor, cast.agent.user_id, expected_version=9, changes={"first_name": "X"})
    with pytest.raises(Conflict):
        users.deactivate(cast.admin.actor, cast.admin.user_id, expected_version=None)
    assert AuditEvent.select().count() == 0
