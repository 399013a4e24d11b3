"""Mails go out whole, to one address, within their time; what goes wrong says whether trying again helps."""

import email
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email import policy
from pathlib import Path

import pytest

from fleet import clock
from fleet.config import Settings
from fleet.gateways import mail
from fleet.gateways.mail import FolderMailer, Mail, MailNotConfigured, MailRefused, MailUnavailable, SmtpMailer
from tests.receiver import on_the_wire
from tests.tasks.certificates import certificate_in
from tests.tasks.postbox import LOGIN, PASSWORD, postbox, silent_server

SENDER = "Fleet <no-reply@fleet.example>"


def letter(**changes) -> Mail:
    fields = {"id": f"{clock.new_id()}", "to": "ana@example.com", "subject": "Your reservation – RNT-1"}
    return Mail(**{**fields, "text": "Olá Ana,\n.\nbye", "html": "<p>Olá Ana</p>", **changes})


def deliver(mailer: mail.Mailer, sent: Mail) -> None:
    """One mail in a session of its own."""
    with mailer.session() as session:
        session.send(sent)


def mails_in(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.eml"))


def parsed(raw: bytes):
    return email.message_from_bytes(raw, policy=policy.default)


def settings(**environ: str) -> Settings:
    needed = {"DATABASE_URL": "postgresql://h/d", "REDIS_URL": "redis://h/0", "SECRET_KEY": "0123456789abcdef" * 3}
    return Settings.load({**needed, **environ})


def test_a_mail_becomes_a_file_with_all_its_parts(tmp_path: Path):
    sent = letter()
    deliver(FolderMailer(tmp_path / "mail", SENDER), sent)
    [file] = mails_in(tmp_path / "mail")
    found = parsed(file.read_bytes())
    assert file.name == f"{sent.id}.eml"
    assert (found["From"], found["To"], found["Subject"]) == (SENDER, "ana@example.com", sent.subject)
    assert found["Message-ID"] == f"<{sent.id}@fleet.example>"
    assert found["Auto-Submitted"] == "auto-generated"
    assert found["Date"].datetime.tzinfo is not None
    assert found.get_body(("plain",)).get_content().splitlines() == sent.text.splitlines()
    assert found.get_body(("html",)).get_content().strip() == sent.html


def test_the_same_mail_twice_is_one_file(tmp_path: Path):
    sent = letter()
    for _ in range(2):
        deliver(FolderMailer(tmp_path, SENDER), sent)
    assert len(mails_in(tmp_path)) == 1


def test_a_folder_that_cannot_be_written_is_tried_again_later(tmp_path: Path):
    (tmp_path / "taken").write_text("a file is no folder")
    with pytest.raises(MailUnavailable):
        deliver(FolderMailer(tmp_path / "taken", SENDER), letter())


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": "Hello\r\nBcc: everybody@example.com"},
        {"subject": "Hello\nX-Evil: 1"},
        {"to": "ana@example.com\r\nBcc: everybody@example.com"},
        {"to": "ana@example.com, everybody@example.com"},
        {"to": "Ana <ana@example.com>"},
        {"to": ""},
    ],
)
def test_nothing_that_somebody_typed_adds_a_header_or_a_recipient(tmp_path: Path, changes):
    with pytest.raises(MailRefused):
        deliver(FolderMailer(tmp_path, SENDER), letter(**changes))
    assert list(tmp_path.iterdir()) == []


def test_a_mail_goes_out_over_smtp_to_its_one_recipient():
    sent = letter()
    with postbox() as box:
        deliver(SmtpMailer(box.url, SENDER), sent)
    [raw] = box.mails
    assert box.recipients == ["ana@example.com"]
    assert parsed(raw)["Message-ID"] == f"<{sent.id}@fleet.example>"
    assert parsed(raw).get_body(("plain",)).get_content().splitlines() == sent.text.splitlines()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ({"to_recipient": "550 no such user ana@example.com"}, MailRefused),
        ({"to_recipient": "450 mailbox busy"}, MailUnavailable),
        ({"to_mail": "554 looks like spam"}, MailRefused),
        ({"to_mail": "451 try again later"}, MailUnavailable),
        ({"to_mail": "421 shutting down"}, MailUnavailable),
    ],
)
def test_a_refusal_says_whether_trying_again_helps_and_repeats_no_address(answer, error):
    with postbox() as box:
        for name, line in answer.items():
            setattr(box, name, line)
        with pytest.raises(error) as refusal:
            deliver(SmtpMailer(box.url, SENDER), letter())
    assert "ana" not in str(refusal.value)
    assert box.mails == []


def test_a_server_that_is_away_is_tried_again_later():
    with postbox() as box:
        pass
    with pytest.raises(MailUnavailable):
        deliver(SmtpMailer(box.url, SENDER), letter())


