"""The matrix of docs/failure-modes.md: what may fail, how, what comes of it, and what proves it.

Another row is another Mode below; `python -m tests.faults.pages` writes the page. A proof is the name of a drill, or a test as
`tests/....py::its_name` (a file alone where all of it is the proof). Tests hold each to what exists, and each drill to a row.
"""

from typing import NamedTuple

NOTHING = "nothing"


class Mode(NamedTuple):
    """One way in which something fails. `lost` is of what was acknowledged or promised."""

    dependency: str
    failure: str
    clients: str
    lost: str
    heals: str
    proofs: tuple[str, ...]


_SAME_KEY = "the same key gets the one answer"
_LEASE = "the lease ends, and a relay rings again"
_UNNOTICED = "no difference"

WEB = (
    Mode("web", "kill -9 of a worker in the middle of a request", "a connection cut; the same key then makes it", NOTHING,
         "gunicorn starts another worker", ("web-killed-mid-request",)),
    Mode("web", "kill -9 after the commit, before the answer", f"a connection cut; {_SAME_KEY}", NOTHING,
         "gunicorn starts another worker", ("web-killed-before-answer",)),
    Mode("web", "answers are lost on their way", f"nothing, then {_SAME_KEY}", NOTHING, "the client asks again",
         ("answers-lost",)),
    Mode("web", "50 requests with one key at once", "one answer for all", NOTHING, "nothing to heal", ("one-key-50",)),
    Mode("web", "50 clients for one slot", "one 201, 49 × 409", NOTHING, "nothing to heal", ("one-slot-50",)),
    Mode("web", "HUP under load", _UNNOTICED, NOTHING, "old workers answer until new ones have booted",
         ("hup-under-load", "tests/test_web_deploys.py::test_old_workers_answer_until_new_ones_have_booted")),
    Mode("web", "a release that does not boot", _UNNOTICED, NOTHING, "the old workers go on serving",
         ("tests/test_web_deploys.py::test_code_that_does_not_boot_leaves_the_old_workers_serving",)),
    Mode("web", "a deploy with migrations under load", _UNNOTICED, NOTHING, "migrations run beside the release before",
         ("tests/races/test_deploys_under_load.py::test_a_deploy_under_load_loses_no_reservation_and_makes_none_twice",)),
    Mode("web", "more requests than it can answer in time", "503 `overloaded` at once, lists first, returns and health last",
         NOTHING, "by itself when there is room",
         ("tests/test_web_overload.py::test_who_cannot_be_served_in_time_hears_so_at_once",
          "tests/test_web_overload.py::test_a_return_does_not_wait_for_slow_reports")),
    Mode("web", "a client that hangs up", "nothing is done for it any more", NOTHING, "the request's deadline",
         ("tests/test_web_overload.py::test_of_a_client_that_hung_up_while_it_waited_nothing_is_done",
          "tests/test_deadlines.py::test_a_statement_ends_with_the_request")),
    Mode("web", "TERM with a request in progress", "its answer", NOTHING, "the platform starts another",
         ("tests/test_web_processes.py::test_a_request_in_progress_is_answered_by_a_process_that_was_told_to_go",)),
)  # fmt: skip

