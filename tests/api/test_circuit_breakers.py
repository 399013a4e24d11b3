"""/admin/circuit-breakers: what operators say reaches every process, with and without Redis; how each stands is seen."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import peewee
import pytest
import redis

from fleet import breakers
from fleet.breakers import FORCED_OPEN, Breaker, Open
from fleet.db import db
from fleet.embedded import Databases
from fleet.gateways import board
from fleet.gateways.board import Board
from fleet.services import circuit_breakers
from fleet.services.circuit_breakers import Sharing
from tests.cast import Answer, Cast, request
from tests.source import ROOT

PATH = "/admin/circuit-breakers"
NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def wiped(cast: Cast, databases: Databases) -> None:
    """Nothing is on the board."""
    with redis.Redis.from_url(databases.redis_url) as client:
        client.flushdb()


@pytest.fixture
def sharing(cast: Cast) -> Sharing:
    """This process's part, whose turns the tests take."""
    made: Sharing = cast.app.extensions["fleet"].breakers
    made._ask_at = made._reported_at = float("-inf")
    return made


def all_of(cast: Cast) -> dict[str, dict[str, Any]]:
    answer = cast.admin.get(PATH)
    assert answer.status_code == 200, answer.json
    return {item["name"]: item for item in answer.json["data"]}


def say(cast: Cast, name: str, what: str, body: Any = None) -> Answer:
    answer = cast.admin.post(f"{PATH}/{name}/{what}", body)
    assert answer.status_code == 200, answer.json
    return answer


def fail(breaker: Breaker, times: int = 5) -> None:
    def failing() -> None:
        raise OSError

    for _ in range(times):
        with pytest.raises(OSError):
            breaker.call(failing)


def ask(name: str) -> str:
    return breakers.breaker(name).call(lambda: "asked")


def until(true: Callable[[], bool], *, within_s: float = 5.0) -> float:
    """Wait for it; returns how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it did not come true"
        time.sleep(0.02)
    return time.monotonic() - began


OTHER = """
import sys
from fleet import breakers, config
from fleet.config import Settings
from fleet.db import db
from fleet.gateways.board import Board
from fleet.services.circuit_breakers import Sharing

