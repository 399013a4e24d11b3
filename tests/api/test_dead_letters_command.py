"""`flask --app wsgi dead-letters`: as over HTTP, with the operator's name."""

import getpass
import json
from typing import Any

import pytest

from fleet import cli_dead_letters
from fleet.db import db
from fleet.models.audit import AuditEvent
from fleet.services import outbox
from tests.cast import Cast
from tests.tasks.outboxes import dead_letter, promised, row, state

LETTER = "notifications.rental_held"


def run(cast: Cast, *args: str) -> tuple[int, str]:
    result = cast.app.test_cli_runner().invoke(args=["dead-letters", *args])
    return result.exit_code, result.stdout


def run_json(cast: Cast, *args: str) -> Any:
    code, said = run(cast, *args, "--json")
    assert code == 0, said
    return [json.loads(line) for line in said.splitlines()]


@pytest.fixture(autouse=True)
def at_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "olga")


def the_event() -> AuditEvent:
    [event] = AuditEvent.select()
    return event


class TestLooking:
    def test_it_lists_what_is_dead(self, cast: Cast) -> None:
        letter_id = dead_letter("Poison at x:1")
        code, said = run(cast, "list")
        assert (code, said.splitlines()[-1]) == (0, "1 shown")
        assert letter_id in said and "Poison at x:1" in said

    def test_it_lists_by_filters_and_says_that_there_are_more(self, cast: Cast) -> None:
        posting, letter = dead_letter("Poison"), dead_letter("MailRefused", LETTER)
        assert [item["id"] for item in run_json(cast, "list", "--cause", "Poison")] == [posting]
        assert [item["id"] for item in run_json(cast, "list", "--queue", "notifications")] == [letter]
        assert run_json(cast, "list", "--to", "2026-01-01T00:00:00Z") == []
        assert run(cast, "list", "--limit", "1")[1].splitlines()[-1] == "1 shown, there are more"

    def test_it_shows_one(self, cast: Cast) -> None:
        letter_id = dead_letter("Poison at x:1")
        code, said = run(cast, "show", letter_id)
        assert (code, "Poison at x:1" in said, "{}" in said) == (0, True, True)
        [shown] = run_json(cast, "show", letter_id)
        assert shown["deliveries"] == outbox.MAX_DELIVERIES

    @pytest.mark.parametrize(
        "args",
        [
            ["show", "01a2175a-3166-71f2-8520-7980a10af0f7"],
            ["show", "x"],
            ["list", "--from", "yesterday"],
            ["list", "--status", "waiting"],
            ["replay"],
            ["replay", "--all", "01a2175a-3166-71f2-8520-7980a10af0f7"],
            ["replay", "01a2175a-3166-71f2-8520-7980a10af0f7"],
            ["discard", "--all"],
            ["discard", "--all", "--reason", " "],
        ],
    )
    def test_what_cannot_be_done_is_said_and_nothing_is_done(self, cast: Cast, args: list[str]) -> None:
        letter_id = dead_letter()
        code, said = run(cast, *args)
        assert code != 0
        assert "Traceback" not in said
        assert (state(letter_id), AuditEvent.select().count()) == ("dead", 0)


class TestActing:
    def test_who_is_at_the_keyboard_answers_for_it(self, cast: Cast) -> None:
        letter_id = dead_letter()
        assert run(cast, "replay", letter_id) == (0, "1 replayed\n")
        assert state(letter_id) == "waiting"
        assert (the_event().actor, the_event().address, the_event().object_id) == ("cli:olga", "cli:olga", letter_id)

    def test_or_the_user_who_is_named(self, cast: Cast) -> None:
        letter_id = dead_letter()
        assert run(cast, "discard", letter_id, "--reason", "of no use", "--as", cast.admin.email) == (0, "1 discarded\n")
        assert (row(letter_id).discarded_by, row(letter_id).discard_reason) == (f"user:{cast.admin.user_id}", "of no use")
        assert (the_event().actor, the_event().address) == (f"user:{cast.admin.user_id}", "cli:olga")

    def test_who_may_not_do_it_may_not_do_it_here(self, cast: Cast) -> None:
        letter_id = dead_letter()
        db.execute_sql("UPDATE user_account SET deactivated_at = now() WHERE id = %s", (cast.admin.user_id,))
        for email in (cast.manager.email, cast.admin.email, "nobody@example.com", "nobody"):
            assert run(cast, "replay", letter_id, "--as", email)[0] == 1
        assert state(letter_id) == "dead"

    def test_a_choice_is_replayed_batch_by_batch(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli_dead_letters, "MOST_AT_ONCE", 2)
        made, other = [dead_letter() for _ in range(5)], dead_letter(topic=LETTER)
        assert run(cast, "replay", "--queue", "accounting") == (0, "5 replayed\n")
        assert ({state(one) for one in made}, state(other)) == ({"waiting"}, "dead")
        assert AuditEvent.select().count() == 5

    def test_what_dies_again_at_once_is_not_replayed_for_ever(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli_dead_letters, "MOST_AT_ONCE", 1)
        made = [dead_letter() for _ in range(3)]
        replay = cli_dead_letters.dead_letters.replay_chosen

        def replay_in_vain(*args: Any, **kwargs: Any) -> Any:
            done = replay(*args, **kwargs)
            outbox.bury(made, "no consumer has this topic")
            return done

        monkeypatch.setattr(cli_dead_letters.dead_letters, "replay_chosen", replay_in_vain)
        assert run(cast, "replay", "--all") == (0, "3 replayed\n")

    def test_a_choice_is_discarded_too(self, cast: Cast) -> None:
        made, other = [dead_letter() for _ in range(2)], dead_letter(topic=LETTER)
        assert run_json(cast, "discard", "--topic", LETTER, "--reason", "x") == [{"discarded": 1, "refused": {}}]
        assert ({state(one) for one in made}, state(other)) == ({"dead"}, "discarded")
        assert run(cast, "replay", "--all", "--status", "discarded") == (0, "1 replayed\n")

    def test_of_several_the_refused_are_named_and_the_others_done(self, cast: Cast) -> None:
        [waiting], letter_id = promised(), dead_letter()
        code, said = run(cast, "replay", waiting, letter_id, "--json")
        assert (code, json.loads(said)) == (1, {"replayed": 1, "refused": {waiting: "The letter is waiting"}})
        assert state(letter_id) == "waiting"
