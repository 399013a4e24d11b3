"""Flower, started for real: for those with the password, with what was done and nothing about people."""

import base64
import json
import urllib.error
import urllib.request

import pytest

from fleet.db import db
from fleet.embedded.server import HOST, usable_port
from tasks.flower import is_loopback
from tests.books import issued
from tests.tasks.crew import FLOWER, RELAY, WORKER, await_, running

LOGIN = "operator:a-password-of-the-tests"


@pytest.fixture
def flower_environment(processes_environment) -> dict[str, str]:
    return {**processes_environment, "FLOWER_PORT": str(usable_port(None)), "FLOWER_BASIC_AUTH": LOGIN}


def asked(environment: dict[str, str], path: str, login: str | None = LOGIN) -> tuple[int, str]:
    """The status and body of an answer; 0 while nobody listens."""
    headers = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"} if login else {}
    request = urllib.request.Request(f"http://{HOST}:{environment['FLOWER_PORT']}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, ""
    except OSError:
        return 0, ""


@pytest.mark.slow
def test_flower_shows_what_was_done_to_who_has_the_password(cast, broker, flower_environment, tmp_path):
    with (
        running(FLOWER, flower_environment, tmp_path / "flower.log"),
        running(WORKER, flower_environment, tmp_path / "worker.log"),
    ):
        await_(lambda: asked(flower_environment, "/api/workers?refresh=1")[1].count("accounting"))
        with running(RELAY, flower_environment, tmp_path / "relay.log"):
            issued(cast)
            [(promise,)] = db.rows("SELECT id FROM outbox WHERE queue = 'accounting'")
            await_(lambda: db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL") == (0,))
        await_(lambda: asked(flower_environment, "/api/tasks")[1].count("SUCCESS") == 2)
        _, shown = asked(flower_environment, "/api/tasks")
        tasks = {task["name"]: task for task in json.loads(shown).values()}
        assert set(tasks) == {"accounting.post_invoice", "notifications.invoice_issued"}
        posted = tasks["accounting.post_invoice"]
        assert (posted["args"], posted["result"]) == (f"(1 promises from {promise})", "1")
        assert cast.ana.email not in shown
        for path in ("/api/tasks", "/api/workers", "/workers", "/broker"):
            assert asked(flower_environment, path, login=None)[0] == 401
            assert asked(flower_environment, path, login="operator:a-guess")[0] == 401
        assert [asked(flower_environment, path, login=None)[0] for path in ("/metrics", "/healthcheck")] == [200, 200]


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"FLOWER_ADDRESS": "0.0.0.0", "FLOWER_BASIC_AUTH": ""}, "FLOWER_BASIC_AUTH is missing"),
        ({"FLOWER_BASIC_AUTH": "operator:short"}, "FLOWER_BASIC_AUTH must be user:password"),
        ({"FLOWER_BASIC_AUTH": "operator"}, "FLOWER_BASIC_AUTH must be user:password"),
    ],
)
def test_flower_refuses_to_be_open_to_others(flower_environment, tmp_path, chosen, named):
    with running(FLOWER, {**flower_environment, **chosen}, tmp_path / "log") as process:
        assert process.wait(20) == 1
    assert named in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True), ("127.0.0.2", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("10.0.0.1", False), ("", False),
    ],
)
def test_which_addresses_are_this_machines_own(address, own):
    assert is_loopback(address) is own
