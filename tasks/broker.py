"""The broker as the relay sees it: how long a queue is, and one message more for it. No call waits for long."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import KombuError

CONNECT_ATTEMPTS, CONNECT_TIMEOUT_S = 1, 2


class BrokerAway(Exception):
    """The broker does not answer, or takes nothing."""


class Broker:
    """One connection, made when it is first needed and again after every failure."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection: Connection | None = None
        self._producer: Producer | None = None

    def depth(self, queue: str) -> int:
        """How many messages wait in the queue. Raises BrokerAway."""
        with self._producing() as producer:
            declared = self._app.amqp.queues[queue].bind(producer.channel).queue_declare()
            return int(declared.message_count)

    def publish(self, topic: str, queue: str, ids: Sequence[str]) -> None:
        """Ring for these promises with one message. Raises BrokerAway; the message may have gone out all the same."""
        shown = f"({len(ids)} promises from {ids[0]})"  # in Flower; to show them all would cost more than to send them
        with self._producing() as producer:
            self._app.send_task(topic, (list(ids),), queue=queue, producer=producer, retry=False, argsrepr=shown)

    def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            with suppress(Exception):
                connection.release()

    @contextmanager
    def _producing(self) -> Iterator[Producer]:
        connection = self._connection or self._app.connection_for_write()
        try:
            if self._producer is None:
                connection.ensure_connection(max_retries=CONNECT_ATTEMPTS, timeout=CONNECT_TIMEOUT_S)
                self._connection, self._producer = connection, self._app.amqp.Producer(connection)
            yield self._producer
        except (*connection.connection_errors, *connection.channel_errors, KombuError, OSError) as error:
            self.close()
            raise BrokerAway(type(error).__name__) from error
