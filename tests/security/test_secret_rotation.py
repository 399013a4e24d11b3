"""SECRET_KEY is changed while everything goes on: what one key signed or sealed, the other one takes."""

import inspect
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from app import create_app
from fleet import config
from fleet.config import Settings
from fleet.db import db
from fleet.models.audit import AuditEvent
from fleet.models.webhooks import WebhookEndpoint
from fleet.rules import unsubscribing
from fleet.sealing import name_of_key
from fleet.services import preferences, secrets, webhooks
from tests.cast import Cast, Person, request
from tests.endpoints import ENDPOINTS
from tests.source import ROOT

OLD, NEW = "old-secret-key-of-the-rotation-" + "o" * 16, "new-secret-key-of-the-rotation-" + "n" * 16
URL = "https://203.0.114.7/hooks"
RUNBOOK = ROOT / "docs" / "runbooks" / "rotate-secrets.md"


@pytest.fixture
def released(cast: Cast, settings: Settings) -> Iterator[Any]:
    """Starts the service with other keys, on the same database, as a release does."""

    def release(key: str, *previous: str, **more: Any) -> Cast:
        more |= {"secret_key": key, "secret_key_previous": previous, "public_url": "https://fleet.example"}
        cast.app = create_app(replace(settings, **more))
        for person in vars(cast).values():
            if isinstance(person, Person):
                person.app = cast.app
        return cast

    before = cast.app
    yield release
    cast.app = before
    config.use(settings)
    db.configure(settings)


def cursor_of(cast: Cast) -> str:
    cast.vehicle()
    return str(cast.manager.get("/v1/vehicles?limit=1").json["next_cursor"])


def page(cast: Cast, cursor: str) -> int:
    return cast.manager.get(f"/v1/vehicles?limit=1&cursor={cursor}").status_code


@pytest.mark.parametrize(("first", "then"), [((OLD, NEW), (NEW, OLD)), ((NEW, OLD), (OLD, NEW))], ids=["onwards", "and back"])
def test_two_releases_at_once_take_each_others_work(released: Any, first: tuple[str, ...], then: tuple[str, ...]) -> None:
    """As during a rolling deploy: both know both keys, each signs with its own."""
    cast: Cast = released(*first)
    cursor, token = cursor_of(cast), cast.manager.token
    made = cast.admin.post(ENDPOINTS, {"url": URL}, key="k2").json
    created = {"code": "POR", "name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR", "tax_code": "PT-23"}
    branch = cast.manager.post("/v1/branches", created, key="k3")
    assert branch.status_code == 201
    link = preferences.unsubscribe_url(cast.ana.customer_id, "rental_reminder")  # type: ignore[arg-type]
    assert link

    cast = released(*then)
    assert page(cast, cursor) == 200
    assert request(cast.app, "GET", "/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    again = cast.manager.post("/v1/branches", created, key="k3")
    assert again.status_code == 201 and again.json == branch.json
    assert cast.manager.post("/v1/branches", {**created, "code": "FAO"}, key="k3").json["code"] == "idempotency_key_reused"
    assert preferences.language_of_bearer(link.split("token=")[1]).tag == "en"
    [endpoint] = WebhookEndpoint.select()
    [secret] = webhooks.secrets_of(endpoint.id, bytes(endpoint.secret or b""), None)
    assert webhooks.secret_text(secret) == made["secret"]


def test_a_key_that_was_taken_out_opens_nothing(released: Any) -> None:
    cast: Cast = released(OLD)
    cursor, token = cursor_of(cast), cast.manager.token
    cast.admin.post(ENDPOINTS, {"url": URL})
    cast = released(NEW)
    assert page(cast, cursor) == 400
    assert request(cast.app, "GET", "/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 401
    outcome = secrets.reseal("cli:olga")
    assert outcome.resealed == 0 and len(outcome.unreadable) == 1
    assert cast.app.test_cli_runner().invoke(args=["secrets", "reseal"]).exit_code == 1


def test_what_is_sealed_anew_needs_the_old_key_no_more(released: Any) -> None:
    cast: Cast = released(OLD)
    made = cast.admin.post(ENDPOINTS, {"url": URL})
    first, path = made.json["secret"], made.headers["Location"]
    second = cast.admin.post(f"{path}/rotate-secret", version="1").json["secret"]
    cast = released(NEW, OLD)
    ran = cast.app.test_cli_runner().invoke(args=["secrets", "reseal"])
    assert (ran.exit_code, ran.output) == (0, "sealed anew: 2\n")
    assert secrets.reseal("cli:olga").resealed == 0
    released(NEW)
    [found] = WebhookEndpoint.select()
    opened = webhooks.secrets_of(found.id, bytes(found.secret or b""), bytes(found.previous_secret or b""))
    assert [webhooks.secret_text(secret) for secret in opened] == [second, first]
    events = list(AuditEvent.select().where(AuditEvent.action == "secrets.reseal"))
    assert len(events) == 2
    assert {(event.object_id, event.before, event.after) for event in events} == {(str(found.id), None, None)}


def test_a_secret_that_is_rotated_meanwhile_is_not_put_back(released: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cast: Cast = released(OLD)
    path = cast.admin.post(ENDPOINTS, {"url": URL}).headers["Location"]
    cast = released(NEW, OLD)
    newest: list[str] = []

    def rotated_first(*args: Any) -> bool:
        if not newest:
            newest.append(cast.admin.post(f"{path}/rotate-secret", version="1").json["secret"])
        return replaced(*args)

    replaced = secrets.replace
    monkeypatch.setattr(secrets, "replace", rotated_first)
    monkeypatch.setattr(secrets, "_sealed_anew", inspect.unwrap(secrets._sealed_anew))  # the rotation is another transaction
    monkeypatch.setattr(secrets.audit, "record", lambda *_, **__: None)
    secrets.reseal("cli:olga")
    [found] = WebhookEndpoint.select()
    opened = webhooks.secrets_of(found.id, bytes(found.secret or b""), bytes(found.previous_secret or b""))
    assert webhooks.secret_text(opened[0]) == newest[0]
    assert all(bytes(sealed or b"")[:9] == name_of_key(NEW) for sealed in (found.secret, found.previous_secret))


def test_links_of_letters_outlive_a_rotation() -> None:
    """The longest-lived thing that is signed: how long the runbook says to keep the old key."""
    assert unsubscribing.LIFETIME.days == 60
    assert "60 days" in RUNBOOK.read_text()


def test_an_answer_that_is_kept_sealed_is_given_again_while_the_old_key_is_known_and_clearly_refused_after(
    released: Any,
) -> None:
    customer = {
        "first_name": "Dora", "last_name": "Reis", "email": "dora@example.com", "phone": "+351 1",
        "driver_license_number": "LIC-7Q4Z81", "driver_license_expiry": "2031-05-01",
    }  # fmt: skip

    def taken_in(*keys: str) -> Any:
        cast = released(*keys, licence_key="licence-key-of-the-rotation-" + "k" * 16)
        return cast.agent.post("/v1/customers", customer, key="k1")

    first = taken_in(OLD)
    assert b"LIC-7Q4Z81" in first.get_data()
    assert db.one("SELECT get_byte(body, 0) FROM idempotency_record") == (1,), "it is kept sealed"
    assert taken_in(NEW, OLD).get_data() == first.get_data()
    gone = taken_in(NEW)
    assert (gone.status_code, gone.json["code"]) == (422, "idempotency_key_reused")
