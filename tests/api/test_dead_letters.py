"""/admin/dead-letters: look, replay, discard; every act in the audit log, and nothing done twice."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from fleet import clock
from fleet.db import db, patience
from fleet.models.audit import AuditEvent
from fleet.services import dead_letters, outbox
from tests.cast import Cast, iso
from tests.tasks.consuming import counted_effects, deliver
from tests.tasks.outboxes import TOPIC, dead_letter, promised, received, row, state

PATH = "/admin/dead-letters"
LETTER = "notifications.rental_held"
UNKNOWN = clock.new_id()


def found(cast: Cast, query: str = "") -> list[str]:
    answer = cast.admin.get(f"{PATH}?{query}")
    assert answer.status_code == 200, answer.json
    return [letter["id"] for letter in answer.json["data"]]


def acts() -> Counter[tuple[str, str]]:
    """What the audit log knows: how often each act was done to each letter."""
    return Counter((event.action, event.object_id) for event in AuditEvent.select())


class TestLooking:
    def test_a_letter_tells_its_whole_story(self, cast: Cast) -> None:
        letter_id = dead_letter("Poison dead at tests:1")
        letter = cast.admin.get(f"{PATH}/{letter_id}").json
        made = row(letter_id)
        assert letter["status"] == "dead"
        assert (letter["topic"], letter["queue"], letter["aggregate_type"]) == (TOPIC, "accounting", "invoice")
        assert (letter["aggregate_id"], letter["payload"]) == (f"{made.aggregate_id}", {})
        assert (letter["deliveries"], letter["replays"]) == (outbox.MAX_DELIVERIES, 0)
        assert (letter["cause"], letter["last_error"]) == ("Poison", "Poison dead at tests:1")
        assert letter["created_at"] < letter["first_error_at"] <= letter["last_error_at"] <= letter["dead_at"]

    def test_the_first_error_is_remembered_beside_the_last(self, cast: Cast) -> None:
        [promise_id] = promised()
        for _ in range(outbox.MAX_DELIVERIES):
            message = outbox.count_delivery(promise_id)
            assert message is not None
            outbox.fail(message, "Poison")
        letter = cast.admin.get(f"{PATH}/{promise_id}").json
        assert letter["first_error_at"] < letter["last_error_at"] == letter["dead_at"]

    def test_a_promise_that_never_died_is_no_letter(self, cast: Cast) -> None:
        [waiting] = promised()
        assert found(cast) == []
        for letter_id in (waiting, UNKNOWN):
            assert cast.admin.get(f"{PATH}/{letter_id}").status_code == 404

    @pytest.mark.parametrize(
        ("error", "cause"),
        [
            ("IntegrityError 23505 invoice_pkey at fleet.db:1", "IntegrityError"),
            ("no consumer has this topic", "NoConsumer"),
            (outbox.NO_WORD, "NoWord"),
            ("ouch: ana@example.com", "Unknown"),
        ],
    )
    def test_a_cause_is_a_class_and_no_words(self, cast: Cast, error: str, cause: str) -> None:
        assert cast.admin.get(f"{PATH}/{dead_letter(error)}").json["cause"] == cause


class TestFilters:
    def test_by_topic_queue_and_cause(self, cast: Cast) -> None:
        posting, letter = dead_letter("Poison at x"), dead_letter("MailRefused (550) at y", LETTER)
        assert found(cast) == [letter, posting]
        assert found(cast, f"topic={LETTER}") == found(cast, "queue=notifications") == [letter]
        assert found(cast, "cause=Poison") == found(cast, "cause=AT X") == [posting]
        assert found(cast, "cause=550") == [letter]
        assert found(cast, "cause=%25") == found(cast, "cause=_") == []

    def test_by_the_time_of_death(self, cast: Cast) -> None:
        letter_id = dead_letter()
        before, later = (iso(clock.now() + timedelta(minutes=minutes)) for minutes in (-1, 1))
        assert found(cast, f"from={before}&to={later}") == [letter_id]
        assert found(cast, f"to={before}") == found(cast, f"from={later}") == []

    def test_by_status(self, cast: Cast) -> None:
        dead, discarded = dead_letter(), dead_letter()
        cast.admin.post(f"{PATH}/{discarded}/discard", {"reason": "of no use"})
        assert found(cast, "status=dead") == [dead]
        assert found(cast, "status=discarded") == [discarded]
        assert set(found(cast)) == {dead, discarded}

    def test_page_by_page(self, cast: Cast) -> None:
        made = [dead_letter() for _ in range(3)]
        first = cast.admin.get(f"{PATH}?limit=2").json
        assert [letter["id"] for letter in first["data"]] == made[:0:-1]
        assert found(cast, f"limit=2&cursor={first['next_cursor']}") == made[:1]

    @pytest.mark.parametrize("query", ["status=waiting", "topic=A b", "cause=", "from=1", "limit=201", "q=x"])
    def test_a_filter_that_is_none_is_refused(self, cast: Cast, query: str) -> None:
        assert cast.admin.get(f"{PATH}?{query}").status_code == 422


class TestReplaying:
    def test_it_is_tried_again_with_all_its_deliveries(self, cast: Cast, effects: None) -> None:
        letter_id = dead_letter()
        replayed = cast.admin.post(f"{PATH}/{letter_id}/replay")
        assert (replayed.status_code, replayed.json["status"], replayed.json["replays"]) == (200, "waiting", 1)
        assert (row(letter_id).deliveries, row(letter_id).publishes) == (0, 0)
        assert [item.id for item in outbox.claim_due(dict.fromkeys(outbox.QUEUES, 10))] == [letter_id]
        deliver([letter_id])
        assert (state(letter_id), counted_effects()) == ("confirmed", {letter_id: 1})

    def test_afterwards_it_tells_what_became_of_it(self, cast: Cast, effects: None) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/replay")
        deliver([letter_id])
        assert cast.admin.get(f"{PATH}/{letter_id}").json["status"] == "confirmed"
        assert found(cast) == []

    def test_what_is_still_poison_dies_again_after_as_many_deliveries(self, cast: Cast) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/replay")
        for _ in range(outbox.MAX_DELIVERIES):
            assert state(letter_id) == "waiting"
            message = outbox.count_delivery(letter_id)
            assert message is not None
            outbox.fail(message, "Poison again")
        assert state(letter_id) == "dead"
        assert cast.admin.post(f"{PATH}/{letter_id}/replay").json["replays"] == 2

    def test_what_is_waiting_or_confirmed_is_not_replayed(self, cast: Cast) -> None:
        waiting, confirmed = promised(2)
        outbox.confirm([confirmed])
        for letter_id in (waiting, confirmed):
            refused = cast.admin.post(f"{PATH}/{letter_id}/replay")
            assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
        assert cast.admin.post(f"{PATH}/{UNKNOWN}/replay").status_code == 404
        assert acts() == {}

    def test_a_discarded_letter_may_be_replayed(self, cast: Cast) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/discard", {"reason": "of no use"})
        replayed = cast.admin.post(f"{PATH}/{letter_id}/replay").json
        assert (replayed["status"], replayed["discarded_by"], replayed["discard_reason"]) == ("waiting", None, None)

    def test_the_second_replay_finds_it_replayed(self, cast: Cast) -> None:
        letter_id = dead_letter()
        statuses = [cast.admin.post(f"{PATH}/{letter_id}/replay").status_code for _ in range(2)]
        assert (statuses, row(letter_id).replays) == ([200, 409], 1)
        assert acts() == {("dead_letters.replay", letter_id): 1}

    def test_a_replay_repeated_under_its_key_is_answered_again(self, cast: Cast) -> None:
        letter_id = dead_letter()
        answers = [cast.admin.post(f"{PATH}/{letter_id}/replay", key="again") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert acts() == {("dead_letters.replay", letter_id): 1}

    def test_the_audit_log_keeps_what_the_letter_died_of(self, cast: Cast) -> None:
        letter_id = dead_letter("Poison at x:1")
        cast.admin.post(f"{PATH}/{letter_id}/replay")
        [event] = AuditEvent.select()
        assert (event.actor, event.object_type) == (f"user:{cast.admin.user_id}", "dead_letter")
        assert (event.before["status"], event.before["last_error"]) == ("dead", "Poison at x:1")
        assert event.after == {"status": "waiting", "deliveries": 0, "replays": 1}


class TestDiscarding:
    def test_it_is_closed_with_who_when_and_why_and_nothing_is_deleted(self, cast: Cast) -> None:
        letter_id = dead_letter()
        discarded = cast.admin.post(f"{PATH}/{letter_id}/discard", {"reason": "The invoice was a test"}).json
        assert (discarded["status"], discarded["last_error"]) == ("discarded", "Poison at tests")
        assert discarded["discarded_by"] == f"user:{cast.admin.user_id}"
        assert (discarded["discard_reason"], discarded["discarded_at"] is None) == ("The invoice was a test", False)
        assert acts() == {("dead_letters.discard", letter_id): 1}

    def test_neither_relay_nor_worker_nor_sweep_touches_it_any_more(self, cast: Cast, effects: None) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/discard", {"reason": "of no use"})
        assert outbox.claim_due(dict.fromkeys(outbox.QUEUES, 10)) == []
        deliver([letter_id])
        assert outbox.bury_exhausted() == []
        assert (counted_effects(), received(letter_id), state(letter_id)) == ({}, 0, "discarded")

    @pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "  "}, {"reason": "x" * 201}, {"reason": "a\nb"}])
    def test_it_takes_a_reason(self, cast: Cast, body: Any) -> None:
        letter_id = dead_letter()
        assert cast.admin.post(f"{PATH}/{letter_id}/discard", body).status_code == 422
        assert (state(letter_id), acts()) == ("dead", {})

    def test_a_reason_keeps_no_address_of_anybody(self, cast: Cast) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/discard", {"reason": "told ana@example.com"})
        assert row(letter_id).discard_reason == "told ***"
        assert "ana@" not in f"{[event.after for event in AuditEvent.select()]}"

    def test_only_what_is_dead_is_discarded(self, cast: Cast) -> None:
        [waiting], letter_id = promised(), dead_letter()
        statuses = [
            cast.admin.post(f"{PATH}/{one}/discard", {"reason": "of no use"}).status_code
            for one in (waiting, letter_id, letter_id, UNKNOWN)
        ]
        assert statuses == [409, 200, 409, 404]
        assert acts() == {("dead_letters.discard", letter_id): 1}

    def test_a_late_worker_that_did_it_after_all_ends_the_discard(self, cast: Cast) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/discard", {"reason": "of no use"})
        outbox.confirm([letter_id])
        assert (state(letter_id), row(letter_id).discarded_by) == ("confirmed", None)


class TestReplayingMany:
    def test_a_choice_is_replayed_and_counted(self, cast: Cast) -> None:
        posting, letter = dead_letter(), dead_letter(topic=LETTER)
        assert cast.admin.post(f"{PATH}/replay", {"topic": LETTER}).json == {"replayed": 1, "more": False}
        assert (state(letter), state(posting)) == ("waiting", "dead")
        assert acts() == {("dead_letters.replay", letter): 1}

    def test_one_call_replays_no_more_than_its_limit_the_oldest_first(self, cast: Cast) -> None:
        made = [dead_letter() for _ in range(3)]
        body = {"queue": "accounting", "limit": 2}
        assert cast.admin.post(f"{PATH}/replay", body).json == {"replayed": 2, "more": True}
        assert [state(one) for one in made] == ["waiting", "waiting", "dead"]
        assert cast.admin.post(f"{PATH}/replay", body).json == {"replayed": 1, "more": False}

    @pytest.mark.parametrize("body", [{}, {"status": "discarded"}, {"limit": 5}, {"all": False}])
    def test_a_choice_that_narrows_nothing_is_refused(self, cast: Cast, body: Any) -> None:
        letter_id = dead_letter()
        refused = cast.admin.post(f"{PATH}/replay", body)
        assert (refused.status_code, refused.json["errors"][0]["code"]) == (422, "filter_required")
        assert state(letter_id) == "dead"

    def test_unless_it_says_all(self, cast: Cast) -> None:
        made = [dead_letter(), dead_letter(topic=LETTER)]
        assert cast.admin.post(f"{PATH}/replay", {"all": True}).json == {"replayed": 2, "more": False}
        assert {state(one) for one in made} == {"waiting"}

    def test_discarded_ones_are_not_meant_unless_they_are_named(self, cast: Cast) -> None:
        letter_id = dead_letter()
        cast.admin.post(f"{PATH}/{letter_id}/discard", {"reason": "of no use"})
        assert cast.admin.post(f"{PATH}/replay", {"all": True}).json["replayed"] == 0
        assert cast.admin.post(f"{PATH}/replay", {"all": True, "status": "discarded"}).json["replayed"] == 1

    @pytest.mark.parametrize("limit", [0, dead_letters.MOST_AT_ONCE + 1, "2"])
    def test_its_limit_is_bounded(self, cast: Cast, limit: Any) -> None:
        assert cast.admin.post(f"{PATH}/replay", {"all": True, "limit": limit}).status_code == 422


def test_only_an_admin_sees_or_touches_them(cast: Cast) -> None:
    letter_id = dead_letter()
    for role, person in cast.staff.items():
        calls = [
            person.get(PATH),
            person.get(f"{PATH}/{letter_id}"),
            person.post(f"{PATH}/{UNKNOWN}/replay"),
            person.post(f"{PATH}/{UNKNOWN}/discard", {"reason": "x"}),
            person.post(f"{PATH}/replay", {"topic": "x.y"}),
        ]
        assert [call.status_code for call in calls] == ([200, 200, 404, 404, 200] if role == "admin" else [403] * 5), role


def test_the_list_of_letters_is_found_by_its_index(cast: Cast) -> None:
    with patience(60):
        db.execute_sql(
            """INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id, confirmed_at, dead_at)
            SELECT gen_random_uuid(), 't', 'default', 'x', gen_random_uuid(), CASE WHEN n %% 100 > 0 THEN now() END,
                CASE WHEN n %% 100 = 0 THEN now() END
            FROM generate_series(1, 20000) AS n"""
        )
        db.execute_sql("ANALYZE outbox")
    plan = db.rows("EXPLAIN SELECT * FROM outbox WHERE dead_at IS NOT NULL AND topic = 't' ORDER BY id DESC LIMIT 51")
    assert "outbox_dead_letters" in f"{plan}" and "Sort" not in f"{plan}"
