"""Contenders measured side by side: A B C, A B C, again and again, because only ratios within one round mean anything."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.load.http_load import Outcome, drive

RENDERED_AT_FIRST = 1500
Render = Callable[[], bytes]
Worked = Callable[[], float]


@dataclass(frozen=True)
class Sample:
    """One contender, once: answers a second, latencies in milliseconds, answers that nobody should have got.

    `work_us` is the processor time that its processes spent on an answer: it hardly changes when others keep the machine
    busy, which the rate does. PostgreSQL's is not in it.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    wrong: dict[str, int] = field(default_factory=dict)
    work_us: float = 0.0


@dataclass
class Contender:
    """Somebody who can be measured with so many clients for so many seconds."""

    name: str
    measure: Callable[[int, float], Sample]


@dataclass
class Contest:
    """What several rounds of one contest gave, contender by contender."""

    samples: dict[str, list[Sample]]

    def rate(self, name: str) -> float:
        """The median rate of a contender."""
        return statistics.median(sample.rate for sample in self.samples[name])

    def ratio(self, name: str, other: str) -> float:
        """The median of the ratios of each round."""
        return statistics.median(self._ratios(name, other))

    def spread(self, name: str, other: str) -> str:
        """The lowest and the highest ratio of the rounds."""
        ratios = self._ratios(name, other)
        return f"{min(ratios):.2f}–{max(ratios):.2f}"

    def work_us(self, name: str) -> float:
        """The median of the processor time that a contender spends on an answer, in microseconds."""
        return statistics.median(sample.work_us for sample in self.samples[name])

    def latency_ms(self, name: str) -> tuple[float, float]:
        """The medians, over the rounds, of the median and of the 99th percentile."""
        samples = self.samples[name]
        return statistics.median(s.p50_ms for s in samples), statistics.median(s.p99_ms for s in samples)

    def wrong(self) -> dict[str, int]:
        """Answers that nobody should have got, by contender and status."""
        found: dict[str, int] = {}
        for name, samples in self.samples.items():
            for status, count in itertools.chain.from_iterable(sample.wrong.items() for sample in samples):
                found[f"{name}: {status}"] = found.get(f"{name}: {status}", 0) + count
        return found

    def _ratios(self, name: str, other: str) -> list[float]:
        pairs = zip(self.samples[name], self.samples[other], strict=True)
        return [mine.rate / theirs.rate for mine, theirs in pairs if theirs.rate]


def hold(contenders: list[Contender], *, clients: int, seconds: float, rounds: int) -> Contest:
    """Let all contenders warm up, then measure them in turns."""
    for contender in contenders:
        contender.measure(clients, min(0.4, seconds))
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for _ in range(rounds):
        for contender in contenders:
            samples[contender.name].append(contender.measure(clients, seconds))
    return Contest(samples)


def over_http(name: str, port: int, render: Render, *, expected: int = 200, worked: Worked = lambda: 0.0) -> Contender:
    """A contender that is asked over HTTP. As many requests are rendered beforehand as the last time asks for.

    `worked` tells how many seconds of processor time its processes have used so far.
    """
    most_a_second = RENDERED_AT_FIRST

    def measure(clients: int, seconds: float) -> Sample:
        nonlocal most_a_second
        rendered = [render() for _ in range(int(most_a_second * seconds) + 100)]
        before = worked()
        outcome = drive(port, rendered, clients=clients, seconds=seconds)
        most_a_second = max(most_a_second, int(1.5 * outcome.rate))
        return sample_of(outcome, expected, worked() - before)

    return Contender(name, measure)


def sample_of(outcome: Outcome, expected: int, work_s: float) -> Sample:
    wrong = {f"{status}": count for status, count in outcome.statuses.items() if status != expected}
    if outcome.lost:
        wrong["no answer"] = outcome.lost
    work_us = 1e6 * work_s / max(1, sum(outcome.statuses.values()))
    return Sample(outcome.rate, outcome.percentile_ms(0.5), outcome.percentile_ms(0.99), wrong, work_us)


def endless(render: Render) -> Iterator[bytes]:
    """Rendered as they are sent: for what is not measured."""
    while True:
        yield render()
