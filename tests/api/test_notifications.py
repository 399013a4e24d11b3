"""Staff see what was told to whom; customers choose what they are told, and end a kind of letter with one click."""

import typing
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from fleet import clock, config
from fleet.blueprints.notifications import Kind
from fleet.blueprints.people import Language
from fleet.db import db
from fleet.models.notifications import Preference
from fleet.rules import unsubscribing
from fleet.rules.languages import LANGUAGES
from fleet.rules.notices import KINDS, REQUIRED, is_wanted
from fleet.services import preferences
from tests.books import issued, refused_by, rental_to_bill
from tests.cast import Answer, Cast, Person, insert, request
from tests.money import given_back, id_of, paid

NOTIFICATIONS = "/v1/notifications"
# Required by the rules and not by the database, for releases that do not know it write rows too (migrations 0013, 0019).
NOT_HELD_TO = frozenset({"payment_received", "payment_refunded"})


def told(cast: Cast, **values: Any) -> str:
    defaults = {"kind": "rental_reserved", "channel": "email", "status": "sent", "sent_at": clock.now()}
    return f"{insert('notification', **{**defaults, 'customer_id': cast.ana.customer_id, **values})}"


def preferences_of(person: Person) -> str:
    return f"/v1/customers/{person.customer_id}/notification-preferences"


def found(cast: Cast, query: str = "") -> list[str]:
    return [item["id"] for item in cast.agent.get(f"{NOTIFICATIONS}{query}").json["data"]]


def test_the_api_offers_the_kinds_and_the_languages_that_there_are() -> None:
    assert set(typing.get_args(Kind)) == set(KINDS)
    assert typing.get_args(typing.get_args(Language)[0]) == LANGUAGES


class TestList:
    def test_staff_see_what_was_told_and_how_it_went_but_not_what_it_said(self, cast: Cast) -> None:
        one = told(cast)
        [shown] = cast.agent.get(NOTIFICATIONS).json["data"]
        assert set(shown) == {
            "id", "kind", "channel", "customer_id", "rental_id", "invoice_id", "payment_id", "refund_id", "status", "reason",
            "created_at", "attempted_at", "sent_at",
        }  # fmt: skip
        assert (shown["id"], shown["kind"], shown["status"]) == (one, "rental_reserved", "sent")

    def test_the_newest_come_first_a_page_at_a_time(self, cast: Cast) -> None:
        made = [told(cast) for _ in range(3)]
        page = cast.agent.get(f"{NOTIFICATIONS}?limit=2")
        assert [item["id"] for item in page.json["data"]] == [made[2], made[1]]
        assert found(cast, f"?limit=2&cursor={page.json['next_cursor']}") == [made[0]]

    def test_they_can_be_narrowed_down(self, cast: Cast) -> None:
        rental = rental_to_bill(cast)
        anas = told(cast, rental_id=rental.id)
        bens = told(cast, customer_id=cast.ben.customer_id, channel="sms", status="unknown", sent_at=None)
        assert found(cast, f"?customer_id={cast.ben.customer_id}") == [bens]
        assert found(cast, f"?rental_id={rental.id}") == [anas]
        assert found(cast, "?channel=sms") == found(cast, "?status=unknown") == [bens]
        assert found(cast, "?kind=rental_held") == []
        assert cast.agent.get(f"{NOTIFICATIONS}?kind=spam").status_code == 422

    @pytest.mark.parametrize("role", ["customer", "driver", "maintenance_staff"])
    def test_it_is_for_staff(self, cast: Cast, role: str) -> None:
        assert cast.staff[role].get(NOTIFICATIONS).status_code == 403


