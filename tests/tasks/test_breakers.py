"""What waits for something that is away keeps waiting: no breaker makes a dead letter, and none is asked in vain."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from fleet import breakers
from fleet.breakers import AUTO, FORCED_OPEN, Breaker, Open, Rules
from fleet.db import db
from fleet.gateways import mail, sms, stripe_cards
from fleet.gateways.mail import MailRefused, MailUnavailable, SmtpMailer
from fleet.gateways.sms import HttpSms, Sms, SmsRefused, SmsUnavailable
from fleet.gateways.stripe_cards import StripeCards
from fleet.gateways.webhooks import NotDelivered, Sender
from fleet.models.notifications import Notification
from fleet.services import outbox
from fleet.services.outbox import MAX_DELIVERIES
from tasks import notifications as consumers
from tasks import payments, webhooks
from tests.books import issued, rental_to_bill
from tests.cast import Cast, at, insert
from tests.endpoints import claimed, deliveries, endpoint, happen, let_time_pass
from tests.money import card_payment
from tests.receiver import on_the_wire, receiver
from tests.stripe_server import SECRET, stripe_server
from tests.tasks.outboxes import let_leases_end, promised, row, state, texts
from tests.tasks.postbox import postbox
from tests.tasks.provider import provider
from tests.tasks.test_mail import SENDER, letter

NOWHERE = "smtp://127.0.0.1:1"
MESSAGE = Sms("01a2175a-3166-71f2-8520-7980a10af0f7", "+351210000000", "Hello")


def breaker_of(is_failure: breakers.IsFailure) -> Breaker:
    return Breaker("of-a-test", Rules(min_calls=3), is_failure=is_failure)


class TestMailServer:
    def test_a_server_that_is_away_is_not_asked_for_each_letter(self) -> None:
        breaker = breaker_of(mail.is_outage)
        with SmtpMailer(NOWHERE, SENDER, breaker=breaker).session() as session:
            for _ in range(3):
                with pytest.raises(MailUnavailable):
                    session.send(letter())
            assert session.wait_s() > 9
            with pytest.raises(Open):
                session.send(letter())

    def test_a_server_that_hangs_up_is_away_too(self) -> None:
        breaker = breaker_of(mail.is_outage)
        with on_the_wire(lambda connection: None) as url:
            mailer = SmtpMailer(url.replace("http", "smtp").rstrip("/"), SENDER, breaker=breaker)
            with mailer.session() as session, pytest.raises(MailUnavailable):
                session.send(letter())
        assert breaker.failure_count == 1

    @pytest.mark.parametrize(("answers", "error"), [("550 no such user", MailRefused), ("451 greylisted", MailUnavailable)])
    def test_what_it_answers_about_one_letter_says_nothing_about_the_server(
        self, answers: str, error: type[Exception]
    ) -> None:
        breaker = breaker_of(mail.is_outage)
        with postbox() as box, SmtpMailer(box.url, SENDER, breaker=breaker).session() as session:
            box.to_recipient = answers
            for _ in range(4):
                with pytest.raises(error):
                    session.send(letter())
        assert (breaker.state, breaker.failure_count) == ("closed", 0)


class TestSmsProvider:
    def test_a_provider_that_is_away_is_not_asked_for_each_message(self) -> None:
        breaker = breaker_of(sms.is_outage)
        with provider() as told:
            told.status = 503
            gateway = HttpSms(told.url, token="t", sender="Fleet", breaker=breaker)
            for _ in range(3):
                with pytest.raises(SmsUnavailable):
                    gateway.send(MESSAGE)
            with pytest.raises(Open):
                gateway.send(MESSAGE)
            assert (len(told.taken), gateway.wait_s() > 9) == (3, True)

    def test_a_message_that_it_refuses_says_nothing_about_it(self) -> None:
        breaker = breaker_of(sms.is_outage)
        with provider() as told:
            told.status = 422
            for _ in range(4):
                with pytest.raises(SmsRefused):
                    HttpSms(told.url, token="t", sender="Fleet", breaker=breaker).send(MESSAGE)
        assert breaker.failure_count == 0


@dataclass
class Post:
    """A mail server and a provider, behind a breaker of theirs. `opens_late`: it opens after the look at it."""

    breaker: Breaker
    opens_late: bool = False
    asked: int = 0

    def session(self) -> "Post":
        return self

    def __enter__(self) -> "Post":
        return self

    def __exit__(self, *_: Any) -> None:
        """Nothing to let go of."""

    def wait_s(self) -> float:
        return 0.0 if self.opens_late else self.breaker.wait_s()

    def send(self, _: Any) -> None:
        self.breaker.call(self._take)

    def _take(self) -> None:
        self.asked += 1


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post(Breaker("post", Rules(open_s=40)))
    monkeypatch.setattr(consumers, "mailer", lambda: post)
    monkeypatch.setattr(consumers, "sms_gateway", lambda: post)
    return post


def reserved(cast: Cast) -> UUID:
    rental = rental_to_bill(cast, status="reserved", pickup_branch_id=cast.lisbon, start_at=at(1), end_at=at(3))
    return outbox.promise("notifications.rental_reserved", "rental", rental.id)


def waits_s(promise: UUID | str) -> float:
    [(seconds,)] = db.rows("SELECT extract(epoch FROM next_attempt_at - now())::float FROM outbox WHERE id = %s", (promise,))
    return float(seconds)


def ring_in_vain(promise: UUID | str, ring: Callable[[list[str]], object]) -> None:
    """More often than a message may be delivered, while the breaker is open."""
    for _ in range(MAX_DELIVERIES + 2):
        let_leases_end()
        ring(texts([promise]))
    assert (state(promise), row(promise).deliveries, row(promise).last_error) == ("waiting", 0, None)
    assert 30 < waits_s(promise) < 50


class TestPromises:
    @pytest.mark.parametrize("opens_late", [False, True])
    def test_a_letter_waits_as_long_as_it_takes_and_then_goes_out(self, cast: Cast, post: Post, opens_late: bool) -> None:
        post.opens_late = opens_late
        post.breaker.force(FORCED_OPEN)
        promise = reserved(cast)
        ring_in_vain(promise, consumers.rental_reserved)
        assert (post.asked, Notification.select().count()) == (0, int(opens_late))
        post.breaker.force(AUTO)
        consumers.rental_reserved(texts([promise]))
        assert (post.asked, state(promise)) == (1, "confirmed")

    def test_a_text_message_waits_too(self, cast: Cast, post: Post) -> None:
        rental = rental_to_bill(cast, status="reserved", pickup_branch_id=cast.lisbon, start_at=at(1), end_at=at(3))
        payload = {"about_at": rental.start_at.isoformat()}
        consumers.rental_reminder(texts([outbox.promise("notifications.rental_reminder", "rental", rental.id, payload)]))
        [(promise,)] = db.rows("SELECT id FROM outbox WHERE topic = 'notifications.sms'")
        post.breaker.force(FORCED_OPEN)
        ring_in_vain(promise, consumers.sms)
        post.breaker.force(AUTO)
        consumers.sms(texts([promise]))
        assert (post.asked, state(promise)) == (2, "confirmed")

    def test_when_it_opens_within_a_batch_the_rest_is_given_back_untried(self, cast: Cast, post: Post) -> None:
        promises = [reserved(cast) for _ in range(2)]
        take = post._take

        def last() -> None:
            take()
            post.breaker.force(FORCED_OPEN)

        post._take = last  # type: ignore[method-assign]  # the server goes away after this letter
        consumers.rental_reserved(texts(promises))
        assert sorted((state(one), row(one).deliveries) for one in promises) == [("confirmed", 1), ("waiting", 0)]

    @pytest.mark.parametrize("opens_late", [False, True])
    def test_a_refund_waits_for_the_gateway(self, cast: Cast, monkeypatch: pytest.MonkeyPatch, opens_late: bool) -> None:
        breaker = Breaker("stripe-of-a-test", Rules(open_s=40), is_failure=stripe_cards.is_outage)
        with stripe_server() as (stripe, address):
            cards = StripeCards("sk_test_1", address, SECRET, breaker=breaker)
            if opens_late:
                monkeypatch.setattr(cards, "wait_s", lambda: 0.0)
            monkeypatch.setattr(payments, "cards", lambda: cards)
            payment = card_payment(issued(cast), status="captured", gateway_reference="pi_1", refunded_amount=70)
            refund = insert(
                "refund", status="approved", payment_id=payment, amount=70, needs_approval=False,
                requested_by=cast.agent.user_id, approved_at=at(0),
            )  # fmt: skip
            [promise] = promised(topic=payments.SEND_REFUND)
            db.execute_sql("UPDATE outbox SET aggregate_id = %s WHERE id = %s", (refund, promise))
            breaker.force(FORCED_OPEN)
            ring_in_vain(promise, payments.send_refund)
            assert stripe.calls == []


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sender]:
    sender = Sender(allow_private=True, total_s=2.0)
    monkeypatch.setattr(webhooks, "webhook_sender", lambda: sender)
    yield sender


def deliver() -> None:
    for batch in claimed():
        webhooks.deliver(batch)


class TestWebhooks:
    def test_a_host_that_is_away_is_not_asked_by_its_other_endpoints(self, sender: Sender) -> None:
        for path in "abcde":
            with pytest.raises(NotDelivered):
                sender.post(f"http://127.0.0.1:1/{path}", {}, b"{}")
        with pytest.raises(Open):
            sender.post("http://127.0.0.1:1/another", {}, b"{}")
        with receiver() as told:
            assert sender.post(told.url, {}, b"{}").status == 204

    def test_a_bad_answer_of_one_endpoint_keeps_nobody_from_its_host(self, sender: Sender) -> None:
        with receiver() as told:
            told.answers = [(500, {})]
            for _ in range(10):
                assert sender.post(told.url, {}, b"{}").status == 500

    def test_a_delivery_whose_host_is_away_waits_without_having_failed(self, cast: Cast, sender: Sender) -> None:
        with receiver() as told:
            endpoint(cast, told)
            happen(2)
            breaker = breakers.of_host(told.url.split("/")[2])
            breaker.force(FORCED_OPEN)
            for _ in range(15):
                deliver()
                let_time_pass(minutes=1)
            assert {(one.status, one.attempts - one.attempts_before, one.last_error) for one in deliveries()} == {
                ("queued", 0, None)
            }
            assert db.rows("SELECT failing_since, failures FROM webhook_health") == [(None, 0)]
            assert told.received == []
            breaker.force(AUTO)
            for _ in range(3):
                deliver()
                let_time_pass(minutes=1)
            assert {one.status for one in deliveries()} == {"delivered"}

    def test_while_its_host_is_away_an_endpoint_rests(self, cast: Cast, sender: Sender) -> None:
        with receiver() as told:
            endpoint(cast, told)
            happen(5)
            breakers.of_host(told.url.split("/")[2]).force(FORCED_OPEN)
            deliver()
            assert claimed() == []
