"""A letter goes out at least once, twice only where nobody can know better, and then with one Message-ID."""

import email
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email import policy
from pathlib import Path
from uuid import UUID

import peewee
import psycopg2
import pytest
from prometheus_client import REGISTRY

from fleet import clock, config
from fleet.db import db
from fleet.gateways.mail import FolderMailer, Mail, MailNotConfigured, MailRefused, MailUnavailable, Session
from fleet.models.notifications import Notification
from fleet.rules.notices import ACCOUNT_KINDS, KINDS, REQUIRED
from fleet.services import notifications, outbox, webhook_notices
from tasks import notifications as consumers
from tasks import topics
from tests.books import issued, rental_to_bill
from tests.cast import Cast, at
from tests.tasks.letters_due import STATE_OF, booked_as, promised_about
from tests.tasks.outboxes import at_once, last_error, let_leases_end, received, row, state, texts

SENDER = "Fleet <no-reply@fleet.example>"


class Post:
    """A mailer that keeps what it is given, or fails as it is told."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.fails_with: Exception | None = None
        self.while_sending: Callable[[], object] = lambda: None
        self.away_s = 0.0

    @contextmanager
    def session(self) -> Iterator[Session]:
        yield self

    def wait_s(self) -> float:
        return self.away_s

    def send(self, mail: Mail) -> None:
        self.while_sending()
        if self.fails_with:
            raise self.fails_with
        self.mails.append(mail)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Post:
    post = Post()
    monkeypatch.setattr(consumers, "mailer", lambda: post)
    return post


@pytest.fixture
def rental(cast: Cast):
    return rental_to_bill(cast, status="reserved", pickup_branch_id=cast.lisbon, start_at=at(1), end_at=at(3))


@pytest.fixture
def promise(rental) -> UUID:
    return outbox.promise("notifications.rental_reserved", "rental", rental.id)


def ring(promise: UUID) -> None:
    consumers.rental_reserved(texts([promise]))


def skipped(promise: UUID) -> str | None:
    """Why its letter was not sent."""
    found = Notification.get(Notification.id == promise)
    assert found.status == "skipped"
    return found.reason


def status(promise: UUID) -> str:
    """How far its letter is."""
    return str(Notification.get(Notification.id == promise).status)


@pytest.mark.parametrize("kind", STATE_OF)
def test_each_kind_of_letter_about_a_rental_goes_to_its_renter(cast, post, kind):
    rental = booked_as(cast, kind)
    made = promised_about(kind, rental)
    getattr(consumers, kind)(texts([made]))
    [mail] = post.mails
    assert mail.to == cast.ana.email
    assert rental.number in mail.subject
    assert "Toyota Corolla" in mail.text
    assert "(Europe/Lisbon)" in mail.text
    assert state(made) == "confirmed"
    kept = Notification.get(Notification.id == made)
    assert (kept.kind, kept.channel, kept.status, kept.rental_id) == (kind, "email", "sent", rental.id)
    assert kept.customer_id == cast.ana.customer_id


@pytest.mark.parametrize("kind", [kind for kind, known in KINDS.items() if known.true_in])
def test_a_letter_that_is_true_no_longer_is_not_sent(cast, post, kind):
    rental = booked_as(cast, kind)
    made = promised_about(kind, rental)
    db.execute_sql("ALTER TABLE rental DISABLE TRIGGER rental_transition")
    try:
        db.execute_sql("UPDATE rental SET status = 'cancelled' WHERE id = %s", (rental.id,))
    finally:
        db.execute_sql("ALTER TABLE rental ENABLE TRIGGER rental_transition")
    getattr(consumers, kind)(texts([made]))
    assert post.mails == []
    assert (skipped(made), state(made)) == ("outdated", "confirmed")


def test_a_reminder_of_a_rental_that_moved_is_not_sent(cast, post):
    rental = booked_as(cast, "rental_reminder")
    made = promised_about("rental_reminder", rental)
    db.execute_sql("UPDATE rental SET start_at = start_at + interval '1 hour' WHERE id = %s", (rental.id,))
    consumers.rental_reminder(texts([made]))
    assert (post.mails, skipped(made)) == ([], "outdated")


def test_a_vehicle_that_was_given_more_time_is_not_asked_back(cast, post):
    rental = booked_as(cast, "rental_overdue")
    made = promised_about("rental_overdue", rental)
    db.execute_sql("UPDATE rental SET end_at = end_at + interval '1 day' WHERE id = %s", (rental.id,))
    consumers.rental_overdue(texts([made]))
    assert (post.mails, skipped(made)) == ([], "outdated")


def test_a_hold_whose_time_is_over_is_not_told_as_if_it_stood(cast, post):
    rental = booked_as(cast, "rental_held")
    made = promised_about("rental_held", rental)
    db.execute_sql("UPDATE rental SET hold_expires_at = now() - interval '1 second' WHERE id = %s", (rental.id,))
    consumers.rental_held(texts([made]))
    assert (post.mails, skipped(made)) == ([], "outdated")


def test_a_letter_is_written_in_the_customers_language(cast, promise, post):
    db.execute_sql("UPDATE customer SET language = 'de' WHERE id = %s", (cast.ana.customer_id,))
    ring(promise)
    [mail] = post.mails
    assert mail.subject.startswith("Ihre Reservierung") and '<html lang="de">' in mail.html


def test_a_language_of_old_that_is_not_offered_is_the_default(cast, promise, post):
    db.execute_sql("UPDATE customer SET language = 'pt' WHERE id = %s", (cast.ana.customer_id,))
    ring(promise)
    assert post.mails[0].subject.startswith("Your reservation")


def test_the_receipt_brings_the_invoice_on_paper(cast, post):
    invoice = issued(cast)
    [made] = [found for (found,) in db.rows("SELECT id FROM outbox WHERE topic = 'notifications.invoice_issued'")]
    consumers.invoice_issued(texts([made]))
    [mail] = post.mails
    assert invoice.number in mail.subject
    for told in ("EUR 90.00", "EUR 20.70", "EUR 110.70"):
        assert told in mail.text
    [paper] = mail.attachments
    assert (paper.name, paper.subtype, paper.content[:5]) == (f"{invoice.number}.pdf", "pdf", b"%PDF-")
    assert paper.content == cast.ana.get(f"/v1/invoices/{invoice.id}.pdf").data
    assert Notification.get(Notification.id == made).invoice_id == invoice.id


def test_every_kind_has_a_consumer_and_text_messages_have_theirs():
    known = {topic for topic in topics() if topic.startswith("notifications.")}
    of_kinds = {f"notifications.{kind}" for kind in (*KINDS, *ACCOUNT_KINDS)}
    assert known == of_kinds | {notifications.SMS_TOPIC, webhook_notices.TOPIC}


def test_the_same_message_a_hundred_times_is_one_mail(promise, post):
    for _ in range(100):
        ring(promise)
    assert len(post.mails) == 1
    assert received(promise) == 1


def test_the_same_message_in_many_hands_at_once_is_one_mail(promise, post):
    at_once([lambda: ring(promise)] * 5)
    assert len(post.mails) == 1


def test_no_transaction_is_open_while_the_mail_server_is_asked(promise, post):
    seen = []
    post.while_sending = lambda: seen.append((db.in_transaction(), status(promise)))
    ring(promise)
    assert seen == [(False, "sending")]


def test_a_server_that_is_away_is_asked_again_later(promise, post):
    post.fails_with = MailUnavailable("ConnectionRefusedError")
    ring(promise)
    assert (status(promise), state(promise), received(promise)) == ("failed", "waiting", 0)
    assert row(promise).next_attempt_at > clock.now()
    assert last_error(promise).startswith("MailUnavailable (ConnectionRefusedError)")
    post.fails_with = None
    ring(promise)
    assert (status(promise), state(promise), len(post.mails)) == ("sent", "confirmed", 1)


def test_a_server_that_stays_away_ends_in_a_dead_letter(promise, post):
    post.fails_with = MailUnavailable("ConnectionRefusedError")
    for _ in range(outbox.MAX_DELIVERIES):
        assert state(promise) == "waiting"
        ring(promise)
    assert (status(promise), state(promise)) == ("failed", "dead")


@pytest.mark.parametrize("error", [MailRefused("recipient refused with 550"), MailNotConfigured("SMTP_URL is not set")])
def test_what_no_repetition_heals_is_a_dead_letter_at_once(promise, post, error):
    post.fails_with = error
    ring(promise)
    assert (state(promise), row(promise).deliveries) == ("dead", 1)
    assert str(error) in last_error(promise)


def test_a_replayed_dead_letter_goes_out(promise, post):
    post.fails_with = MailNotConfigured("SMTP_URL is not set")
    ring(promise)
    post.fails_with = None
    db.execute_sql("UPDATE outbox SET dead_at = NULL, deliveries = 0, next_attempt_at = now()")
    ring(promise)
    assert (state(promise), len(post.mails)) == ("confirmed", 1)


def test_a_letter_about_nothing_is_a_dead_letter(cast, post):
    made = outbox.promise("notifications.rental_reserved", "rental", clock.new_id())
    ring(made)
    assert (state(made), row(made).deliveries) == ("dead", 1)


def test_a_letter_that_another_worker_is_sending_is_left_to_it(promise, post):
    post.while_sending = lambda: ring(promise)
    ring(promise)
    assert len(post.mails) == 1
    assert state(promise) == "confirmed"


class Killed(BaseException):
    """The end of the process, after the server took the message and before we noted it."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_letter_whose_worker_was_killed_goes_out_again_with_the_same_id(cast, post, kind):
    """At least once, for every kind by e-mail."""
    made = promised_about(kind, booked_as(cast, kind))
    again = lambda: getattr(consumers, kind)(texts([made]))  # noqa: E731

    def sent_and_killed():
        post.mails.append(Mail(f"{made}", "", "", "", ""))
        raise Killed

    post.while_sending = sent_and_killed
    with pytest.raises(Killed):
        again()
    post.while_sending = lambda: None
    again()
    assert (status(made), state(made), len(post.mails)) == ("sending", "waiting", 1)
    assert 85 < (row(made).next_attempt_at - clock.now()).total_seconds() <= 90, "it waits for the end of the lost claim"
    db.execute_sql("UPDATE notification SET attempted_at = now() - interval '91 seconds'")
    let_leases_end()
    again()
    assert (status(made), state(made)) == ("sent", "confirmed")
    assert {mail.id for mail in post.mails} == {f"{made}"}
    assert len(post.mails) == 2