def test_a_server_that_says_nothing_costs_no_more_than_the_timeout():
    with silent_server() as url:
        started = time.monotonic()
        with pytest.raises(MailUnavailable):
            deliver(SmtpMailer(url, SENDER, timeout_s=0.3), letter())
    assert 0.3 <= time.monotonic() - started < 3


def test_every_answer_of_the_server_has_its_timeout():
    assert SmtpMailer("smtp://mail.example", SENDER).timeout_s == 10.0


def test_a_password_never_goes_over_a_connection_without_tls():
    with postbox() as box:
        url = box.url.replace("smtp://", "smtp://fleet:secret@")
        with pytest.raises(MailUnavailable, match="TLS"):
            deliver(SmtpMailer(url, SENDER), letter())
    assert box.mails == []


class TestEncrypted:
    """STARTTLS as soon as it is offered, the certificate looked at, and the password only behind it."""

    def test_mails_of_a_session_go_encrypted_and_by_name(self, tmp_path: Path, monkeypatch):
        trusted = certificate_in(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", f"{trusted}")
        with postbox(trusted) as box, SmtpMailer(with_password(box.url), SENDER).session() as session:
            for _ in range(2):
                session.send(letter())
        assert (len(box.mails), len(box.sessions)) == (2, 1)
        assert box.sessions[0].ssl is not None and box.sessions[0].authenticated

    def test_a_server_that_cannot_prove_who_it_is_gets_nothing(self, tmp_path: Path):
        with postbox(certificate_in(tmp_path)) as box, pytest.raises(MailUnavailable, match="SSLCertVerificationError"):
            deliver(SmtpMailer(with_password(box.url), SENDER), letter())
        assert box.mails == []

    def test_a_wrong_password_is_tried_again_later(self, tmp_path: Path, monkeypatch):
        trusted = certificate_in(tmp_path)
        monkeypatch.setenv("SSL_CERT_FILE", f"{trusted}")
        with postbox(trusted) as box, pytest.raises(MailUnavailable, match="SMTPAuthenticationError 535") as refusal:
            deliver(SmtpMailer(with_password(box.url, "wrong"), SENDER), letter())
        assert (box.mails, "wrong" in f"{refusal.value}") == ([], False)


def with_password(url: str, password: str = PASSWORD.decode()) -> str:
    return url.replace("smtp://", f"smtp://{LOGIN.decode()}:{password}@")


def test_smtps_does_not_talk_in_the_clear():
    with postbox() as box, pytest.raises(MailUnavailable):
        deliver(SmtpMailer(box.url.replace("smtp://", "smtps://"), SENDER, timeout_s=2), letter())
    assert box.mails == []


def test_production_without_a_mail_server_says_so_at_every_mail():
    with pytest.raises(MailNotConfigured, match="SMTP_URL"):
        deliver(mail.mailer(settings(FLEET_ENV="production", SECRET_KEY="k3Jx9Qz7Lm2Vb8Nw4Rt6Yp1Hs5Dg0Fc2Aa")), letter())


def test_the_settings_choose_the_way_of_the_mails(tmp_path: Path):
    assert isinstance(mail.mailer(settings(FLEET_ENV="development", FLEET_MAIL_DIR=str(tmp_path))), FolderMailer)
    assert isinstance(mail.mailer(settings(FLEET_ENV="test", SMTP_URL="smtp://mail.example")), SmtpMailer)


class TestSession:
    """Several mails over one connection."""

    def test_a_batch_shares_one_connection(self):
        with postbox() as box, SmtpMailer(box.url, SENDER).session() as session:
            for number in range(5):
                session.send(letter(to=f"ana{number}@example.com"))
        assert len(box.sessions) == 1
        assert box.recipients == [f"ana{number}@example.com" for number in range(5)]

    def test_nobody_is_asked_before_there_is_a_mail(self):
        with postbox() as box, SmtpMailer(box.url, SENDER).session():
            pass
        assert box.sessions == []

    @pytest.mark.parametrize("refusal", [{"to_recipient": "550 no such user"}, {"to_mail": "554 looks like spam"}])
    def test_a_refused_mail_does_not_spoil_the_next(self, refusal):
        with postbox() as box, SmtpMailer(box.url, SENDER).session() as session:
            session.send(letter(to="one@example.com"))
            for name, answer in refusal.items():
                setattr(box, name, answer)
            with pytest.raises(MailRefused):
                session.send(letter(to="two@example.com"))
            box.to_recipient = box.to_mail = "250 OK"
            session.send(letter(to="three@example.com"))
        assert box.recipients == ["one@example.com", "three@example.com"]
        assert len(box.sessions) == 1

    def test_a_connection_that_died_in_between_is_made_again(self):
        with postbox() as box, SmtpMailer(box.url, SENDER).session() as session:
            box.hangs_up_after_mails = 1
            session.send(letter())
            time.sleep(0.1)
            session.send(letter())
        assert (len(box.mails), len(box.sessions)) == (2, 2)

    def test_a_server_that_takes_no_more_over_this_connection_gets_another(self):
        with postbox() as box, SmtpMailer(box.url, SENDER).session() as session:
            session.send(letter())
            box.full = box.sessions[0]
            session.send(letter())
        assert (len(box.mails), len(box.sessions)) == (2, 2)

    def test_a_connection_that_dies_under_the_content_leaves_it_to_the_next_delivery(self):
        with postbox() as box, SmtpMailer(box.url, SENDER).session() as session:
            session.send(letter())
            box.dies_at_content = True
            with pytest.raises(MailUnavailable):
                session.send(letter())
            box.dies_at_content = False
            session.send(letter())
        assert len(box.mails) == 2

    def test_a_server_that_answers_slowly_each_time_has_its_time_for_the_whole(self):
        with postbox() as box, SmtpMailer(box.url, SENDER, total_s=0.3).session() as session:
            box.answers_after_s = 0.2
            started = time.monotonic()
            with pytest.raises(MailUnavailable):
                session.send(letter())
        assert time.monotonic() - started < 2
        assert box.mails == []


    @pytest.mark.parametrize("beginning", [b"", b"220-"])
    def test_a_greeting_that_drips_ends_with_the_time_for_the_whole(self, beginning: bytes) -> None:
        def drip(connection: socket.socket) -> None:
            connection.sendall(beginning)
            for _ in range(100):
                time.sleep(0.05)
                connection.sendall(b"\n220-" if beginning else b"2")

        with on_the_wire(drip) as url:
            mailer = SmtpMailer(url.replace("http", "smtp").rstrip("/"), SENDER, timeout_s=5, total_s=0.3)
            started = time.monotonic()
            with mailer.session() as session, pytest.raises(MailUnavailable):
                session.send(letter())
        assert 0.3 <= time.monotonic() - started < 2


def test_letters_of_optional_kinds_can_be_ended_with_one_click():
    link = "https://fleet.example/v1/unsubscribe?token=v1.rental_reminder.01a2175a316671f285207980a10af0f7.1800000000.abc"
    with postbox() as box:
        deliver(SmtpMailer(box.url, SENDER), letter(unsubscribe_url=link))
    [raw] = box.mails
    # To the letter: programs look for the address and read no encoded words there.
    assert f"\r\nList-Unsubscribe: <{link}>\r\n".encode() in raw
    assert b"\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n" in raw


def test_a_mail_without_a_way_out_claims_none(tmp_path: Path):
    deliver(FolderMailer(tmp_path, SENDER), letter())
    assert parsed(mails_in(tmp_path)[0].read_bytes())["List-Unsubscribe"] is None


def test_a_paper_goes_along_whole(tmp_path: Path):
    paper = mail.Attachment("INV-000001.pdf", "pdf", b"%PDF-1.3 \x00\xff\n.\n")
    deliver(FolderMailer(tmp_path, SENDER), sent := letter(attachments=(paper,)))
    [found] = parsed((tmp_path / f"{sent.id}.eml").read_bytes()).iter_attachments()
    assert (found.get_filename(), found.get_content_type()) == ("INV-000001.pdf", "application/pdf")
    assert found.get_content() == paper.content
    assert (tmp_path / f"{sent.id}-INV-000001.pdf").read_bytes() == paper.content


class TestLocalOutbox:
    def test_its_page_shows_html_and_text_and_runs_nothing(self, tmp_path: Path):
        for number in range(3):
            deliver(FolderMailer(tmp_path, SENDER), letter(subject=f"<i>{number}</i>", html="<script>alert(1)</script>"))
        page = (tmp_path / "index.html").read_text()
        assert page.count("<details>") == 3
        assert "&lt;i&gt;2&lt;/i&gt;" in page and "Olá Ana" in page
        assert "<iframe sandbox srcdoc=" in page and "<script>" not in page

    def test_two_at_once_do_not_run_into_each_other(self, tmp_path: Path):
        gate = threading.Barrier(8)

        def write(_: int) -> None:
            gate.wait()
            deliver(FolderMailer(tmp_path, SENDER), letter())

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))
        assert (tmp_path / "index.html").read_text().count("</details>\n") == 8

    def test_production_has_none(self, tmp_path: Path):
        production = {"FLEET_ENV": "production", "SECRET_KEY": "k3Jx9Qz7Lm2Vb8Nw4Rt6Yp1Hs5Dg0Fc2Aa"}
        chosen = mail.mailer(settings(**production, FLEET_MAIL_DIR=f"{tmp_path}"))
        with pytest.raises(MailNotConfigured):
            deliver(chosen, letter())
        assert list(tmp_path.iterdir()) == []