POSTGRESQL = (
    Mode("PostgreSQL", "stopped at once and started again", "503 with Retry-After at once, health still answers", NOTHING,
         "the first statement on a dead connection opens another; leases end", ("postgres-stopped-at-once",)),
    Mode("PostgreSQL", "frozen", "503 with Retry-After within the deadlines", NOTHING,
         "by itself with the first statement that is answered",
         ("postgres-frozen",
          "tests/services/test_database_outages.py::test_whoever_asks_is_refused_soon_and_served_at_once_when_it_is_back")),
    Mode("PostgreSQL", "a deadlock", "no difference but some 0.2 s", NOTHING, "the work is done again from its start",
         ("tests/races/test_deadlocks.py",)),
    Mode("replica", "lags", "nothing old: lists come from the primary", NOTHING, "it is asked again when it has caught up",
         ("tests/services/test_replica.py::test_a_replica_that_lags_is_left_alone_until_it_has_caught_up",)),
    Mode("replica", "gone or frozen", "no difference; the first list a moment later", NOTHING, "one request finds out for all",
         ("tests/services/test_replica.py::test_a_replica_that_is_gone_costs_nobody_an_answer",
          "tests/services/test_replica.py::test_a_replica_that_stands_still_costs_one_request_a_moment")),
    Mode("PostgreSQL", "a row lock is held for 10 s", "503 within 3 s for who wants that row, all else is served", NOTHING,
         "the lock timeout ends the wait", ("row-locked",)),
    Mode("PostgreSQL", "a slow query", "503 at the statement timeout", NOTHING, "the statement is cancelled, nothing half-done",
         ("slow-query",)),
    Mode("PostgreSQL", "connections are exhausted", "503 while there is none to be had", NOTHING,
         "a connection is opened when the strangers let go", ("connections-exhausted",)),
    Mode("PostgreSQL", "a connection dies between two statements", "no difference for a read; for a write 503", NOTHING,
         "reads and beginnings are sent again, a write never",
         ("tests/services/test_db.py::test_a_read_on_a_dead_connection_is_sent_again",
          "tests/services/test_db.py::test_a_write_without_a_transaction_is_not_sent_twice")),
    Mode("PostgreSQL", "away between a mail server's yes and our note", "a letter, once", NOTHING,
         "the worker insists on its note for ten seconds, then the claim ends after 90",
         ("tests/tasks/test_notifications.py::test_a_letter_whose_note_meets_a_lost_connection_is_noted_all_the_same",)),
)  # fmt: skip

REDIS = (
    Mode("Redis", "killed with a full queue, without persistence", _UNNOTICED, NOTHING, _LEASE, ("redis-killed-full-queue",)),
    Mode("Redis", "FLUSHALL", _UNNOTICED, NOTHING, _LEASE, ("redis-flushed",)),
    Mode("Redis", "frozen for 30 s", "answers within 2 s, limits count in each process", NOTHING,
         "timeouts of 0.2 s in a request; relay and workers connect again", ("redis-frozen",)),
    Mode("Redis", "out of memory (noeviction)", _UNNOTICED, NOTHING, "the relay publishes when it is taken again",
         ("redis-full",)),
    Mode("Redis", "away while readers follow the event stream", "every event within a second", NOTHING,
         "the sequencer needs no broker",
         ("tests/tasks/test_sequencer.py::test_a_frozen_broker_keeps_no_event_from_its_place",)),
    Mode("Redis", "away while calls are counted", "limits go on in each process", NOTHING, "counted together when it is back",
         ("tests/security/test_limits.py::test_limits_go_on_in_the_process",
          "tests/security/test_limits.py::test_a_redis_that_hangs_is_given_up_soon",
          "tests/security/test_limits.py::test_counting_is_shared_again_when_redis_is_back")),
    Mode("Redis", "away, full or frozen while it caches", "no difference, a little slower", NOTHING,
         "what changed meanwhile is read from PostgreSQL", ("tests/redis/test_failures.py",)),
    Mode("Redis", "500 misses of one key at once", _UNNOTICED, NOTHING, "one of them asks PostgreSQL",
         ("tests/redis/test_stampede.py::test_five_hundred_who_miss_at_once_are_one_query",)),
    Mode("RabbitMQ", "a child is killed with a message", _UNNOTICED, NOTHING, "the quorum queue gives it to another",
         ("tests/tasks/test_brokers.py::test_rabbitmq_gives_the_message_of_a_killed_child_to_another",)),
)  # fmt: skip

RELAY = (
    Mode("relay", "kill -9 after its claim", _UNNOTICED, NOTHING, _LEASE, ("relay-killed-after-claim",)),
    Mode("relay", "kill -9 after it published", _UNNOTICED, NOTHING, "the messages are out; the lease covers the rest",
         ("relay-killed-after-publish",)),
    Mode("relay", "killed while readers follow the event stream", "the stream goes on without gap or repetition", NOTHING,
         "the other relay puts events in order", ("stream-read-along",)),
    Mode("relay", "a backlog of 50,000", _UNNOTICED, NOTHING, "it stays in PostgreSQL, Redis holds a few hundred",
         ("backlog",)),
)  # fmt: skip

