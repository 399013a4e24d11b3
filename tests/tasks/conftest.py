"""What the tests of the asynchronous side share: an empty outbox and an empty broker."""

from collections.abc import Iterator

import pytest
import redis

from fleet.embedded import Databases
from tasks import app as celery_app
from tasks.broker import Broker


@pytest.fixture
def broker(databases: Databases, fresh_database: None) -> Iterator[Broker]:
    """The broker with empty queues."""
    with redis.Redis.from_url(databases.redis_url) as client:
        client.flushdb()
    broker = Broker(celery_app)
    yield broker
    broker.close()