class TestPreferences:
    def test_before_a_choice_they_are_everybodys(self, cast: Cast) -> None:
        shown = cast.ana.get(preferences_of(cast.ana))
        assert (shown.status_code, shown.headers["ETag"], shown.json["version"]) == (200, '"0"', 0)
        assert set(shown.json["kinds"]) == set(KINDS)
        assert all(choice["email"] for choice in shown.json["kinds"].values())
        assert [kind for kind, choice in shown.json["kinds"].items() if choice["sms"]] == ["rental_reminder", "rental_overdue"]
        assert shown.json["required"] == sorted(REQUIRED)

    def test_a_choice_is_kept_with_its_version(self, cast: Cast) -> None:
        chosen = {"kinds": {"rental_reminder": {"email": False}, "rental_reserved": {"sms": True}}}
        changed = cast.ana.put(preferences_of(cast.ana), chosen, version="0")
        assert (changed.status_code, changed.headers["ETag"]) == (200, '"1"')
        assert changed.json["kinds"]["rental_reminder"] == {"email": False, "sms": True}
        assert changed.json["kinds"]["rental_reserved"] == {"email": True, "sms": True}
        assert cast.agent.get(preferences_of(cast.ana)).json == changed.json
        assert cast.ana.get(preferences_of(cast.ana), If_None_Match='"1"').status_code == 304

    def test_what_is_read_can_be_written_back(self, cast: Cast) -> None:
        cast.ana.put(preferences_of(cast.ana), {"kinds": {"rental_overdue": {"sms": False}}}, version="0")
        read = cast.ana.get(preferences_of(cast.ana)).json
        again = cast.ana.put(preferences_of(cast.ana), {"kinds": read["kinds"]}, version="1")
        assert (again.status_code, again.json["kinds"]) == (200, read["kinds"])

    def test_what_is_left_out_goes_back_to_what_everybody_gets(self, cast: Cast) -> None:
        cast.ana.put(preferences_of(cast.ana), {"kinds": {"rental_held": {"email": False}}}, version="0")
        changed = cast.ana.put(preferences_of(cast.ana), {"kinds": {}}, version="1")
        assert changed.json["kinds"]["rental_held"]["email"] is True

    @pytest.mark.parametrize("kind", sorted(REQUIRED))
    def test_what_the_law_asks_for_cannot_be_switched_off_by_e_mail(self, cast: Cast, kind: str) -> None:
        refused = cast.ana.put(preferences_of(cast.ana), {"kinds": {kind: {"email": False}}}, version="0")
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "required_kind")
        assert refused.json["errors"][0]["field"] == f"kinds.{kind}.email"
        assert Preference.select().count() == 0

    @pytest.mark.parametrize("version", [None, "1", "7"])
    def test_the_version_that_was_read_is_needed(self, cast: Cast, version: str | None) -> None:
        sent = {"version": version} if version else {}
        refused = cast.ana.put(preferences_of(cast.ana), {"kinds": {}}, **sent)
        assert refused.status_code == (412 if version else 428)

    @pytest.mark.parametrize("kinds", [None, {"spam": {}}, {"rental_held": {"email": "no"}}, {"rental_held": {"fax": True}}])
    def test_anything_else_is_refused(self, cast: Cast, kinds: Any) -> None:
        body = {} if kinds is None else {"kinds": kinds}
        assert cast.ana.put(preferences_of(cast.ana), body, version="0").status_code == 422

    def test_they_are_the_customers_own_and_staffs(self, cast: Cast) -> None:
        path = preferences_of(cast.ana)
        assert cast.ben.get(path).status_code == cast.ben.put(path, {"kinds": {}}, version="0").status_code == 404
        assert cast.driver.get(path).status_code == 403
        assert cast.accountant.put(path, {"kinds": {}}, version="0").status_code == 403
        assert cast.agent.put(path, {"kinds": {}}, version="0").status_code == 200

    def test_they_are_exported_and_erased_with_the_customer(self, cast: Cast) -> None:
        cast.ana.put(preferences_of(cast.ana), {"kinds": {"rental_held": {"email": False}}}, version="0")
        exported = cast.ana.get(f"/v1/customers/{cast.ana.customer_id}/export").json
        assert exported["notification_preferences"]["kinds"]["rental_held"] == {"email": False, "sms": False}
        assert cast.manager.post(f"/v1/customers/{cast.ana.customer_id}/erase").status_code == 200
        assert Preference.select().count() == 0
        refused = cast.agent.put(preferences_of(cast.ana), {"kinds": {}}, version="0")
        assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")

    def test_the_database_keeps_to_the_kinds_and_to_what_is_required(self, cast: Cast) -> None:
        for constraint, kinds in (("required", ["rental_held"]), ("kinds", [*sorted(REQUIRED), "spam"])):
            with refused_by(f"notification_preference_{constraint}"):
                Preference.create(customer_id=cast.ana.customer_id, email_kinds=kinds, sms_kinds=[])

    def test_the_database_knows_the_kinds_that_the_rules_know(self, cast: Cast) -> None:
        Preference.create(customer_id=cast.ana.customer_id, email_kinds=sorted(KINDS), sms_kinds=sorted(KINDS))
        for kind in REQUIRED - NOT_HELD_TO:
            with refused_by("notification_preference_required"):
                Preference.create(customer_id=cast.ben.customer_id, email_kinds=sorted(REQUIRED - {kind}), sms_kinds=[])

    def test_who_chose_before_a_required_kind_was_there_gets_it(self, cast: Cast) -> None:
        """Also the release before writes such rows, while it runs beside this one."""
        Preference.create(customer_id=cast.ana.customer_id, email_kinds=sorted(REQUIRED - NOT_HELD_TO), sms_kinds=[])
        shown = cast.ana.get(preferences_of(cast.ana)).json["kinds"]
        for kind in NOT_HELD_TO:
            assert shown[kind] == {"email": True, "sms": False}
            assert is_wanted(kind, "email", REQUIRED - NOT_HELD_TO)


