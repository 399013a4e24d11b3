"""Letters about an account reach whoever signs in with it, in their language, and their tokens go nowhere else."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
import time_machine
from flask import Flask

from fleet import clock, config
from fleet.db import db
from fleet.gateways.mail import MailUnavailable
from fleet.services import outbox, recovery
from tasks import notifications as consumers
from tests.accounts import NEW, Postman, deliver, post, promises
from tests.cast import Cast, Person
from tests.tasks.outboxes import state

RESET = "/v1/auth/password-reset"
SUBJECTS = {
    "session_breached": (
        "A session of your account was ended", "Eine Sitzung Ihres Kontos wurde beendet",
        "Une session de votre compte a été fermée", "Se ha cerrado una sesión de su cuenta",
    ),
    "password_changed": (
        "Your password was changed", "Ihr Passwort wurde geändert", "Votre mot de passe a été modifié",
        "Su contraseña se ha cambiado",
    ),
    "second_factor_enabled": (
        "Your second factor is in force", "Ihr zweiter Faktor gilt", "Votre second facteur est actif",
        "Su segundo factor está activo",
    ),
    "second_factor_removed": (
        "Your second factor was removed", "Ihr zweiter Faktor wurde entfernt", "Votre second facteur a été retiré",
        "Se ha quitado su segundo factor",
    ),
    "second_factor_locked": (
        "Somebody knows your password", "Jemand kennt Ihr Passwort", "Quelqu'un connaît votre mot de passe",
        "Alguien conoce su contraseña",
    ),
}  # fmt: skip
LANGUAGES = ("en", "de", "fr", "es")


@pytest.fixture
def postman(monkeypatch: pytest.MonkeyPatch) -> Postman:
    return Postman().install(monkeypatch)


@pytest.fixture
def at_public_url(app: Flask) -> Iterator[None]:
    usual = config.current()
    config.use(replace(usual, public_url="https://rent.example/"))
    yield
    config.use(usual)


def speaks(person: Person, tag: str) -> None:
    db.execute_sql("UPDATE customer SET language = %s WHERE id = %s", (tag, person.customer_id))


def told(kind: str, person: Person) -> None:
    outbox.promise(f"notifications.{kind}", "user", person.user_id)
    deliver(kind)


@pytest.mark.parametrize(("tag", "number"), [(tag, number) for number, tag in enumerate(LANGUAGES)])
def test_what_happened_to_an_account_is_told_in_the_language_of_its_customer(
    cast: Cast, postman: Postman, tag: str, number: int
) -> None:
    speaks(cast.ana, tag)
    for kind, subjects in SUBJECTS.items():
        told(kind, cast.ana)
        mail = postman.mails[-1]
        assert (mail.to, mail.subject) == (cast.ana.email, subjects[number])
        assert "(UTC)" in mail.text and f'<html lang="{tag}">' in mail.html
        assert mail.unsubscribe_url is None


def test_who_is_no_customer_is_told_at_the_address_they_sign_in_with(cast: Cast, postman: Postman) -> None:
    told("session_breached", cast.mechanic)
    [mail] = postman.mails
    assert (mail.to, mail.subject) == (cast.mechanic.email, "A session of your account was ended")
    assert "Dear Maintenance_Staff," in mail.text


def test_a_closed_account_is_told_nothing(cast: Cast, postman: Postman) -> None:
    db.execute_sql("UPDATE user_account SET deactivated_at = now() WHERE id = %s", (cast.ana.user_id,))
    told("password_changed", cast.ana)
    assert (postman.mails, promises("password_changed")) == ([], [])


@pytest.mark.parametrize(("tag", "kind"), [("de", "password_reset"), ("es", "email_verification")])
@pytest.mark.usefixtures("at_public_url")
def test_the_link_leads_to_the_page_with_the_token_where_no_server_sees_it(
    cast: Cast, postman: Postman, tag: str, kind: str
) -> None:
    speaks(cast.ana, tag)
    told(kind, cast.ana)
    link = f"https://rent.example/v1/auth/{kind.replace('_', '-')}?lang={tag}#{postman.token}"
    assert link in postman.mails[0].text and link in postman.mails[0].html
    assert cast.app.test_client().get(link.partition("rent.example")[2].partition("#")[0]).status_code == 200


def test_without_a_public_address_the_letter_brings_the_code_itself(cast: Cast, postman: Postman) -> None:
    told("password_reset", cast.ana)
    assert f"\nCode:        {postman.token}\n" in postman.mails[0].text
    assert "http" not in postman.mails[0].text


def test_a_letter_that_is_tried_again_leaves_the_token_good_that_may_have_arrived(cast: Cast, postman: Postman) -> None:
    """The server may have taken the first one and hung up before it said so."""
    post(cast, RESET, {"email": cast.ana.email})
    [promise] = promises("password_reset")
    postman.fails_with = MailUnavailable("gone")
    consumers.password_reset([promise])
    first = postman.token
    postman.fails_with = None
    consumers.password_reset([promise])
    assert (len(postman.mails), state(promise)) == (2, "confirmed")
    assert postman.token != first
    assert [mail.id for mail in postman.mails] == [promise, promise]
    assert post(cast, f"{RESET}/confirm", {"token": first, "new_password": NEW}).status_code == 204
    # It was the one request: what it brought ends with the first use.
    again = post(cast, f"{RESET}/confirm", {"token": postman.token, "new_password": NEW + " 2"})
    assert again.json["code"] == "invalid_token"


def test_an_older_request_that_comes_late_brings_nothing_and_leaves_the_newer_token(cast: Cast, postman: Postman) -> None:
    for _ in range(2):
        post(cast, RESET, {"email": cast.ana.email})
    older, newer = promises("password_reset")
    consumers.password_reset([newer])
    consumers.password_reset([older])
    assert (len(postman.mails), state(older)) == (1, "confirmed")
    assert post(cast, f"{RESET}/confirm", {"token": postman.token, "new_password": NEW}).status_code == 204


@pytest.mark.parametrize("kind", recovery.LIFETIMES)
def test_a_letter_that_was_held_up_for_longer_than_its_token_lives_is_not_sent(
    cast: Cast, postman: Postman, kind: str
) -> None:
    promise = outbox.promise(f"notifications.{kind}", "user", cast.ana.user_id)
    late = clock.now() + recovery.LIFETIMES[kind] + timedelta(seconds=5)
    with time_machine.travel(late, tick=False):
        getattr(consumers, kind)([f"{promise}"])
    assert (postman.mails, state(promise)) == ([], "confirmed")


def test_nobody_is_asked_to_show_an_address_that_they_have_shown(cast: Cast, postman: Postman) -> None:
    db.execute_sql("UPDATE user_account SET email_verified_at = now() WHERE id = %s", (cast.ana.user_id,))
    told("email_verification", cast.ana)
    assert postman.mails == []
