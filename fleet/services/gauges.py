"""How the queues stand, as Prometheus reads it. Labels are queues, topics and classes of causes: few, and never words."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fleet.breakers import AUTO, HOST_PREFIX, WEBHOOKS
from fleet.services import circuit_breakers
from fleet.services.circuit_breakers import Sharing
from fleet.services.queues import SCRAPE_KEEPS_S, Picture, QueueState, Watch

# A cause beyond the most frequent ones counts as OTHER, so that no defect can make labels without end.
MOST_CAUSES, OTHER = 20, "Other"

_OF_QUEUE = {
    "waiting": ("fleet_queue_waiting", "Promises and webhook deliveries neither done nor dead; the count stops at 50000"),
    "due": ("fleet_queue_due", "Those of them that wait for a relay"),
    "oldest_age_s": ("fleet_queue_oldest_age_seconds", "Age of the oldest promise that waits, or since when a webhook is due"),
    "rate_per_minute": (
        "fleet_queue_rate_per_minute",
        "Promises confirmed, or webhooks delivered, a minute, over the last five",
    ),
    "dead": ("fleet_queue_dead", "Dead letters that nobody discarded, and dead webhook deliveries; each count stops at 50000"),
    "depth": ("fleet_queue_depth", "Messages that wait in the broker"),
    "consumers": ("fleet_queue_consumers", "Workers that serve the queue"),
    "paused": ("fleet_queue_paused", "Whether a relay holds the queue back, because it is too long in the broker"),
}


def of(watch: Watch, sharing: Sharing) -> list[Metric]:
    """Gauges of a look that is a few seconds old at most.

    What nobody knows at the moment is left out, and `fleet_source_up` says whose silence it is.
    """
    picture = watch.picture(keeps_s=SCRAPE_KEEPS_S)
    up = GaugeMetricFamily("fleet_source_up", "Whether it answered when the queues were looked at", labels=["source"])
    up.add_metric(["postgresql"], float(picture.counted is not None))
    up.add_metric(["broker"], float(picture.depths is not None))
    queues = [*_of_broker(picture), *_of_queues(picture.queues), *_of_letters(picture), *_of_processes(picture)]
    return [up, *queues, *_of_audit_log(picture), *_of_breakers(sharing)]


def _of_breakers(sharing: Sharing) -> Iterator[Metric]:
    """Over all processes, those of workers too. Hosts of webhooks count together: strangers choose their names."""
    picture = circuit_breakers.watched(sharing)
    is_open: Counter[str] = Counter()
    forced_s: dict[str, float] = {}
    for state in picture.breakers:
        label = WEBHOOKS if state.name.startswith(HOST_PREFIX) else state.name
        is_open[label] += state.state == "open"
        if state.control != AUTO and state.controlled_at:
            forced_s[label] = max(forced_s.get(label, 0.0), (picture.as_of - state.controlled_at).total_seconds())
    opened = GaugeMetricFamily("fleet_breaker_open", "Breakers that are open in any process", labels=["breaker"])
    forced = GaugeMetricFamily("fleet_breaker_forced_seconds", "Since when an operator holds it", labels=["breaker"])
    for label, count in is_open.items():
        opened.add_metric([label], float(count))
    for label, seconds in forced_s.items():
        forced.add_metric([label], seconds)
    yield opened
    yield forced


def _of_broker(picture: Picture) -> Iterator[Metric]:
    if picture.depths and picture.depths.unacknowledged is not None:
        held = picture.depths.unacknowledged
        yield GaugeMetricFamily("fleet_broker_unacknowledged", "Messages that workers hold", value=held)


def _of_queues(queues: list[QueueState]) -> Iterator[Metric]:
    for field, (name, words) in _OF_QUEUE.items():
        family = GaugeMetricFamily(name, words, labels=["queue"])
        for state in queues:
            # Nothing waits: the oldest is of no age. Only a silent broker's depth is not known.
            value = getattr(state, field)
            if value is not None or field != "depth":
                family.add_metric([f"{state.queue}"], float(value or 0))
        yield family
    words = "From promise to confirmation, for webhooks from when they were due to delivery, over the last five minutes"
    lag = GaugeMetricFamily("fleet_queue_lag_seconds", words, labels=["queue", "quantile"])
    for state in queues:
        for quantile, value in (("0.5", state.lag_p50_s), ("0.99", state.lag_p99_s)):
            if value is not None:
                lag.add_metric([f"{state.queue}", quantile], value)
    yield lag


def _of_letters(picture: Picture) -> Iterator[Metric]:
    letters = GaugeMetricFamily("fleet_dead_letters", "Dead letters that nobody discarded", labels=["topic"])
    oldest = GaugeMetricFamily("fleet_dead_letters_oldest_age_seconds", "How long the first has been dead", labels=["topic"])
    causes = GaugeMetricFamily("fleet_dead_letters_by_cause", "The same by the class of their cause", labels=["cause"])
    dead = picture.counted.dead if picture.counted else ()
    for topic in sorted({item.topic for item in dead}):
        of_topic = [item for item in dead if item.topic == topic]
        letters.add_metric([topic], sum(item.letters for item in of_topic))
        oldest.add_metric([topic], max(item.oldest_age_s for item in of_topic))
    by_cause: Counter[str] = Counter()
    for item in dead:
        by_cause[item.cause] += item.letters
    frequent = dict(by_cause.most_common(MOST_CAUSES))
    rest = by_cause.total() - sum(frequent.values())
    for cause, count in [*frequent.items(), *([(OTHER, rest)] if rest else [])]:
        causes.add_metric([cause], count)
    return iter((letters, oldest, causes))


def _of_processes(picture: Picture) -> Iterator[Metric]:
    if picture.counted is None:
        return
    kinds = Counter(process.kind for process in picture.counted.processes)
    yield GaugeMetricFamily("fleet_relays", "Relays that reported lately", value=kinds["relay"])
    yield GaugeMetricFamily("fleet_workers", "Workers that reported lately", value=kinds["worker"])
    # Wherever they run: what they count themselves is only seen where they share a directory with the web. No name comes twice,
    # so that a series never falls.
    words = "Promises that a relay rang for or a worker dealt with, webhooks and runs of sweeps, since the process began"
    handled = CounterMetricFamily("fleet_process_handled", words, labels=["process", "kind", "topic"])
    for process in picture.counted.processes:
        for topic, count in sorted(process.handled.items()):
            handled.add_metric([process.name, process.kind, topic], count)
    yield handled


def _of_audit_log(picture: Picture) -> Iterator[Metric]:
    if picture.counted is not None:
        words = "How long the oldest event of the audit log has waited for its seal"
        yield GaugeMetricFamily("fleet_audit_unsealed_seconds", words, value=picture.counted.unsealed_s)