class TestInvariants:
    def test_a_receipt_names_its_payment_and_no_other_letter_does(self, cast: Cast) -> None:
        payment = id_of(paid(cast, issued(cast)))
        told(cast, kind="payment_received", payment_id=payment)
        for values in ({"kind": "payment_received"}, {"payment_id": payment}):
            with refused_by("notification_of_payment"):
                told(cast, **values)

    def test_a_letter_about_a_refund_names_it_and_no_other_does(self, cast: Cast) -> None:
        refund = id_of(given_back(cast, paid(cast, issued(cast))))
        told(cast, kind="payment_refunded", refund_id=refund)
        for values in ({"kind": "payment_refunded"}, {"refund_id": refund}):
            with refused_by("notification_of_refund"):
                told(cast, **values)

    def test_a_skipped_letter_says_why_and_no_other_does(self, cast: Cast) -> None:
        wrong: tuple[dict[str, Any], ...] = (
            {"status": "skipped"}, {"status": "failed", "reason": "erased"}, {"status": "skipped", "reason": "mood"},
        )  # fmt: skip
        for values in wrong:
            with refused_by("notification_skipped_why"):
                told(cast, sent_at=None, **values)

    def test_there_are_two_ways_and_five_outcomes(self, cast: Cast) -> None:
        with refused_by("notification_channel"):
            told(cast, channel="fax")
        with refused_by("notification_status"):
            told(cast, status="lost", sent_at=None)

    def test_what_was_not_sent_has_no_time_of_sending(self, cast: Cast) -> None:
        with refused_by("notification_sent_when"):
            told(cast, status="unknown")

    def test_a_notice_of_the_clock_is_of_a_kind_that_it_tells(self, cast: Cast) -> None:
        rental = rental_to_bill(cast)
        with refused_by("rental_notice_kind"):
            db.execute_sql("INSERT INTO rental_notice VALUES (%s, 'rental_reserved', now())", (rental.id,))


def link(cast: Cast, kind: str = "rental_reminder") -> str:
    url = preferences.unsubscribe_url(cast.ana.customer_id, kind)  # type: ignore[arg-type]
    assert url and url.startswith("https://fleet.example/v1/unsubscribe?token=")
    return url.removeprefix("https://fleet.example")


@pytest.fixture
def reachable(app: Any) -> Iterator[None]:
    usual = config.current()
    config.use(replace(usual, public_url="https://fleet.example/"))
    yield
    config.use(usual)


