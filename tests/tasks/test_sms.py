"""A text message goes to the provider once, within its time; what goes wrong says whether trying again is safe and helps."""

import logging
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from fleet import config
from fleet.config import ConfigError, Settings
from fleet.db import db
from fleet.gateways import sms
from fleet.gateways.sms import (
    FolderSms,
    HttpSms,
    NoSms,
    Sms,
    SmsNotConfigured,
    SmsRefused,
    SmsUnavailable,
    SmsUncertain,
)
from fleet.models.notifications import Notification
from fleet.models.rentals import Rental
from fleet.rules.notices import KINDS
from fleet.services import notifications, outbox
from tasks import notifications as consumers
from tests.books import rental_to_bill
from tests.cast import Cast, at
from tests.tasks.letters_due import booked_as, promised_about
from tests.tasks.outboxes import at_once, last_error, let_leases_end, state, texts
from tests.tasks.postbox import silent_server
from tests.tasks.provider import provider

MESSAGE = Sms("01a2175a-3166-71f2-8520-7980a10af0f7", "+351210000000", "Reminder: rental RNT-1 – olá")
NEEDED = {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h/0", "SECRET_KEY": "k3Jx9Qz7Lm2Vb8Nw4Rt6Yp1Hs5Dg0Fc2Aa"}


def gateway(url: str, **times: Any) -> HttpSms:
    return HttpSms(url, token="secret-token", sender="Fleet", **times)


class TestGateway:
    def test_the_provider_gets_the_message_the_key_and_the_token(self) -> None:
        with provider() as told:
            gateway(told.url).send(MESSAGE)
        assert told.taken == [{"to": MESSAGE.to, "text": MESSAGE.text, "sender": "Fleet", "id": MESSAGE.id}]
        [headers] = told.sent_headers
        assert headers["Idempotency-Key"] == MESSAGE.id
        assert headers["Authorization"] == "Bearer secret-token"
        assert headers["Content-Type"] == "application/json"

    @pytest.mark.parametrize(
        ("status", "error"),
        [
            *((code, SmsRefused) for code in (400, 401, 422)),
            *((code, SmsUnavailable) for code in (429, 503)),
            *((code, SmsUncertain) for code in (500, 502, 504, 599)),
        ],
    )
    def test_what_the_provider_answers_says_whether_trying_again_helps(self, status: int, error: type[Exception]) -> None:
        with provider() as told, pytest.raises(error, match=f"{status}") as refusal:
            told.status = status
            gateway(told.url).send(MESSAGE)
        assert not any(said in f"{refusal.value}" for said in (MESSAGE.to, "RNT-1", "secret-token"))

    def test_a_redirect_is_not_followed(self) -> None:
        with provider() as told, provider() as elsewhere, pytest.raises(SmsRefused, match="307"):
            told.status, told.headers = 307, {"Location": elsewhere.url}
            gateway(told.url).send(MESSAGE)
        assert elsewhere.taken == []

    def test_who_cannot_be_reached_has_taken_nothing(self) -> None:
        with pytest.raises(SmsUnavailable, match="ConnectionRefusedError"):
            gateway("http://127.0.0.1:1/").send(MESSAGE)

    def test_silence_costs_no_more_than_the_time_to_read_and_leaves_it_open_what_happened(self) -> None:
        with silent_server() as url:
            started = time.monotonic()
            with pytest.raises(SmsUncertain, match="TimeoutError"):
                gateway(url.replace("smtp://", "http://"), read_s=0.3).send(MESSAGE)
        assert 0.3 <= time.monotonic() - started < 3

    def test_an_answer_that_drips_ends_with_the_time_for_the_whole(self) -> None:
        ended = threading.Event()

        def drip(handler: Any) -> None:
            while not ended.wait(0.05):
                handler.wfile.write(b"H")

        with provider() as told:
            told.instead = drip
            started = time.monotonic()
            with pytest.raises(SmsUncertain):
                gateway(told.url, read_s=5, total_s=0.5).send(MESSAGE)
            ended.set()
        assert 0.5 <= time.monotonic() - started < 3

    def test_the_end_of_the_task_while_it_waits_leaves_it_open_what_happened(self) -> None:
        def at_its_end(*_: Any) -> None:
            raise SoftTimeLimitExceeded

        usual = signal.signal(signal.SIGALRM, at_its_end)
        try:
            with silent_server() as url:
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                with pytest.raises(SmsUncertain, match="SoftTimeLimitExceeded"):
                    gateway(url.replace("smtp://", "http://"), read_s=5).send(MESSAGE)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, usual)

    def test_a_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        with provider() as told:
            gateway(told.url).send(MESSAGE)
        assert len(told.taken) == 1

    def test_the_clear_text_of_http_is_for_development_only(self) -> None:
        with pytest.raises(ConfigError, match="SMS_URL must be https://"):
            Settings.load({**NEEDED, "SMS_URL": "http://sms.example", "SMS_TOKEN": "t"})
        with pytest.raises(ConfigError, match="PUBLIC_URL must be https://"):
            Settings.load({**NEEDED, "PUBLIC_URL": "http://fleet.example"})
        with pytest.raises(ConfigError, match="SMS_URL and SMS_TOKEN"):
            Settings.load({**NEEDED, "SMS_URL": "https://sms.example"})

    def test_the_settings_choose_the_way_of_the_text_messages(self, tmp_path: Path) -> None:
        chosen = sms.gateway(Settings.load({**NEEDED, "SMS_URL": "https://sms.example", "SMS_TOKEN": "t"}))
        assert isinstance(chosen, HttpSms)
        local = Settings.load({**NEEDED, "FLEET_ENV": "development", "FLEET_MAIL_DIR": f"{tmp_path}"})
        assert isinstance(sms.gateway(local), FolderSms)
        nowhere = sms.gateway(Settings.load(NEEDED))
        assert isinstance(nowhere, NoSms)
        with pytest.raises(SmsNotConfigured):
            nowhere.send(MESSAGE)

    def test_development_reads_them_in_the_local_outbox(self, tmp_path: Path) -> None:
        FolderSms(tmp_path).send(replace(MESSAGE, text="<b>bold</b>"))
        assert "<b>bold</b>" in (tmp_path / f"{MESSAGE.id}.sms.txt").read_text()
        page = (tmp_path / "index.html").read_text()
        assert "&lt;b&gt;bold" in page and MESSAGE.to in page