settings = Settings.load()
config.use(settings)
db.configure(settings)
smtp = breakers.breaker("smtp")
Sharing(Board(settings.redis_url), "worker").start()
for line in sys.stdin:
    try:
        smtp.call(lambda: 1 / (line.strip() != "fail"))
        print("asked", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


@contextmanager
def another_process(environment: dict[str, str]) -> Iterator[Callable[[str], str]]:
    """A worker that calls a mail server when it is told to, and says what came of it."""
    child = subprocess.Popen(
        [sys.executable, "-c", OTHER], env={**os.environ, **environment}, cwd=ROOT, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin and child.stdout
    orders, answers = child.stdin, child.stdout

    def call(how: str) -> str:
        orders.write(f"{how}\n")
        orders.flush()
        return answers.readline().strip()

    try:
        yield call
    finally:
        orders.close()
        assert child.wait(10) == 0
        answers.close()


class TestOverTwoProcesses:
    def test_each_is_seen_and_a_word_reaches_both_within_a_second(self, cast: Cast, environment: dict[str, str]) -> None:
        breakers.breaker("smtp")
        with another_process(environment) as other:
            assert [other("fail") for _ in range(5)] == ["ZeroDivisionError"] * 5
            assert other("well") == "Open"
            until(lambda: all_of(cast)["smtp"]["state"] == "open")
            smtp = all_of(cast)["smtp"]
            assert (smtp["failures"], smtp["opened_at"] is None, smtp["control"]) == (0, False, "auto")
            assert {(one["kind"], one["state"]) for one in smtp["processes"]} == {("web", "closed"), ("worker", "open")}

            assert say(cast, "smtp", "close", {"reason": "it is back"}).json["state"] == "closed"
            assert until(lambda: other("well") == "asked") < 1.5
            assert say(cast, "smtp", "open").json["state"] == "open"
            with pytest.raises(Open):
                ask("smtp")
            assert until(lambda: other("well") == "Open") < 1.5
            say(cast, "smtp", "auto")
            assert until(lambda: other("well") == "asked") < 1.5
            assert ask("smtp") == "asked"
            until(lambda: all(one["heard"] for one in all_of(cast)["smtp"]["processes"]))
            assert len(all_of(cast)["smtp"]["processes"]) == 2

    def test_who_no_longer_reports_is_gone(
        self, cast: Cast, databases: Databases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(board, "REPORTS_LAST_S", 1)
        Board(databases.redis_url).report("worker@gone:1", "worker", [breakers.breaker("sms").reading()])
        assert [one["process"] for one in all_of(cast)["sms"]["processes"] if one["kind"] == "worker"] == ["worker@gone:1"]
        until(lambda: all(one["kind"] == "web" for one in all_of(cast)["sms"]["processes"]))


class TestTheRecord:
    def test_it_says_who_when_and_why_and_so_does_the_audit_log(self, cast: Cast) -> None:
        done = say(cast, "stripe", "open", {"reason": "they told us of a maintenance"}).json
        assert (done["control"], done["reason"]) == ("forced_open", "they told us of a maintenance")
        assert done["controlled_by"] == f"user:{cast.admin.user_id}"
        assert all_of(cast)["stripe"]["controlled_at"] == done["controlled_at"]
        [event] = cast.admin.get("/admin/audit-events?object_type=circuit_breaker").json["data"]
        assert (event["action"], event["object_id"]) == ("circuit_breakers.open", "stripe")
        assert event["before"] == {"control": "auto", "reason": None}
        assert event["after"] == {"control": "forced_open", "reason": "they told us of a maintenance"}

    def test_a_word_that_is_undone_reaches_nobody(self, cast: Cast, sharing: Sharing) -> None:
        with pytest.raises(ZeroDivisionError), db.transaction():
            circuit_breakers.control(cast.admin.actor, "stripe", FORCED_OPEN, reason=None, sharing=sharing)
            raise ZeroDivisionError
        assert ask("stripe") == "asked"
        assert all_of(cast)["stripe"]["control"] == "auto"

    def test_of_two_at_once_the_second_has_the_last_word(self, cast: Cast, sharing: Sharing) -> None:
        epochs = [circuit_breakers.control(cast.admin.actor, "sms", FORCED_OPEN, reason=None, sharing=sharing)]
        [(first,)] = db.rows("SELECT epoch FROM breaker_control")
        db.execute_sql("UPDATE breaker_control SET epoch = epoch + 1000000")  # by a clock that goes before ours
        circuit_breakers.control(cast.admin.actor, "sms", "auto", reason=None, sharing=sharing)
        assert db.rows("SELECT epoch, state FROM breaker_control") == [(first + 1_000_001, "auto")]
        assert epochs[0].control == "forced_open" and ask("sms") == "asked"

    def test_a_key_makes_a_repetition_harmless(self, cast: Cast) -> None:
        first = cast.admin.post(f"{PATH}/sms/open", {}, key="once")
        assert ask_is_refused("sms")
        say(cast, "sms", "auto")
        again = cast.admin.post(f"{PATH}/sms/open", {}, key="once")
        assert (again.data, again.headers["Idempotency-Replayed"]) == (first.data, "true")
        assert ask("sms") == "asked"

    @pytest.mark.parametrize(
        ("values", "constraint"),
        [
            ("('sms', 'ajar', 1, 'cli:x')", "breaker_control_state"),
            ("('', 'auto', 1, 'cli:x')", "breaker_control_name"),
            ("('postgresql', 'forced_open', 1, 'cli:x')", "breaker_control_postgresql"),
        ],
    )
    def test_the_database_keeps_it_in_order(self, fresh_database: None, values: str, constraint: str) -> None:
        with pytest.raises(peewee.IntegrityError, match=constraint):
            db.execute_sql(f"INSERT INTO breaker_control (name, state, epoch, controlled_by) VALUES {values}")


def ask_is_refused(name: str) -> bool:
    try:
        ask(name)
    except Open:
        return True
    return False


class TestWithoutRedis:
    def test_a_flush_forgets_nothing_and_a_new_process_hears_of_it(self, cast: Cast, sharing: Sharing, wiped: None) -> None:
        say(cast, "smtp", "open")
        with redis.Redis.from_url(cast.app.extensions["fleet"].settings.redis_url) as client:
            client.flushall()
            sharing.turn()
            assert ask_is_refused("smtp")
            breakers._registry.controls.clear()  # as in a process that has just begun
            breakers._registry.named.pop("smtp")
            assert ask("smtp") == "asked"
            assert client.hget(board.CONTROLS, "smtp") is not None
        sharing.turn()
        assert ask_is_refused("smtp")

    def test_what_the_board_lacks_in_part_is_read_from_the_record(self, cast: Cast, sharing: Sharing) -> None:
        """An operator's word on an empty board is one of many."""
        for name in ("sms", "smtp"):
            say(cast, name, "open")
            if name == "sms":
                with redis.Redis.from_url(cast.app.extensions["fleet"].settings.redis_url) as client:
                    client.flushall()
        breakers._registry.controls.clear()
        breakers._registry.named.clear()
        sharing.turn()
        assert ask_is_refused("sms") and ask_is_refused("smtp")

    def test_without_it_the_last_word_holds_and_new_ones_come_from_the_record(self, cast: Cast, sharing: Sharing) -> None:
        say(cast, "smtp", "open")
        lonely = Sharing(Board(NOWHERE), "worker")
        lonely.turn()
        assert ask_is_refused("smtp")
        db.execute_sql("UPDATE breaker_control SET state = 'auto', epoch = epoch + 1")
        lonely.turn()
        assert ask_is_refused("smtp")  # the record is read now and then, not at every turn
        lonely._ask_at = float("-inf")
        lonely.turn()
        assert ask("smtp") == "asked"

    def test_without_both_the_last_word_holds(self, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
        def gone() -> None:
            raise peewee.OperationalError

        say(cast, "smtp", "open")
        monkeypatch.setattr(circuit_breakers.models, "controls", gone)
        Sharing(Board(NOWHERE), "worker").turn()
        assert ask_is_refused("smtp")

    def test_operators_see_and_say_as_much_as_one_process_can(
        self, cast: Cast, sharing: Sharing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sharing, "board", Board(NOWHERE))
        fail(breakers.breaker("smtp"))
        answer = cast.admin.get(PATH).json
        assert answer["shared"] is False
        [smtp] = [item for item in answer["data"] if item["name"] == "smtp"]
        assert (smtp["state"], len(smtp["processes"])) == ("open", 1)
        assert say(cast, "smtp", "close").json["state"] == "closed"
        assert ask("smtp") == "asked"

    def test_a_redis_that_hangs_keeps_an_operator_for_half_a_second(
        self, cast: Cast, sharing: Sharing, databases: Databases
    ) -> None:
        os.kill(databases.redis.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert cast.admin.get(PATH).json["shared"] is False
            assert time.monotonic() - began < 2.0
        finally:
            os.kill(databases.redis.pid, signal.SIGCONT)

    def test_every_key_ends_by_itself(self, cast: Cast, sharing: Sharing) -> None:
        say(cast, "smtp", "open")
        sharing.turn()
        with redis.Redis.from_url(cast.app.extensions["fleet"].settings.redis_url) as client:
            keys = client.keys("fleet-breakers:*")
            assert len(keys) == 3
            assert all(0 < client.ttl(key) <= 60 for key in keys)


class TestWhoMay:
    def test_managers_look_and_admins_speak(self, cast: Cast) -> None:
        assert cast.manager.get(PATH).status_code == 200
        for what in ("open", "close", "auto"):
            assert cast.manager.post(f"{PATH}/smtp/{what}").status_code == 403
        assert cast.agent.get(PATH).status_code == 403

    @pytest.mark.parametrize("name", ["teapot", "redis-limits"])
    def test_what_nobody_knows_or_can_hold_is_not_found(self, cast: Cast, name: str) -> None:
        for what in ("open", "close", "auto"):
            assert cast.admin.post(f"{PATH}/{name}/{what}").status_code == 404
        assert db.rows("SELECT 1 FROM breaker_control") == []

    def test_a_host_of_webhooks_is_known_while_a_process_uses_it(self, cast: Cast) -> None:
        assert cast.admin.post(f"{PATH}/webhook:hooks.example:8443/open").status_code == 404
        breakers.of_host("hooks.example:8443")
        say(cast, "webhook:hooks.example:8443", "open")
        with pytest.raises(Open):
            breakers.of_host("hooks.example:8443").call(lambda: "asked")
        breakers._registry.hosts.clear()
        assert all_of(cast)["webhook:hooks.example:8443"]["state"] == "open"

    def test_postgresql_cannot_be_forced_open(self, cast: Cast) -> None:
        refused = cast.admin.post(f"{PATH}/postgresql/open")
        assert (refused.status_code, refused.json["code"]) == (409, "invalid_state")
        assert db.rows("SELECT 1 FROM breaker_control") == []

    def test_every_dependency_is_listed_before_it_is_used(self, cast: Cast) -> None:
        assert set(all_of(cast)) == {"broker", "postgresql", "redis", "sms", "smtp", "stripe"}


def commands() -> list[list[str]]:
    """The calls that the runbook tells to make, as a shell would split them."""
    text = (ROOT / "docs" / "runbooks" / "circuit-breakers.md").read_text()
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def test_the_calls_of_the_runbook_do_what_it_says(cast: Cast) -> None:
    controls = []
    for words in commands():
        assert words[0] == "curl" and "Authorization: Bearer $TOKEN" in words
        body = json.loads(words[words.index("--data") + 1]) if "--data" in words else None
        path = words[-1].removeprefix("$BASE")
        answer = cast.admin.post(path, body) if "--data" in words or "POST" in words else cast.admin.get(path)
        assert answer.status_code == 200, answer.json
        controls.append(answer.json.get("control", all_of(cast)["smtp"]["control"]))
    assert controls == ["forced_open", "forced_closed", "auto", "auto"]


def test_metrics_tell_of_all_processes_and_of_hosts_together(cast: Cast, databases: Databases) -> None:
    fail(breakers.breaker("sms"))
    readings = [breakers.breaker("sms").reading()]
    breakers._registry.named.pop("sms")
    for host in ("a", "b"):
        fail(breakers.of_host(host))
    Board(databases.redis_url).report("worker@other:1", "worker", readings)
    say(cast, "stripe", "close")
    text = request(cast.app, "GET", "/metrics").get_data(as_text=True)
    shown = dict(re.findall(r'^fleet_breaker_open\{breaker="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert {name: shown[name] for name in ("sms", "webhooks", "stripe")} == {"sms": "1.0", "webhooks": "2.0", "stripe": "0.0"}
    assert re.findall(r'^fleet_breaker_forced_seconds\{breaker="(\w+)"\}', text, re.MULTILINE) == ["stripe"]
