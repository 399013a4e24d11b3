"""Mails go out whole, to one address, within their time; what goes wrong says whether trying again helps."""

import email
import time
from email import policy
from pathlib import Path

import pytest

from fleet import clock
from fleet.config import Settings
from fleet.gateways import mail
from fleet.gateways.mail import FolderMailer, Mail, MailNotConfigured, MailRefused, MailUnavailable, SmtpMailer
from tests.tasks.postbox import postbox, silent_server

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