def test_a_letter_whose_note_meets_a_lost_connection_is_noted_all_the_same(promise, post):
    """PostgreSQL has restarted between the mail server's yes and our note."""
    post.while_sending = lose_connections
    ring(promise)
    assert (status(promise), state(promise), received(promise)) == ("sent", "confirmed", 1)
    post.while_sending = lambda: None
    ring(promise)
    assert len(post.mails) == 1


def test_a_letter_that_failed_while_the_connection_was_lost_is_free_to_be_tried_again(promise, post):
    post.while_sending, post.fails_with = lose_connections, MailUnavailable("ConnectionRefusedError")
    ring(promise)
    assert (status(promise), state(promise)) == ("failed", "waiting")


def test_a_worker_does_not_insist_for_ever(promise, post, monkeypatch):
    monkeypatch.setattr(notifications, "INSIST_S", 0.0)
    away = peewee.OperationalError("server closed the connection unexpectedly")
    asked = []

    def lost(sql, params=None):
        if sql == notifications.models.FINISH_LETTER:
            asked.append(sql)
            raise away
        return usual(sql, params)

    usual = db.execute_sql
    monkeypatch.setattr(db, "execute_sql", lost)
    ring(promise)
    assert (status(promise), state(promise), len(asked)) == ("sending", "waiting", 1)


