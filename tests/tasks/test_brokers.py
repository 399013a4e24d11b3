"""The same promises over other brokers: Redis behind TLS, and RabbitMQ with quorum queues."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from fleet.config import Settings
from fleet.db import db
from fleet.limits import PUBLIC, Limits
from tests.books import issued
from tests.tasks import rabbitmq
from tests.tasks.crew import BEAT, RELAY, ROOT, WORKER, await_, closed_books, kill_children_of, running, waiting_for_locks
from tests.tasks.outboxes import state
from tests.tasks.tls import Proxy, certificate, tls_proxy

OPEN = "SELECT count(*) FROM outbox WHERE confirmed_at IS NULL"


def check_that_promises_are_kept(cast, environment: dict[str, str], directory: Path) -> None:
    with (
        running(WORKER, environment, directory / "worker.log"),
        running(RELAY, environment, directory / "relay.log"),
    ):
        invoices = [issued(cast) for _ in range(3)]
        await_(lambda: db.one(OPEN) == (0,))
    assert db.one("SELECT count(*) FROM journal_entry") == (len(invoices),)
    assert len(list((directory / "mail").glob("*.eml"))) == len(invoices)


# --- Redis behind TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pem(tmp_path_factory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def secure_redis(databases, pem) -> Iterator[Proxy]:
    with tls_proxy(databases.redis.port, pem) as proxy:
        yield proxy


def url_of(proxy: Proxy, databases, options: str) -> str:
    return databases.redis_url.replace("redis://", "rediss://").replace(str(databases.redis.port), str(proxy.port)) + options


@pytest.mark.slow
@pytest.mark.parametrize("options", ["?ssl_cert_reqs=none", "?ssl_cert_reqs=required&ssl_ca_certs={pem}"])
def test_promises_are_kept_over_a_redis_behind_tls(
    cast, broker, databases, secure_redis, pem, processes_environment, tmp_path, options
):
    url = url_of(secure_redis, databases, options.format(pem=pem))
    check_that_promises_are_kept(cast, {**processes_environment, "REDIS_URL": url}, tmp_path)
    assert secure_redis.connections >= 2


@pytest.mark.parametrize("options", ["?ssl_cert_reqs=none", "?ssl_cert_reqs=required&ssl_ca_certs={pem}"])
def test_limits_are_counted_in_a_redis_behind_tls(databases, secure_redis, pem, environment, options):
    url = url_of(secure_redis, databases, options.format(pem=pem))
    limits = Limits(Settings.load({**environment, "REDIS_URL": url, "RATELIMIT_PUBLIC": "5 per minute"}))
    caller = f"somebody behind {options}"
    standings = [limits.check(PUBLIC, caller) for _ in range(3)]
    assert [standing.remaining for standing in standings if standing] == [4, 3, 2]
    assert secure_redis.connections == 1


def test_a_certificate_that_nobody_vouches_for_is_refused(databases, secure_redis, environment):
    url = url_of(secure_redis, databases, "")
    limits = Limits(Settings.load({**environment, "REDIS_URL": url}))
    with pytest.raises(RedisConnectionError):
        limits._line.ask("PING")
    assert secure_redis.connections == 0


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------

needs_rabbitmq = pytest.mark.skipif(bool(rabbitmq.why_not()), reason=rabbitmq.why_not() or "here")


@pytest.fixture(scope="module")
def rabbitmq_url(tmp_path_factory) -> Iterator[str]:
    with rabbitmq.rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield url


@pytest.fixture
def on_rabbitmq(processes_environment, rabbitmq_url) -> dict[str, str]:
    return {**processes_environment, "BROKER_URL": rabbitmq_url}


@needs_rabbitmq
@pytest.mark.slow
def test_promises_are_kept_over_rabbitmq(cast, on_rabbitmq, tmp_path):
    check_that_promises_are_kept(cast, on_rabbitmq, tmp_path)


@needs_rabbitmq
@pytest.mark.slow
def test_rabbitmq_gives_the_message_of_a_killed_child_to_another(cast, on_rabbitmq, databases, tmp_path):
    issued(cast)
    [(promise,)] = db.rows("SELECT id FROM outbox WHERE queue = 'accounting'")
    with (
        running(WORKER, on_rabbitmq, tmp_path / "worker.log") as worker,
        running(RELAY, on_rabbitmq, tmp_path / "relay.log"),
    ):
        with closed_books(databases):
            await_(lambda: waiting_for_locks(databases) == 1)
            assert kill_children_of(worker.pid)
        assert await_(lambda: state(promise) == "confirmed") < 20, "it came back by its lease and not by the broker"
    assert db.one("SELECT count(*) FROM journal_entry") == (1,)


@needs_rabbitmq
@pytest.mark.slow
def test_beat_and_a_worker_meet_on_rabbitmq(on_rabbitmq, fresh_database, tmp_path):
    hasty = [part if part != "tasks" else "tests.tasks.hasty" for part in BEAT]
    with (
        running([*hasty, str(tmp_path / "schedule")], on_rabbitmq, tmp_path / "beat.log"),
        running(WORKER, on_rabbitmq, tmp_path / "worker.log"),
    ):
        await_(lambda: "holds expired" in (tmp_path / "worker.log").read_text())


@needs_rabbitmq
def test_the_queues_of_rabbitmq_are_quorum_queues_with_a_delivery_limit(on_rabbitmq):
    asked = "from tasks import app; print([(q.name, q.queue_arguments) for q in app.conf.task_queues])"
    found = subprocess.run([sys.executable, "-c", asked], env=on_rabbitmq, cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.count("'x-queue-type': 'quorum', 'x-delivery-limit': 10") == 5, found.stderr
