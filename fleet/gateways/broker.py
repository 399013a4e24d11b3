"""The broker as the web sees it: how many messages wait in its queues. It never waits for long, whatever the broker does.

Workers and relays have their own, patient connections; this one is asked while somebody waits for the page.
"""

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kombu import Connection

from fleet import breakers

log = logging.getLogger("fleet.broker")

# What Celery puts before every key of ours in Redis; a test holds the two together.
KEY_PREFIX = "fleet:"
CONNECT_TIMEOUT_S = 0.3
ANSWER_TIMEOUT_S = 0.3
TOTAL_TIMEOUT_S = 0.8
_NOT_FOUND = 404


class Depths(NamedTuple):
    """Messages that wait, by queue, and those that workers hold; None where the broker cannot tell."""

    waiting: dict[str, int]
    unacknowledged: int | None


class BrokerGauge:
    """Asks in a thread of its own: name resolution and retries in libraries keep to no timeout, but the caller does.

    One question at a time: while a broker hangs, its one thread hangs, and everybody else hears that it does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._asking = threading.Lock()

    def ask(self, queues: Sequence[str]) -> "Asked":
        """Begin to ask; `Asked.depths` is the answer. Never raises."""
        asked = Asked()
        if self._asking.acquire(blocking=False):
            threading.Thread(target=self._find_out, args=(asked, tuple(queues)), name="broker-gauge", daemon=True).start()
        else:
            asked.done.set()
        return asked

    def _find_out(self, asked: "Asked", queues: tuple[str, ...]) -> None:
        try:
            asked.found = breakers.breaker(breakers.BROKER).call(_depths, self._url, queues)
        except Exception as error:  # drivers raise what they like, and the answer is the same: nobody knows
            log.info("the broker does not tell its depth", extra={"cause": type(error).__name__})
        finally:
            self._asking.release()
            asked.done.set()


class Asked:
    """An answer that may be still to come."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: Depths | None = None

    def depths(self, timeout_s: float = TOTAL_TIMEOUT_S) -> Depths | None:
        """The answer, or None when there is none within `timeout_s`."""
        self.done.wait(timeout_s)
        return self.found


def _depths(url: str, queues: Sequence[str]) -> Depths:
    connection = Connection(url, connect_timeout=CONNECT_TIMEOUT_S, transport_options=_options(url))
    try:
        # No second try and no pause before it: the default is to try for ever.
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=CONNECT_TIMEOUT_S)
        waiting = {queue: _depth(connection, queue) for queue in queues}
        return Depths(waiting, _unacknowledged(connection))
    finally:
        with suppress(Exception):
            connection.release()


def _options(url: str) -> dict[str, Any]:
    if url.startswith("amqp"):
        return {"read_timeout": ANSWER_TIMEOUT_S, "write_timeout": ANSWER_TIMEOUT_S}
    return {
        "global_keyprefix": KEY_PREFIX,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "max_connections": 2,
    }


def _depth(connection: Connection, queue: str) -> int:
    channel = connection.channel()
    try:
        # AMQP: passively, so that asking makes no queue and needs not know how it was made. On Redis asking makes none anyway,
        # and kombu's passive question forgets the prefix of our keys: to it no queue of ours would ever be there.
        passive = getattr(channel, "unacked_key", None) is None
        return int(channel.queue_declare(queue=queue, passive=passive).message_count)
    except connection.channel_errors as error:
        if getattr(error, "reply_code", None) == _NOT_FOUND:
            return 0
        raise
    finally:
        with suppress(Exception):
            channel.close()


def _unacknowledged(connection: Connection) -> int | None:
    """Redis keeps what workers hold in one hash for all queues; AMQP does not tell."""
    channel: Any = connection.default_channel
    key = getattr(channel, "unacked_key", None)
    return int(channel.client.hlen(key)) if key else None
