"""Webhook endpoints and their deliveries as operators handle them."""

from typing import Any

import pytest

from fleet.db import db
from fleet.gateways import webhooks as gateway
from fleet.models.webhooks import WebhookDelivery, WebhookEndpoint
from fleet.services import webhooks
from tests.cast import Cast
from tests.endpoints import ENDPOINTS, endpoint, happen, private_targets
from tests.races.scenes import reserved

DELIVERIES = "/v1/webhook-deliveries"
URL = "https://203.0.114.7/hooks?token=s3cret"
UNKNOWN = "0193a2b0-0000-7000-8000-000000000000"


def create(cast: Cast, **body: Any) -> Any:
    return cast.admin.post(ENDPOINTS, {"url": URL, **body})


class TestEndpoints:
    def test_is_created_with_its_secret_shown_once(self, cast: Cast) -> None:
        made = create(cast, event_types=["rental.reserved"], description="The shop")
        assert made.status_code == 201
        assert made.json["secret"].startswith("whsec_") and len(made.json["secret"]) == 50
        assert {name: made.json[name] for name in ("url", "event_types", "description", "enabled", "disabled_reason")} == {
            "url": URL, "event_types": ["rental.reserved"], "description": "The shop", "enabled": True,
            "disabled_reason": None,
        }  # fmt: skip
        shown = cast.admin.get(made.headers["Location"])
        assert shown.json == {name: value for name, value in made.json.items() if name != "secret"}
        assert cast.admin.get(ENDPOINTS).json["data"] == [shown.json]
        assert shown.headers["ETag"] == '"1"'

    def test_the_secret_lies_encrypted(self, cast: Cast) -> None:
        secret = create(cast).json["secret"]
        [found] = WebhookEndpoint.select()
        sealed = bytes(found.secret or b"")
        [raw] = webhooks.secrets_of(found.id, sealed, None)
        assert webhooks.secret_text(raw) == secret
        assert raw not in sealed

    def test_gets_all_events_unless_it_names_some(self, cast: Cast) -> None:
        assert create(cast).json["event_types"] is None

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({"event_types": []}, "event_types"),
            ({"event_types": ["rental.exploded"]}, "event_types.0"),
            ({"url": ""}, "url"),
            ({"url": "https://" + "a" * 2048}, "url"),
            ({"secret": "whsec_mine"}, "secret"),
            ({"description": "\x1b[31m"}, "description"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, cast: Cast, body: dict[str, Any], field: str) -> None:
        refused = create(cast, **body)
        assert (refused.status_code, refused.json["errors"][0]["field"]) == (422, field)

    @pytest.mark.parametrize(
        ("url", "code"),
        [
            ("http://203.0.114.7/", "https_required"),
            ("https://user:pw@203.0.114.7/", "user_part"),
            ("https://203.0.114.7:22/", "port_not_allowed"),
            ("https://127.0.0.1/", "not_public"),
            ("https://[::ffff:10.0.0.1]/", "not_public"),
            ("https://0x7f000001/", "invalid_host"),
            ("https://localhost/", "not_public"),
        ],
    )
    def test_an_address_inside_is_refused_at_creation_and_change(self, cast: Cast, url: str, code: str) -> None:
        made = create(cast)
        for refused in (create(cast, url=url), cast.admin.patch(made.headers["Location"], {"url": url}, version="1")):
            assert (refused.status_code, refused.json["code"]) == (422, "validation_error")
            assert [(item["field"], item["code"]) for item in refused.json["errors"]] == [("url", code)]

    def test_a_name_that_leads_inside_is_refused(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gateway.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.0.0.7", 443))])
        refused = create(cast, url="https://innocent.example/")
        assert [item["code"] for item in refused.json["errors"]] == ["not_public"]

    def test_a_name_that_does_not_resolve_today_may_tomorrow(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        def unknown(*_: Any, **__: Any) -> Any:
            raise gateway.socket.gaierror(-3, "try again")

        monkeypatch.setattr(gateway.socket, "getaddrinfo", unknown)
        assert create(cast, url="https://not-yet.example/").status_code == 201

    def test_private_addresses_are_taken_where_they_are_allowed(self, cast: Cast) -> None:
        with private_targets():
            assert create(cast, url="http://127.0.0.1:5000/hooks").status_code == 201

    def test_there_are_only_so_many(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(webhooks, "MOST_ENDPOINTS", 1)
        made = create(cast)
        assert (create(cast).status_code, create(cast).json["code"]) == (409, "conflict")
        cast.admin.delete(made.headers["Location"], version="1")
        assert create(cast).status_code == 201

    def test_a_change_needs_the_version_that_was_read(self, cast: Cast) -> None:
        path = create(cast).headers["Location"]
        assert cast.admin.patch(path, {"description": "x"}).status_code == 428
        changed = cast.admin.patch(path, {"description": "x", "event_types": None}, version="1")
        assert (changed.status_code, changed.json["description"], changed.json["version"]) == (200, "x", 2)
        assert cast.admin.patch(path, {"description": "y"}, version="1").status_code == 412
        assert cast.admin.delete(path, version="1").status_code == 412

    def test_is_switched_off_and_on(self, cast: Cast) -> None:
        path = create(cast).headers["Location"]
        off = cast.admin.patch(path, {"enabled": False}, version="1").json
        assert (off["enabled"], off["disabled_reason"], off["disabled_at"] is None) == (False, "by_hand", False)
        db.execute_sql("UPDATE webhook_health SET failing_since = now(), failures = 3, rest_until = now()")
        on = cast.admin.patch(path, {"enabled": True}, version="2").json
        assert (on["enabled"], on["disabled_reason"], on["disabled_at"]) == (True, None, None)
        assert db.rows("SELECT failing_since, failures, rest_until FROM webhook_health") == [(None, 0, None)]

    def test_is_removed_with_its_secret(self, cast: Cast) -> None:
        path = create(cast).headers["Location"]
        happen()
        assert cast.admin.delete(path, version="1").status_code == 204
        assert [cast.admin.get(f"{path}{more}").status_code for more in ("", "/deliveries")] == [404, 404]
        assert cast.admin.post(f"{path}/test").status_code == 404
        assert cast.admin.get(ENDPOINTS).json["data"] == []
        assert db.rows("SELECT secret, enabled, disabled_reason FROM webhook_endpoint") == [(None, False, "deleted")]
        [delivery] = WebhookDelivery.select()
        assert cast.admin.get(f"{DELIVERIES}/{delivery.id}").status_code == 404

    def test_a_rotation_shows_a_new_secret_once(self, cast: Cast) -> None:
        made = create(cast)
        path = made.headers["Location"]
        rotated = cast.admin.post(f"{path}/rotate-secret")
        assert rotated.status_code == 200
        assert rotated.json["secret"] != made.json["secret"]
        assert rotated.json["previous_secret_until"] is not None
        assert "secret" not in cast.admin.get(path).json
        assert cast.admin.post(f"{path}/rotate-secret", version="1").status_code == 412

    def test_is_for_admins(self, cast: Cast) -> None:
        path = create(cast).headers["Location"]
        for role, person in cast.staff.items():
            expected = 200 if role == "admin" else 403
            assert [person.get(one).status_code for one in (ENDPOINTS, path, f"{path}/deliveries")] == [expected] * 3
        assert cast.manager.post(f"{path}/rotate-secret").status_code == 403

    @pytest.mark.parametrize("more", ["", "/deliveries"])
    def test_an_unknown_one_is_not_found(self, cast: Cast, more: str) -> None:
        assert cast.admin.get(f"{ENDPOINTS}/{UNKNOWN}{more}").status_code == 404


class TestDeliveries:
    def test_each_endpoint_gets_what_it_asked_for(self, cast: Cast) -> None:
        everything, rentals = create(cast).json, create(cast, event_types=["rental.reserved"]).json
        off = create(cast, enabled=False).json
        happen(2, "rental.reserved")
        happen(1, "invoice.issued")

        def types(one: dict[str, Any]) -> list[str]:
            listed = cast.admin.get(f"{ENDPOINTS}/{one['id']}/deliveries").json["data"]
            return [item["event_type"] for item in listed]

        assert types(everything) == ["invoice.issued", "rental.reserved", "rental.reserved"]
        assert types(rentals) == ["rental.reserved", "rental.reserved"]
        assert types(off) == []

    def test_what_happened_while_it_was_off_is_not_sent_later(self, cast: Cast) -> None:
        path = create(cast, enabled=False).headers["Location"]
        happen(2)
        cast.admin.patch(path, {"enabled": True}, version="1")
        [event_id] = happen()
        assert [item["event_id"] for item in cast.admin.get(f"{path}/deliveries").json["data"]] == [event_id]

    def test_a_delivery_tells_how_it_stands(self, cast: Cast) -> None:
        made = create(cast)
        rental = reserved(cast)
        [event_id] = happen(1, "rental.held")
        listed = cast.admin.get(f"{made.headers['Location']}/deliveries?limit=1")
        [delivery] = listed.json["data"]
        assert (delivery["event_id"], delivery["sequence"]) == (event_id, 2)
        assert (delivery["status"], delivery["attempts"]) == ("queued", 0)
        assert cast.admin.get(f"{DELIVERIES}/{delivery['id']}").json == delivery
        [first] = cast.admin.get(listed.headers["Link"].partition(">")[0][1:]).json["data"]
        assert first["event_type"] == "rental.reserved" and rental

    def test_deliveries_are_found_by_their_state(self, cast: Cast) -> None:
        path = create(cast).headers["Location"]
        happen(3)
        oldest = "(SELECT id FROM webhook_delivery ORDER BY id LIMIT 1)"
        db.execute_sql(f"UPDATE webhook_delivery SET status = 'dead', dead_at = now() WHERE id = {oldest}")
        counts = {
            status: len(cast.admin.get(f"{path}/deliveries?status={status}").json["data"])
            for status in ("queued", "retrying", "delivered", "dead")
        }
        assert counts == {"queued": 2, "retrying": 0, "delivered": 0, "dead": 1}
        assert cast.admin.get(f"{path}/deliveries?status=lost").status_code == 422

    def test_a_dead_one_is_queued_again(self, cast: Cast) -> None:
        create(cast)
        happen()
        db.execute_sql("UPDATE webhook_delivery SET status = 'dead', dead_at = now(), attempts = 10")
        [found] = WebhookDelivery.select()
        path = f"{DELIVERIES}/{found.id}/redeliver"
        again = cast.admin.post(path)
        assert (again.status_code, again.json["status"], again.json["dead_at"]) == (200, "queued", None)
        assert cast.admin.post(path).json["code"] == "invalid_state"
        assert db.one("SELECT object_id FROM audit_event WHERE action = 'webhooks.redeliver'") == (f"{found.id}",)

    def test_a_dead_one_of_a_disabled_endpoint_stays_dead(self, cast: Cast) -> None:
        path = create(cast).headers["Location"]
        happen()
        db.execute_sql("UPDATE webhook_delivery SET status = 'dead', dead_at = now(), attempts = 10")
        cast.admin.patch(path, {"enabled": False}, version="1")
        [found] = WebhookDelivery.select()
        assert cast.admin.post(f"{DELIVERIES}/{found.id}/redeliver").json["code"] == "invalid_state"

    @pytest.mark.parametrize("method", ["get", "post"])
    def test_an_unknown_one_is_not_found(self, cast: Cast, method: str) -> None:
        more = "/redeliver" if method == "post" else ""
        assert getattr(cast.admin, method)(f"{DELIVERIES}/{UNKNOWN}{more}").status_code == 404

    def test_a_test_goes_to_the_tested_endpoint_alone(self, cast: Cast) -> None:
        tested, other = (create(cast, event_types=["rental.held"]).headers["Location"] for _ in range(2))
        create(cast)
        sent = cast.admin.post(f"{tested}/test")
        assert sent.status_code == 202
        happen()
        listed = [cast.admin.get(f"{path}/deliveries").json["data"] for path in (tested, other)]
        assert [[item["event_id"] for item in items] for items in listed] == [[sent.json["event_id"]], []]
        assert db.rows("SELECT count(*) FROM webhook_delivery WHERE event_id = %s", (sent.json["event_id"],)) == [(1,)]

    def test_a_disabled_endpoint_is_not_tested(self, cast: Cast) -> None:
        path = create(cast, enabled=False).headers["Location"]
        assert cast.admin.post(f"{path}/test").json["code"] == "invalid_state"


def test_no_secret_and_no_address_stands_in_the_stream(cast: Cast) -> None:
    made = endpoint(cast, "http://127.0.0.1:1/hooks?token=s3cret")
    cast.admin.post(f"{ENDPOINTS}/{made['id']}/test")
    [(data,)] = db.rows("SELECT data::text FROM event")
    assert "s3cret" not in data and "127.0.0.1" not in data
