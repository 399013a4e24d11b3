"""The four golden signals and what the operators of a rental fleet watch, for Prometheus, over all processes together."""

import os
from collections.abc import Iterable
from functools import lru_cache

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client import REGISTRY as PROCESS_REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

LATENCY = Histogram("fleet_http_request_seconds", "Time to answer", ["operation"], buckets=_BUCKETS_S)
ANSWERS = Counter("fleet_http_responses_total", "Answers by status (traffic and errors)", ["operation", "status"])
BUSY = Gauge("fleet_http_busy_threads", "Threads that are at work (saturation)", multiprocess_mode="livesum")
THREADS = Gauge("fleet_http_threads", "Threads that can answer (saturation)", multiprocess_mode="livesum")
REFUSED = Counter("fleet_http_refused_total", "Requests refused because of too much to do, by priority", ["priority"])
DELIVERIES = Counter("fleet_outbox_deliveries_total", "Messages handled", ["topic", "outcome"])
LAG = Histogram(
    "fleet_outbox_lag_seconds", "From commit to effect", ["topic"], buckets=(*_BUCKETS_S, 10.0, 30.0, 60.0, 300.0)
)
WEBHOOK_ATTEMPTS = Counter("fleet_webhook_attempts_total", "Attempts to send an event", ["outcome"])
WEBHOOKS_DISABLED = Counter("fleet_webhooks_disabled_total", "Endpoints switched off by themselves", ["reason"])
NOTIFICATIONS = Counter(
    "fleet_notifications_total", "Letters and text messages by outcome", ["kind", "channel", "outcome"]
)

BREAKERS = Gauge("fleet_breaker_state", "0 closed, 2 open, in the worst process", ["breaker"], multiprocess_mode="livemax")
TURNED_AWAY = Counter("fleet_bulkhead_refused_total", "Calls refused because too many were under way", ["dependency"])
BREAKER_CHANGES = Counter("fleet_breaker_changes_total", "Changes of a breaker, by its new state", ["breaker", "state"])
RUN_AGAIN = Counter("fleet_transactions_run_again_total", "Undone to end a deadlock, and done again", ["sqlstate"])
REPLICA_READS = Counter("fleet_replica_reads_total", "Lists and reports, by what became of asking the replica", ["outcome"])

LOOKS = Counter("fleet_cache_looks_total", "Looks into a cache by what came of them", ["namespace", "outcome"])


@lru_cache(maxsize=1024)
def latency_of(operation: str) -> Histogram:
    """The kept child: a label look-up at each request costs more than the observation."""
    return LATENCY.labels(operation)


@lru_cache(maxsize=4096)
def answers_of(operation: str, status: int) -> Counter:
    return ANSWERS.labels(operation, str(status))


@lru_cache(maxsize=100)
def looks_of(namespace: str, outcome: str) -> Counter:
    return LOOKS.labels(namespace, outcome)


class _Given:
    """Gauges that are read at the scrape: they are the same whichever process answers it, so no process keeps them."""

    def __init__(self, gauges: Iterable[Metric]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        return self._gauges


def exposition(gauges: Iterable[Metric]) -> tuple[bytes, str]:
    """All processes' figures, and these gauges, as Prometheus text, and its content type."""
    registry = _all_processes()
    given = CollectorRegistry()
    given.register(_Given(gauges))
    return generate_latest(registry) + generate_latest(given), CONTENT_TYPE_LATEST


def looks() -> dict[tuple[str, str], int]:
    """How many looks each (namespace, outcome) has had, in all web processes of this instance since it started."""
    families = _all_processes().collect()
    samples = [sample for family in families if family.name == "fleet_cache_looks" for sample in family.samples]
    return {
        (sample.labels["namespace"], sample.labels["outcome"]): int(sample.value)
        for sample in samples
        if sample.name.endswith("_total")
    }


def _all_processes() -> CollectorRegistry:
    if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        return PROCESS_REGISTRY
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry
