"""The broker's depth, whatever the broker does: it tells, or nobody waits for it."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from fleet.embedded import Databases
from fleet.gateways.broker import KEY_PREFIX, TOTAL_TIMEOUT_S, BrokerGauge, Depths
from fleet.services import outbox
from tasks import app as celery_app
from tasks.broker import Broker

QUEUES = ("accounting", "default")
# What a busy machine adds.
SLACK_S = 0.5


@pytest.fixture
def gauge(databases: Databases, fresh_database: None) -> BrokerGauge:
    with redis.Redis.from_url(databases.redis_url) as client:
        client.flushdb()
    return BrokerGauge(databases.redis_url)


@contextmanager
def frozen(databases: Databases) -> Iterator[None]:
    """Redis keeps its sockets open and says nothing."""
    with redis.Redis.from_url(databases.redis_url) as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def told_within_the_time(gauge: BrokerGauge) -> Depths | None:
    started = time.monotonic()
    found = gauge.ask(QUEUES).depths()
    assert time.monotonic() - started < TOTAL_TIMEOUT_S + SLACK_S
    return found


def test_it_counts_the_messages_that_celery_left(gauge: BrokerGauge) -> None:
    broker = Broker(celery_app)
    for _ in range(3):
        broker.publish("accounting.post_invoice", "accounting", ["01a2175a-3166-71f2-8520-7980a10af0f7"])
    broker.close()
    assert told_within_the_time(gauge) == Depths({"accounting": 3, "default": 0}, 0)


def test_it_counts_what_workers_hold(gauge: BrokerGauge) -> None:
    with celery_app.connection_for_read() as connection:
        channel = connection.channel()
        queue = celery_app.amqp.queues["accounting"].bind(channel)
        Broker(celery_app).publish("accounting.post_invoice", "accounting", ["01a2175a-3166-71f2-8520-7980a10af0f7"])
        message = queue.get(no_ack=False)
        found = told_within_the_time(gauge)
        message.ack()
    assert found == Depths({"accounting": 0, "default": 0}, 1)


def test_the_prefix_of_its_keys_is_the_workers(gauge: BrokerGauge) -> None:
    assert celery_app.conf.broker_transport_options["global_keyprefix"] == KEY_PREFIX


def test_a_frozen_broker_keeps_nobody(gauge: BrokerGauge, databases: Databases) -> None:
    with frozen(databases):
        for _ in range(3):
            assert told_within_the_time(gauge) is None
    assert_it_tells_again(gauge)


def test_a_broker_that_is_gone_keeps_nobody(gauge: BrokerGauge, databases: Databases) -> None:
    databases.redis.stop()
    try:
        assert told_within_the_time(gauge) is None
    finally:
        databases.redis.start()
    assert_it_tells_again(gauge)


@pytest.mark.parametrize("url", ["amqp://guest:guest@127.0.0.1:{port}//", "redis://127.0.0.1:{port}/0"])
def test_one_that_accepts_and_says_nothing_keeps_nobody(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        assert told_within_the_time(BrokerGauge(url.format(port=deaf.getsockname()[1]))) is None


def test_while_one_question_hangs_the_next_does_not_wait_for_it(gauge: BrokerGauge, databases: Databases) -> None:
    with frozen(databases):
        first = gauge.ask(QUEUES)
        started = time.monotonic()
        assert gauge.ask(QUEUES).depths() is None
        assert time.monotonic() - started < 0.1
        assert first.depths() is None


def test_every_queue_of_the_outbox_can_be_asked_for(gauge: BrokerGauge) -> None:
    found = gauge.ask(outbox.QUEUES).depths()
    assert found is not None and set(found.waiting) == set(outbox.QUEUES)


def assert_it_tells_again(gauge: BrokerGauge) -> None:
    deadline = time.monotonic() + 5
    while gauge.ask(QUEUES).depths() is None:
        assert time.monotonic() < deadline, "it never told again"
        time.sleep(0.05)