class Post:
    """A provider in the same process; what it raises is how it ends."""

    def __init__(self) -> None:
        self.sent: list[Sms] = []
        self.ends_with: BaseException | None = None
        self.away_s = 0.0

    def wait_s(self) -> float:
        return self.away_s

    def send(self, message: Sms) -> None:
        self.sent.append(message)
        if self.ends_with:
            raise self.ends_with


class Killed(BaseException):
    """The end of the process, after the provider took the message and before we noted it."""


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(consumers, "sms_gateway", lambda: post)
    return post


@pytest.fixture
def rental(cast: Cast) -> Rental:
    return rental_to_bill(cast, status="reserved", pickup_branch_id=cast.lisbon, start_at=at(1), end_at=at(3))


def reminded(rental: Rental) -> UUID:
    """The promise of a reminder, delivered by e-mail."""
    payload = {"about_at": rental.start_at.isoformat()}
    made = outbox.promise("notifications.rental_reminder", "rental", rental.id, payload)
    consumers.rental_reminder(texts([made]))
    return made


def promised() -> list[UUID]:
    """The text messages that are promised."""
    return [found for (found,) in db.rows("SELECT id FROM outbox WHERE topic = %s ORDER BY id", (notifications.SMS_TOPIC,))]


def ring(made: UUID) -> None:
    consumers.sms(texts([made]))


def kept(made: UUID) -> tuple[str, str | None]:
    found = Notification.get(Notification.id == made)
    return found.status, found.reason


def honouring_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_current", replace(config.current(), sms_key_honoured=True))


class TestSending:
    def test_a_letter_promises_its_text_message_once(self, rental: Rental, post: Post) -> None:
        made = reminded(rental)
        let_leases_end()
        consumers.rental_reminder(texts([made]))
        [promise] = promised()
        ring(promise)
        [message] = post.sent
        assert (message.id, message.to) == (f"{promise}", "+351210000000")
        assert rental.number in message.text
        assert (kept(promise), state(promise)) == (("sent", None), "confirmed")
        found = Notification.get(Notification.id == promise)
        assert (found.channel, found.kind, found.rental_id) == ("sms", "rental_reminder", rental.id)

    def test_a_letter_in_several_hands_promises_one(self, rental: Rental, post: Post) -> None:
        payload = {"about_at": rental.start_at.isoformat()}
        made = outbox.promise("notifications.rental_reminder", "rental", rental.id, payload)
        at_once([lambda: consumers.rental_reminder(texts([made]))] * 4)
        assert len(promised()) == 1

    def test_what_nobody_wants_by_text_message_is_not_promised(self, rental: Rental, post: Post) -> None:
        made = outbox.promise("notifications.rental_reserved", "rental", rental.id)
        consumers.rental_reserved(texts([made]))
        assert promised() == []

    def test_who_wants_no_e_mail_still_gets_the_text_message(self, cast: Cast, rental: Rental, post: Post) -> None:
        path = f"/v1/customers/{cast.ana.customer_id}/notification-preferences"
        assert cast.ana.put(path, {"kinds": {"rental_reminder": {"email": False}}}, version="0").status_code == 200
        made = reminded(rental)
        assert kept(made) == ("skipped", "not_wanted")
        ring(promised()[0])
        assert len(post.sent) == 1

    def test_a_choice_between_promise_and_sending_counts(self, cast: Cast, rental: Rental, post: Post) -> None:
        reminded(rental)
        path = f"/v1/customers/{cast.ana.customer_id}/notification-preferences"
        cast.ana.put(path, {"kinds": {"rental_reminder": {"sms": False}}}, version="0")
        [promise] = promised()
        ring(promise)
        assert (post.sent, kept(promise)) == ([], ("skipped", "not_wanted"))

    def test_a_number_that_cannot_be_called_from_everywhere_gets_none(self, cast: Cast, rental: Rental, post: Post) -> None:
        db.execute_sql("UPDATE customer SET phone = '0210 000 000' WHERE id = %s", (cast.ana.customer_id,))
        reminded(rental)
        assert promised() == []

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_message_whose_worker_was_killed_is_not_sent_twice(self, cast: Cast, post: Post, kind: str) -> None:
        """At most once, for every kind by text message."""
        everything = {"kinds": {name: {"sms": True} for name in KINDS}}
        path = f"/v1/customers/{cast.ana.customer_id}/notification-preferences"
        assert cast.ana.put(path, everything, version="0").status_code == 200
        promise = promised_about(kind, booked_as(cast, kind), sms=True)
        self.send_and_kill(post, promise)
        ring(promise)
        assert (len(post.sent), kept(promise), state(promise)) == (1, ("unknown", None), "confirmed")

    def test_it_is_sent_again_with_its_key_where_the_provider_knows_the_key(
        self, rental: Rental, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """At least once, and the provider makes it once."""
        honouring_the_key(monkeypatch)
        reminded(rental)
        [promise] = promised()
        self.send_and_kill(post, promise)
        ring(promise)
        assert {message.id for message in post.sent} == {f"{promise}"}
        assert (len(post.sent), kept(promise), state(promise)) == (2, ("sent", None), "confirmed")

    def test_a_message_that_nobody_answered_to_is_not_sent_twice(self, rental: Rental, post: Post) -> None:
        reminded(rental)
        [promise] = promised()
        post.ends_with = SmsUncertain("no answer: TimeoutError")
        ring(promise)
        ring(promise)
        assert (len(post.sent), kept(promise), state(promise)) == (1, ("unknown", None), "confirmed")

    def test_nor_is_it_given_up_where_the_provider_knows_the_key(
        self, rental: Rental, post: Post, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        honouring_the_key(monkeypatch)
        reminded(rental)
        [promise] = promised()
        post.ends_with = SmsUncertain("no answer: TimeoutError")
        ring(promise)
        assert (kept(promise), state(promise)) == (("failed", None), "waiting")

    def test_a_provider_that_is_away_is_asked_again_later(self, rental: Rental, post: Post) -> None:
        reminded(rental)
        [promise] = promised()
        post.ends_with = SmsUnavailable("the provider answered 503")
        ring(promise)
        assert (kept(promise), state(promise)) == (("failed", None), "waiting")
        post.ends_with = None
        ring(promise)
        assert (kept(promise), state(promise)) == (("sent", None), "confirmed")

    def test_what_the_provider_refuses_is_a_dead_letter_that_tells_nothing_of_the_person(
        self, rental: Rental, post: Post, caplog: pytest.LogCaptureFixture
    ) -> None:
        reminded(rental)
        [promise] = promised()
        post.ends_with = SmsRefused("the provider answered 400")
        with caplog.at_level(logging.DEBUG):
            ring(promise)
        assert state(promise) == "dead"
        assert last_error(promise).startswith("SmsRefused (the provider answered 400)")
        assert "+351210000000" not in caplog.text and rental.number not in caplog.text

    @staticmethod
    def send_and_kill(post: Post, promise: UUID) -> None:
        post.ends_with = Killed()
        with pytest.raises(Killed):
            ring(promise)
        post.ends_with = None
        ring(promise)
        assert (len(post.sent), kept(promise)[0], state(promise)) == (1, "sending", "waiting")
        db.execute_sql("UPDATE notification SET attempted_at = now() - interval '91 seconds'")
        let_leases_end()