def lose_connections() -> None:
    with psycopg2.connect(config.current().database_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database() AND usename = current_user"
        )


def test_an_erased_customer_gets_no_letter(cast, promise, post):
    erased = "UPDATE customer SET erased_at = now(), status = 'deactivated' WHERE id = %s"
    db.execute_sql(erased, (cast.ana.customer_id,))
    ring(promise)
    assert post.mails == []
    assert (skipped(promise), state(promise)) == ("erased", "confirmed")


def test_one_refused_letter_does_not_hold_the_others(cast, rental, post):
    good, bad = (outbox.promise("notifications.rental_reserved", "rental", one) for one in (rental.id, clock.new_id()))
    consumers.rental_reserved(texts([bad, good]))
    assert (state(good), state(bad)) == ("confirmed", "dead")


def test_what_a_customer_is_called_is_only_text(cast, promise, tmp_path: Path, monkeypatch):
    db.execute_sql(
        "UPDATE customer SET first_name = %s WHERE id = %s",
        ("Ana\r\nBcc: all@example.com <script>", cast.ana.customer_id),
    )
    monkeypatch.setattr(consumers, "mailer", lambda: FolderMailer(tmp_path, SENDER))
    ring(promise)
    [file] = tmp_path.glob("*.eml")
    mail = email.message_from_bytes(file.read_bytes(), policy=policy.default)
    assert mail["Bcc"] is None
    assert mail["To"] == cast.ana.email
    assert "<script>" not in str(mail.get_body(("html",)))


def test_sent_received_and_confirmed_is_noted_together_or_not_at_all(promise, post, monkeypatch):
    monkeypatch.setattr(notifications.models, "FINISH_LETTER", f"{notifications.models.FINISH_LETTER};SELECT 1 / 0")
    ring(promise)
    assert (len(post.mails), status(promise), received(promise), state(promise)) == (1, "sending", 0, "waiting")


def test_every_outcome_is_counted_by_kind_and_channel(promise, post):
    def counted(outcome: str) -> float:
        labels = {"kind": "rental_reserved", "channel": "email", "outcome": outcome}
        return REGISTRY.get_sample_value("fleet_notifications_total", labels) or 0.0

    before = counted("failed"), counted("sent")
    post.fails_with = MailUnavailable("ConnectionRefusedError")
    ring(promise)
    post.fails_with = None
    ring(promise)
    assert (counted("failed"), counted("sent")) == (before[0] + 1, before[1] + 1)


def test_a_way_out_goes_with_what_the_customer_can_do_without(cast, post, monkeypatch):
    monkeypatch.setattr(config, "_current", replace(config.current(), public_url="https://fleet.example"))
    for kind in KINDS:
        made = promised_about(kind, booked_as(cast, kind))
        getattr(consumers, kind)(texts([made]))
        mail = post.mails.pop()
        link = mail.unsubscribe_url
        assert bool(link) != (kind in REQUIRED)
        assert not link or (link in mail.text and link in mail.html)