@pytest.mark.usefixtures("reachable")
class TestUnsubscribing:
    def test_looking_at_the_link_changes_nothing(self, cast: Cast) -> None:
        page = request(cast.app, "GET", link(cast))
        assert (page.status_code, page.mimetype) == (200, "text/html")
        assert '<form method="post"' in page.text
        assert "form-action 'self'" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store"
        assert Preference.select().count() == 0

    def test_one_click_ends_the_kind_and_nothing_else(self, cast: Cast) -> None:
        assert self.click(cast, link(cast)).status_code == 200
        kinds = cast.ana.get(preferences_of(cast.ana)).json["kinds"]
        assert [kind for kind, choice in kinds.items() if not choice["email"]] == ["rental_reminder"]
        assert kinds["rental_reminder"]["sms"] is True

    def test_a_second_click_finds_it_done(self, cast: Cast) -> None:
        for _ in range(2):
            assert self.click(cast, link(cast)).status_code == 200
        assert self.click(cast, link(cast, "rental_held")).status_code == 200
        kinds = cast.ana.get(preferences_of(cast.ana)).json["kinds"]
        assert [kind for kind, choice in kinds.items() if not choice["email"]] == ["rental_held", "rental_reminder"]

    def test_the_page_speaks_the_customers_language(self, cast: Cast) -> None:
        db.execute_sql("UPDATE customer SET language = 'fr' WHERE id = %s", (cast.ana.customer_id,))
        assert "Ne voulez-vous plus" in request(cast.app, "GET", link(cast)).text
        assert "C&#x27;est fait" in self.click(cast, link(cast)).text

    @pytest.mark.parametrize("method", ["GET", "POST"])
    @pytest.mark.parametrize("token", ["x", "v1.rental_reminder.0.0.x", "a" * 200])
    def test_what_is_no_link_of_ours_is_not_found(self, cast: Cast, method: str, token: str) -> None:
        answer = request(cast.app, method, f"/v1/unsubscribe?token={token}")
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")

    def test_a_required_kind_has_no_link_that_works(self, cast: Cast) -> None:
        assert self.click(cast, link(cast, "invoice_issued")).status_code == 404

    def test_an_old_link_no_longer_works(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        made = link(cast)
        later = clock.now() + unsubscribing.LIFETIME
        monkeypatch.setattr(preferences.clock, "now", lambda: later)
        assert self.click(cast, made).status_code == 404

    def test_an_erased_customer_has_no_link_that_works(self, cast: Cast) -> None:
        made = link(cast)
        assert cast.manager.post(f"/v1/customers/{cast.ana.customer_id}/erase").status_code == 200
        assert self.click(cast, made).status_code == request(cast.app, "GET", made).status_code == 404

    def test_without_an_address_of_ours_there_is_no_link(self, cast: Cast) -> None:
        config.use(replace(config.current(), public_url=""))
        assert preferences.unsubscribe_url(cast.ana.customer_id, "rental_reminder") is None  # type: ignore[arg-type]

    @staticmethod
    def click(cast: Cast, path: str) -> Answer:
        """As a mail program does (RFC 8058)."""
        return typing.cast(Answer, cast.app.test_client().post(path, data={"List-Unsubscribe": "One-Click"}))


class TestInvoiceOnPaper:
    def test_whoever_sees_the_invoice_gets_it_as_pdf(self, cast: Cast) -> None:
        invoice = issued(cast)
        papers = [person.get(f"/v1/invoices/{invoice.id}.pdf") for person in (cast.ana, cast.agent, cast.accountant)]
        for paper in papers:
            assert (paper.status_code, paper.mimetype, paper.data[:5]) == (200, "application/pdf", b"%PDF-")
            assert paper.headers["Content-Disposition"] == f'inline; filename="{invoice.number}.pdf"'
        assert len({paper.data for paper in papers}) == 1

    def test_nobody_else_does(self, cast: Cast) -> None:
        invoice = issued(cast)
        foreign, unknown = (cast.ben.get(f"/v1/invoices/{id_}.pdf") for id_ in (invoice.id, clock.new_id()))
        assert (foreign.status_code, unknown.status_code) == (404, 404)
        assert cast.mechanic.get(f"/v1/invoices/{invoice.id}.pdf").status_code == 403

    def test_a_payment_leaves_the_paper_as_it_is_and_an_erasure_takes_the_name_off(self, cast: Cast) -> None:
        invoice = issued(cast)
        first = cast.agent.get(f"/v1/invoices/{invoice.id}.pdf")
        invoice.change(status="paid", settled_amount=invoice.total_amount)
        assert cast.agent.get(f"/v1/invoices/{invoice.id}.pdf").data == first.data
        assert cast.manager.post(f"/v1/customers/{cast.ana.customer_id}/erase").status_code == 200
        assert cast.agent.get(f"/v1/invoices/{invoice.id}.pdf").headers["ETag"] != first.headers["ETag"]

    def test_a_reader_who_has_it_is_told_so(self, cast: Cast) -> None:
        path = f"/v1/invoices/{issued(cast).id}.pdf"
        tag = cast.ana.get(path).headers["ETag"]
        known = cast.ana.get(path, If_None_Match=tag)
        assert (known.status_code, known.data) == (304, b"")

    def test_a_draft_has_none(self, cast: Cast) -> None:
        values = {"currency": "EUR", "net_amount": 0, "tax_amount": 0, "total_amount": 0}
        draft = insert("invoice", customer_id=cast.ana.customer_id, **values)
        refused = cast.agent.get(f"/v1/invoices/{draft}.pdf")
        assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
