"""Events reach their receivers: signed, at least once, over days if need be, and without one receiver harming another."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from fleet import clock
from fleet.db import db
from fleet.gateways.mail import Mail, MailUnavailable
from fleet.gateways.webhooks import Sender
from fleet.models.webhooks import WebhookEndpoint
from fleet.rules import webhooks as rules
from fleet.rules.webhooks import MOST_ATTEMPTS, RETRIES_S
from fleet.services import events, retention, webhook_deliveries
from fleet.services.outbox import QUEUES
from tasks import relay, topics
from tasks import webhooks as tasks_webhooks
from tasks.broker import Broker, BrokerAway
from tasks.relay import Relay
from tests.cast import Cast, insert
from tests.endpoints import ENDPOINTS, claimed, deliveries, endpoint, happen, let_time_pass, states
from tests.receiver import Receiver, dripping, on_the_wire, receiver
from tests.source import ROOT
from tests.tasks.outboxes import at_once, state

FOREVER = 10**6


@pytest.fixture(autouse=True)
def sender(monkeypatch: pytest.MonkeyPatch) -> Sender:
    """Webhooks go to this machine, and soon give up waiting."""
    sender = Sender(allow_private=True, total_s=2.0)
    monkeypatch.setattr(tasks_webhooks, "webhook_sender", lambda: sender)
    return sender


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as told:
        yield told


def work() -> int:
    """What relay and workers do about what is due now; returns how many messages rang."""
    batches = claimed()
    for batch in batches:
        tasks_webhooks.deliver(batch)
    return len(batches)


def work_for_days(days: float = 6, step_minutes: float = 30) -> None:
    for _ in range(int(days * 24 * 60 / step_minutes)):
        work()
        let_time_pass(minutes=step_minutes)


def health() -> Any:
    return db.rows("SELECT failing_since IS NOT NULL, failures, rest_until > now() FROM webhook_health")


class TestDelivering:
    def test_an_event_arrives_as_the_stream_tells_it(self, cast: Cast, told: Receiver) -> None:
        endpoint(cast, told)
        happen()
        work()
        [event] = cast.manager.get("/v1/events").json["data"]
        assert told.events == [event]
        [delivery] = deliveries()
        assert (delivery.status, delivery.attempts, delivery.response_status) == ("delivered", 1, 204)
        assert work() == 0

    def test_its_signature_is_verified_by_the_library_of_the_specification(self, cast: Cast, told: Receiver) -> None:
        secret = endpoint(cast, told)["secret"]
        [event_id] = happen()
        work()
        [request] = told.received
        assert Webhook(secret).verify(request.body, request.headers) == request.event
        assert request.headers["webhook-id"] == event_id == request.event["id"]
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(request.body + b" ", request.headers)

    def test_for_a_day_after_a_rotation_both_secrets_sign(self, cast: Cast, told: Receiver) -> None:
        made = endpoint(cast, told)
        rotated = cast.admin.post(f"{ENDPOINTS}/{made['id']}/rotate-secret").json
        happen()
        work()
        for secret in (made["secret"], rotated["secret"]):
            assert Webhook(secret).verify(told.received[0].body, told.received[0].headers)
        db.execute_sql("UPDATE webhook_endpoint SET previous_secret_until = now() - interval '1 second'")
        happen()
        work()
        assert Webhook(rotated["secret"]).verify(told.received[1].body, told.received[1].headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(made["secret"]).verify(told.received[1].body, told.received[1].headers)

    def test_many_arrive_in_order_and_once(self, cast: Cast, told: Receiver) -> None:
        endpoint(cast, told)
        made = happen(65)
        while work():
            pass
        assert [event["id"] for event in told.events] == made

    def test_a_redirect_is_a_failure_and_leads_nowhere(self, cast: Cast, told: Receiver) -> None:
        with receiver() as elsewhere:
            told.answers = [(302, {"Location": elsewhere.url})]
            endpoint(cast, told)
            happen()
            work()
            assert elsewhere.received == []
        [delivery] = deliveries()
        assert (delivery.status, delivery.last_error, delivery.response_status) == ("retrying", "redirect", 302)

    def test_a_receiver_that_drips_is_a_failure_in_time(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tasks_webhooks, "webhook_sender", lambda: Sender(allow_private=True, total_s=0.3))
        with on_the_wire(dripping) as url:
            endpoint(cast, url)
            happen()
            started = time.monotonic()
            work()
            assert time.monotonic() - started < 2
        assert [(found.status, found.last_error) for found in deliveries()] == [("retrying", "timed_out")]

    def test_an_address_that_has_turned_private_is_not_connected_to(self, cast: Cast, told: Receiver, monkeypatch: Any) -> None:
        endpoint(cast, told)
        happen()
        monkeypatch.setattr(tasks_webhooks, "webhook_sender", lambda: Sender(allow_private=False))
        work()
        assert (told.received, deliveries()[0].last_error) == ([], "refused_https_required")

    def test_a_secret_of_another_key_is_a_failure_that_a_rotation_heals(self, cast: Cast, told: Receiver) -> None:
        made = endpoint(cast, told)
        WebhookEndpoint.update(secret=b"\x01sealed under another key").execute()
        happen()
        work()
        assert (told.received, deliveries()[0].last_error) == ([], "secret_unreadable")
        rotated = cast.admin.post(f"{ENDPOINTS}/{made['id']}/rotate-secret").json
        let_time_pass(minutes=10)
        work()
        assert states() == ["delivered"]
        assert Webhook(rotated["secret"]).verify(told.received[0].body, told.received[0].headers)


class TestRetrying:
    def test_failures_are_followed_by_the_timetable_and_an_end(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(500, {})]
        endpoint(cast, told)
        happen()
        for planned in RETRIES_S:
            assert work() == 1
            [found] = deliveries()
            waits = (found.next_attempt_at - found.last_attempt_at).total_seconds()
            assert (found.status, 0.9 * planned <= waits <= 1.1 * planned + 1) == ("retrying", True)
            assert work() == 0, "before its time"
            let_time_pass(seconds=1.1 * planned + 300)
        work()
        [found] = deliveries()
        assert (found.status, found.attempts, found.response_status) == ("dead", MOST_ATTEMPTS, 500)
        assert {request.headers["webhook-id"] for request in told.received} == {str(found.event_id)}
        let_time_pass(days=30)
        assert work() == 0

    def test_every_attempt_is_signed_at_its_own_time_over_the_same_body(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(500, {}), (204, {})]
        secret = endpoint(cast, told)["secret"]
        happen()
        work()
        let_time_pass(minutes=10)
        work()
        one, other = told.received
        assert one.body == other.body and one.headers["webhook-id"] == other.headers["webhook-id"]
        assert Webhook(secret).verify(other.body, other.headers)
        assert states() == ["delivered"] and deliveries()[0].last_error is None

    @pytest.mark.parametrize("status", [429, 503])
    def test_a_receiver_that_asks_for_time_gets_it(self, cast: Cast, told: Receiver, status: int) -> None:
        told.answers = [(status, {"Retry-After": "1800"})]
        endpoint(cast, told)
        happen(2)
        work()
        assert len(told.received) == 1
        let_time_pass(minutes=29)
        assert work() == 0, "it asked for half an hour"
        let_time_pass(minutes=2)
        work()
        assert len(told.received) == 2

    def test_one_bad_message_does_not_hold_the_others(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(500, {}), (204, {})]
        endpoint(cast, told)
        poison, *others = happen(5)
        work()
        assert states() == ["retrying"] + ["queued"] * 4
        let_time_pass(seconds=6)
        work()
        assert states().count("delivered") >= 1
        while work():
            pass
        assert {event["id"] for event in told.events[1:]} >= set(others) and told.events[0]["id"] == poison

    def test_a_dead_one_that_is_queued_again_has_as_many_attempts_as_at_first(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(500, {})]
        endpoint(cast, told)
        [event_id] = happen()
        work_for_days(4)
        assert states() == ["dead"] and len(told.received) == MOST_ATTEMPTS
        [dead] = deliveries()
        assert cast.admin.post(f"/v1/webhook-deliveries/{dead.id}/redeliver").status_code == 200
        work()
        [found] = deliveries()
        assert (found.status, found.attempts) == ("retrying", MOST_ATTEMPTS + 1)
        told.answers = [(200, {})]
        let_time_pass(minutes=6)
        work()
        assert states() == ["delivered"] and told.events[-1]["id"] == event_id


class TestEndpointsThatFail:
    def test_one_that_is_gone_is_switched_off_at_once(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(410, {})]
        made = endpoint(cast, told)
        happen(3)
        work()
        shown = cast.admin.get(f"{ENDPOINTS}/{made['id']}").json
        assert (shown["enabled"], shown["disabled_reason"]) == (False, "gone")
        assert states() == ["dead", "queued", "queued"]
        let_time_pass(days=1)
        assert (work(), len(told.received)) == (0, 1)

    def test_one_that_fails_for_days_is_switched_off_and_it_is_told(self, cast: Cast, told: Receiver, caplog: Any) -> None:
        with receiver() as well, caplog.at_level(logging.ERROR, logger="tasks.webhooks"):
            told.answers = [(500, {})]
            made = endpoint(cast, told)
            endpoint(cast, well, event_types=["webhook_endpoint.disabled"])
            for _ in range(9):
                happen(2)
                work_for_days(0.5, step_minutes=120)
            assert cast.admin.get(f"{ENDPOINTS}/{made['id']}").json["enabled"], "four days and a half"
            for _ in range(2):
                happen(2)
                work_for_days(0.5, step_minutes=120)
            shown = cast.admin.get(f"{ENDPOINTS}/{made['id']}").json
            assert (shown["enabled"], shown["disabled_reason"]) == (False, "failing")
            happen()
            while work():
                pass
            [notice] = well.events
        assert (notice["aggregate_id"], notice["data"]["disabled_reason"]) == (made["id"], "failing")
        assert caplog.messages == ["webhook endpoint disabled"]
        audited = db.rows("SELECT actor, object_id FROM audit_event WHERE action = 'webhooks.disable'")
        assert audited == [("system:webhooks", made["id"])]

    def test_one_that_succeeds_now_and_then_stays_on(self, cast: Cast, told: Receiver) -> None:
        made = endpoint(cast, told)
        for _ in range(4):
            told.answers = [(500, {})]
            happen()
            work_for_days(2)
            told.answers = [(204, {})]
            happen()
            work_for_days(0.1)
        assert cast.admin.get(f"{ENDPOINTS}/{made['id']}").json["enabled"]

    def test_one_that_fails_is_asked_once_at_a_time(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(500, {})]
        endpoint(cast, told)
        happen(40)
        work()
        assert (len(told.received), health()) == (1, [(True, 1, True)])
        assert states().count("queued") == 39 and {found.attempts for found in deliveries(status="queued")} == {0}
        assert work() == 0, "it rests"
        let_time_pass(seconds=6)
        assert [len(batch) for batch in claimed()] == [1]
        assert claimed() == [], "one is under way"

    def test_one_that_comes_back_gets_everything(self, cast: Cast, told: Receiver) -> None:
        told.answers = [(500, {})]
        endpoint(cast, told)
        made = happen(40)
        for _ in range(5):
            work()
            let_time_pass(minutes=6)
        told.answers = [(204, {})]
        for _ in range(6):
            while work():
                pass
            let_time_pass(minutes=40)
        assert set(states()) == {"delivered"}
        assert {event["id"] for event in told.events} == set(made)
        assert health() == [(False, 0, None)]

    def test_one_that_hangs_does_not_starve_the_others(self, cast: Cast, told: Receiver, monkeypatch: Any) -> None:
        with on_the_wire(dripping) as url:
            endpoint(cast, url)
            endpoint(cast, told)
            happen(50)
            batches = claimed()
            by_endpoint: dict[UUID, int] = {}
            for found in deliveries():
                if found.leased_until:
                    by_endpoint[found.endpoint_id] = by_endpoint.get(found.endpoint_id, 0) + 1
            assert set(by_endpoint.values()) == {webhook_deliveries.MOST_UNDER_WAY}
            assert {len(batch) for batch in batches} == {webhook_deliveries.BATCH}
            monkeypatch.setattr(tasks_webhooks, "webhook_sender", lambda: Sender(allow_private=True, total_s=0.2))
            for batch in batches:
                tasks_webhooks.deliver(batch)
            while work():
                pass
        assert len(told.received) == 50
        slow = [found for found in deliveries() if found.status != "delivered"]
        assert sum(found.attempts for found in slow) < 10


    def test_one_that_is_slow_keeps_one_worker_busy_and_rests_as_long(
        self, cast: Cast, told: Receiver, monkeypatch: Any
    ) -> None:
        monkeypatch.setattr(rules, "SLOW_S", 0.2)
        endpoint(cast, told)
        happen(30)
        told.before_answer = lambda: time.sleep(0.25)
        at_once([partial(tasks_webhooks.deliver, batch) for batch in claimed()])
        sent = len(told.received)
        assert sent <= 2, "one of each batch that was under way before anybody knew"
        assert claimed() == [], "it rests"
        let_time_pass(seconds=1)
        [batch] = claimed()
        assert len(batch) == 1
        told.before_answer = lambda: None
        tasks_webhooks.deliver(batch)
        assert sum(map(len, claimed())) == 20, "quick again"


def mailer_that(sends: Any) -> SimpleNamespace:
    return SimpleNamespace(session=lambda: nullcontext(SimpleNamespace(send=sends, wait_s=lambda: 0.0)))


class TestTellingItsMaker:
    @pytest.fixture
    def mails(self, monkeypatch: pytest.MonkeyPatch) -> list[Mail]:
        sent: list[Mail] = []
        monkeypatch.setattr(tasks_webhooks, "mailer", lambda: mailer_that(sent.append))
        return sent

    def promised(self) -> list[str]:
        rows = db.rows("SELECT id FROM outbox WHERE topic = 'notifications.webhook_disabled'")
        return [str(promise_id) for (promise_id,) in rows]

    def switch_off(self, cast: Cast, told: Receiver) -> str:
        told.answers = [(410, {})]
        made = endpoint(cast, told)
        happen()
        work()
        return str(made["id"])

    def test_who_made_an_endpoint_is_told_that_it_was_switched_off(self, cast: Cast, told: Receiver, mails: list[Mail]) -> None:
        self.switch_off(cast, told)
        [promise_id] = self.promised()
        for _ in range(2):
            tasks_webhooks.disabled([promise_id])
        [mail] = mails
        assert (mail.id, mail.to) == (promise_id, cast.admin.email)
        assert "410 Gone" in mail.text and "/hooks" in mail.text
        assert "s3cret" not in mail.text + mail.html
        assert state(promise_id) == "confirmed"

    def test_nobody_is_told_what_is_no_longer_so(self, cast: Cast, told: Receiver, mails: list[Mail]) -> None:
        endpoint_id = self.switch_off(cast, told)
        cast.admin.patch(f"{ENDPOINTS}/{endpoint_id}", {"enabled": True}, version="2")
        tasks_webhooks.disabled(self.promised())
        assert (mails, [state(one) for one in self.promised()]) == ([], ["confirmed"])

    def test_a_mail_that_does_not_go_out_is_tried_again(self, cast: Cast, told: Receiver, monkeypatch: Any) -> None:
        def away(_: Mail) -> None:
            raise MailUnavailable("ConnectionRefusedError")

        self.switch_off(cast, told)
        monkeypatch.setattr(tasks_webhooks, "mailer", lambda: mailer_that(away))
        tasks_webhooks.disabled(self.promised())
        assert [state(one) for one in self.promised()] == ["waiting"]


class TestAtLeastOnce:
    def test_two_workers_with_one_message_send_it_once(self, cast: Cast, told: Receiver) -> None:
        told.before_answer = lambda: time.sleep(0.1)
        endpoint(cast, told)
        happen(3)
        [batch] = claimed()
        at_once([lambda: tasks_webhooks.deliver(batch)] * 4)
        assert sorted(event["sequence"] for event in told.events) == [1, 2, 3]
        assert [found.attempts for found in deliveries()] == [1, 1, 1]

    def test_a_message_that_comes_again_later_does_nothing(self, cast: Cast, told: Receiver) -> None:
        endpoint(cast, told)
        happen(2)
        [batch] = claimed()
        for _ in range(3):
            tasks_webhooks.deliver(batch)
        assert len(told.received) == 2

    def test_a_worker_that_dies_between_answer_and_note_leaves_it_to_the_next(
        self, cast: Cast, told: Receiver, environment: dict[str, str]
    ) -> None:
        made = endpoint(cast, told)
        happen()
        [batch] = claimed()
        killed = subprocess.run(
            [sys.executable, "-m", "tests.tasks.webhook_worker_killed", *batch],
            cwd=ROOT, env={**os.environ, **environment, "WEBHOOK_ALLOW_PRIVATE": "true"}, timeout=60,
        )  # fmt: skip
        assert killed.returncode == -9
        assert len(told.received) == 1 and states() == ["queued"]
        assert work() == 0, "its lease lasts"
        let_time_pass(minutes=3)
        work()
        assert states() == ["delivered"] and deliveries()[0].attempts == 2
        one, other = told.received
        assert one.headers["webhook-id"] == other.headers["webhook-id"] and one.body == other.body
        assert Webhook(made["secret"]).verify(other.body, other.headers)

    def test_a_message_that_kills_every_worker_comes_to_an_end(self, cast: Cast, told: Receiver) -> None:
        endpoint(cast, told)
        happen()
        for _ in range(MOST_ATTEMPTS):
            [[ticket]] = claimed()
            assert webhook_deliveries._begin(webhook_deliveries.Ticket.read(ticket)) is not None
            let_time_pass(minutes=3)
        work()
        assert (states(), deliveries()[0].last_error, told.received) == (["dead"], "no_word", [])

    def test_a_message_that_the_broker_lost_rings_again_when_its_lease_ends(self, cast: Cast, told: Receiver) -> None:
        endpoint(cast, told)
        happen()
        assert len(claimed()) == 1
        assert claimed() == []
        let_time_pass(minutes=3)
        work()
        assert states() == ["delivered"] and deliveries()[0].attempts == 1

    def test_a_ticket_whose_lease_has_ended_is_worth_nothing(self, cast: Cast, told: Receiver) -> None:
        endpoint(cast, told)
        happen()
        [batch] = claimed()
        let_time_pass(minutes=3)
        tasks_webhooks.deliver(batch)
        assert told.received == []

    def test_without_the_database_nothing_is_noted_and_nobody_blamed(
        self, cast: Cast, told: Receiver, databases: Any
    ) -> None:
        endpoint(cast, told)
        happen()
        [batch] = claimed()
        stopped = threading.Event()

        def stop() -> None:
            databases.postgres.stop()
            stopped.set()

        told.before_answer = stop
        tasks_webhooks.deliver(batch)
        # The worker gives up waiting for an answer while the receiver is still at it.
        assert stopped.wait(30)
        databases.postgres.start()
        db.close()
        told.before_answer = lambda: None
        let_time_pass(minutes=3)
        work()
        assert states() == ["delivered"] and len(told.received) == 2
        assert health() == [(False, 0, None)]

    def test_what_does_not_fit_the_time_of_a_task_is_given_back(self, cast: Cast, told: Receiver, monkeypatch: Any) -> None:
        monkeypatch.setattr(tasks_webhooks, "BUDGET_S", -1.0)
        endpoint(cast, told)
        happen(3)
        [batch] = claimed()
        tasks_webhooks.deliver(batch)
        assert len(told.received) == 1
        assert [len(left) for left in claimed()] == [2]

    def test_nothing_is_sent_to_an_endpoint_that_was_switched_off_meanwhile(self, cast: Cast, told: Receiver) -> None:
        made = endpoint(cast, told)
        happen(2)
        [batch] = claimed()
        cast.admin.patch(f"{ENDPOINTS}/{made['id']}", {"enabled": False}, version="1")
        tasks_webhooks.deliver(batch)
        cast.admin.delete(f"{ENDPOINTS}/{made['id']}", version="2")
        let_time_pass(minutes=3)
        tasks_webhooks.deliver(batch)
        assert told.received == []


class TestTheRelay:
    def test_rings_for_events_that_have_their_place(
        self, cast: Cast, told: Receiver, broker: Broker, monkeypatch: Any
    ) -> None:
        rung: list[list[str]] = []
        monkeypatch.setattr(broker, "publish", lambda topic, queue, ids: rung.append([topic, queue, *ids]))
        endpoint(cast, told)
        cast.manager.post(f"/v1/vehicles/{cast.corolla}/status", {"status": "out_of_service"})
        events.put_in_order()
        Relay(broker, known=topics(), limits=dict.fromkeys(QUEUES, 100)).turn()
        [[topic, queue, ticket]] = rung
        assert (topic, queue) == ("webhooks.deliver", "webhooks")
        tasks_webhooks.deliver([ticket])
        assert [event["type"] for event in told.events] == ["vehicle.status_changed"]

    def test_gives_back_what_the_broker_did_not_take(
        self, cast: Cast, told: Receiver, broker: Broker, monkeypatch: Any
    ) -> None:
        sent: list[str] = []

        def once(_topic: str, _queue: str, ids: list[str]) -> None:
            if sent:
                raise BrokerAway("Connection refused")
            sent.extend(ids)

        monkeypatch.setattr(broker, "publish", once)
        endpoint(cast, told)
        happen(20)
        with pytest.raises(BrokerAway):
            tasks_webhooks.ring(broker, limit=100)
        left = {ticket for batch in claimed() for ticket in batch}
        assert len(sent) == len(left) == 10 and not left & set(sent)

    def test_leaves_a_paused_queue_alone(self, cast: Cast, told: Receiver, broker: Broker, monkeypatch: Any) -> None:
        monkeypatch.setattr(broker, "depth", lambda queue: 1000 if queue == "webhooks" else 0)
        endpoint(cast, told)
        happen()
        Relay(broker, known=topics(), limits=dict.fromkeys(QUEUES, 100)).turn()
        assert len(claimed()) == 1

    def test_rings_for_no_more_than_it_may(self, cast: Cast, told: Receiver, broker: Broker) -> None:
        endpoint(cast, told)
        happen(10)
        assert tasks_webhooks.ring(broker, limit=4) == 4
        assert [len(batch) for batch in claimed()] == [6]

    def test_a_batch_is_as_long_as_a_message_says(self) -> None:
        assert relay.BATCH["webhooks"] == webhook_deliveries.BATCH


class TestKeeping:
    def test_deliveries_are_kept_for_thirty_days_and_events_for_ninety(self, cast: Cast) -> None:
        insert("webhook_endpoint", url="https://example.com/", secret=b"s")
        [(endpoint_id,)] = db.rows("SELECT id FROM webhook_endpoint")
        for days in (29.9, 30.1, 89.9, 90.1):
            at = clock.now() - timedelta(days=days)
            event_id = retention.first_id_of(at)
            about = {"type": "rental.held", "aggregate_type": "rental", "aggregate_id": event_id, "data": {}}
            insert("event", id=event_id, occurred_at=at, position=int(days * 10), **about)
            insert("webhook_delivery", id=event_id, endpoint_id=endpoint_id, event_id=event_id)
        forgotten = retention.forget_old()
        assert (forgotten["webhook_delivery"], forgotten["event"]) == (3, 1)

    def test_no_line_of_the_log_names_an_address_or_a_secret(self, cast: Cast, told: Receiver, caplog: Any) -> None:
        told.answers = [(500, {}), (410, {})]
        made = endpoint(cast, told)
        happen(2)
        with caplog.at_level(logging.DEBUG):
            work()
            let_time_pass(minutes=1)
            work()
        lines = [str(vars(record)) for record in caplog.records]
        assert any("webhook" in line for line in lines)
        assert not [line for line in lines if "s3cret" in line or made["secret"] in line or told.url in line]