WORKER = (
    Mode("worker", "kill -9 of a pool child", _UNNOTICED, NOTHING, "the broker gives its message back", ("pool-child-killed",)),
    Mode("worker", "kill -9 between effect and acknowledgement", _UNNOTICED, NOTHING, "the inbox knows the message",
         ("killed-before-acknowledgement",)),
    Mode("worker", "kill -9 of the whole worker", _UNNOTICED, "nothing; a mail may come twice", _LEASE, ("worker-killed",)),
    Mode("worker", "frozen, then killed", _UNNOTICED, "nothing; a mail may come twice", _LEASE, ("worker-frozen-killed",)),
    Mode("worker", "TERM with a long task", _UNNOTICED, NOTHING, "it ends the task first", ("worker-term-long-task",)),
    Mode("worker", "connected and deaf", _UNNOTICED, NOTHING, "it ends itself, and is started again",
         ("tests/tasks/test_watch.py::test_a_worker_that_stopped_consuming_ends_with_its_children_and_the_next_one_does_the_work",)),
    Mode("messages", "the same one 100 times", _UNNOTICED, NOTHING, "the inbox knows it", ("same-message-100",)),
    Mode("messages", "poison that raises", _UNNOTICED, "nothing: a dead letter", "an operator replays or discards it",
         ("poison-raises",)),
    Mode("messages", "poison that kills its process", _UNNOTICED, "nothing: a dead letter", "a sweep buries it",
         ("poison-kills",)),
    Mode("messages", "a task that hangs", _UNNOTICED, "nothing: a dead letter", "time limits end it, a sweep buries it",
         ("task-hangs",)),
    Mode("messages", "two replays of a dead letter at once", "one is told that it waits already", NOTHING,
         "the inbox leaves one effect", ("two-replays",)),
    Mode("beat", "two beats", _UNNOTICED, NOTHING, "sweeps share their work", ("two-beats",)),
)  # fmt: skip

OUTSIDE = (
    Mode("mail server", "fails 80 %", "letters later", NOTHING, "back-off in the outbox, a breaker",
         ("mail-fails-80", "tests/tasks/test_breakers.py::test_a_letter_waits_as_long_as_it_takes_and_then_goes_out")),
    Mode("mail server", "hangs", "letters later; the books do not wait", NOTHING, "timeouts, lanes", ("mail-hangs",)),
    Mode("webhook receiver", "fails 80 %", "its events later, each under its own id", NOTHING,
         "the endpoint rests, then retries",
         ("hooks-fail-80",)),
    Mode("webhook receiver", "hangs", "its events later; nobody else waits", NOTHING, "one attempt at a time while it fails",
         ("hooks-hang",)),
    Mode("webhook receiver", "dies and comes back", "its events later", NOTHING, "retries over three days", ("hooks-gone",)),
    Mode("webhook receiver", "our worker dies between sending and note", "the event perhaps twice, under one id", NOTHING,
         "the attempt's lease ends", ("hooks-worker-killed",)),
    Mode("card gateway", "charges, and answers too late", "503, then the same key gets the one payment", NOTHING,
         "the same key at the gateway, or the sweep that looks", ("cards-late",)),
    Mode("card gateway", "500 before and after the charge", "503, then the same key gets the one payment", NOTHING,
         "the same key at the gateway", ("cards-fail",)),
    Mode("card gateway", "hangs", "503 within ten seconds, then the same key pays once", NOTHING, "deadlines, breaker",
         ("cards-hang",)),
    Mode("card gateway", "gone", "503 at once for payments, all else is served", NOTHING, "the breaker's probe",
         ("cards-gone",
          "tests/api/test_card_payments.py::test_when_stripe_is_down_the_breaker_opens_and_nobody_waits_or_is_half_charged")),
    Mode("card gateway", "our web worker dies in the middle of a charge", "a connection cut; the same key gets the one payment",
         NOTHING, "the attempt's lease ends; the sweep looks", ("cards-web-killed",)),
    Mode("card gateway", "fails refunds, and our worker dies before its note", _UNNOTICED, NOTHING,
         "the refund's key at the gateway; the outbox tries again", ("refunds-fail",)),
    Mode("card gateway", "its events come twice, forged or in any order", _UNNOTICED, NOTHING, "each is taken in once",
         ("tests/api/test_card_events.py",)),
)  # fmt: skip

MODES: tuple[Mode, ...] = (*WEB, *POSTGRESQL, *REDIS, *RELAY, *WORKER, *OUTSIDE)
