"""The parts of the benchmark: each measures something of the service beside a peer and reports it against its bar."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import psutil

from fleet.config import Settings
from tests.load import backlog, renting
from tests.load import lag as lags
from tests.load.arena import WORKERS, Arena, python
from tests.load.bars import Report
from tests.load.contest import Contender, Contest, Render, endless, hold, over_http
from tests.load.http_load import Outcome, drive, request
from tests.load.limit import limit
from tests.load.renting import CLERKS, Clerks

CROWD = 500
GREETINGS = 6
HELLO, MODELS = request("GET", "/hello"), request("GET", "/rentals")


@dataclass(frozen=True)
class Effort:
    """How long and how often to measure."""

    rounds: int
    seconds: float
    crowds: int


FULL, QUICK = Effort(rounds=5, seconds=1.6, crowds=3), Effort(rounds=2, seconds=1.0, crowds=1)


@dataclass
class Bench:
    """One run: the arena, its servers, which start when somebody needs them, and what was found."""

    arena: Arena
    effort: Effort
    report: Report

    @cached_property
    def clerks(self) -> Clerks:
        return Clerks(Settings.load(self.arena.environment))

    @cached_property
    def web(self) -> int:
        """The service, as it is deployed, in the middle of its day: each process has seen each clerk's token before."""
        port = self.arena.gunicorn("web", "wsgi:app")
        drive(port, [self.clerks.get("/v1/auth/me") for _ in range(GREETINGS * CLERKS)], clients=16)
        return port

    @cached_property
    def flask(self) -> int:
        """Flask as others serve it: by gunicorn's own threads."""
        return self.arena.gunicorn("flask", "tests.load.peer_flask:app", "--worker-class", "gthread")

    @cached_property
    def bare(self) -> int:
        """Our own handler without our layers, served as the service is."""
        return self.arena.gunicorn("bare", "tests.load.peer_flask:app")

    @cached_property
    def asyncpg(self) -> int:
        return self.arena.uvicorn("asyncpg", "tests.load.peer_asyncpg:app")

    @cached_property
    def full_rate(self) -> float:
        """Reservations a second that eight clients reach when nothing else goes on."""
        return drive(self.web, endless(self.clerks.reservation), clients=8, seconds=2 * self.effort.seconds).rate

    def asked(self, name: str, server: str, render: Render, *, expected: int = 200) -> Contender:
        """A contender that one of our servers is, for the requests that `render` makes."""
        port: int = getattr(self, server)
        return over_http(name, port, render, expected=expected, worked=lambda: self.arena.worked(server))

    def hold(self, contenders: list[Contender], clients: int) -> Contest:
        contest = hold(contenders, clients=clients, seconds=self.effort.seconds, rounds=self.effort.rounds)
        for what, count in contest.wrong().items():
            self.report.add("wrong", count, f"{what} with {clients} clients")
        return contest


def reservation(bench: Bench) -> None:
    """The service, the limit, an asynchronous peer and our own handler without layers."""
    contenders = [
        bench.asked("service", "web", bench.clerks.reservation, expected=201),
        limit(bench.arena),
        bench.asked("asyncpg", "asyncpg", bench.clerks.bare_reservation, expected=201),
        bench.asked("handler", "bare", bench.clerks.bare_reservation, expected=201),
    ]
    for clients in (8, 32):
        contest = bench.hold(contenders, clients)
        _against(bench, contest, f"reservation_{clients}", "limit")
        _against(bench, contest, f"asyncpg_{clients}", "asyncpg")
        if clients == 8:
            _against(bench, contest, "layers_8", "handler")
            p50, p99 = contest.latency_ms("service")
            bench.report.add("evenness", p99 / p50, f"p50 {p50:.1f} ms, p99 {p99:.1f} ms")


def reads(bench: Bench) -> None:
    """Single reads, a list and availability beside Flask with nothing around it."""
    clerks = bench.clerks
    contenders = [
        bench.asked("Flask", "flask", lambda: HELLO),
        bench.asked("vehicle", "web", lambda: clerks.get(renting.random_vehicle())),
        bench.asked("rental", "web", lambda: clerks.get(renting.random_rental())),
        bench.asked("list", "web", lambda: clerks.get("/v1/rentals?limit=50")),
        bench.asked("models", "flask", lambda: MODELS),
        bench.asked("availability", "web", lambda: clerks.get(renting.random_window())),
    ]
    contest = bench.hold(contenders, 8)
    for name in ("vehicle", "rental", "list", "availability"):
        _against(bench, contest, name, "Flask", name)
    _against(bench, contest, "list_models", "models", "list")


def _against(bench: Bench, contest: Contest, key: str, other: str, name: str = "service") -> None:
    rates = f"{contest.rate(name):.0f} / {contest.rate(other):.0f} a second, rounds {contest.spread(name, other)}"
    work = f"{contest.work_us(name) / 1000:.2f} / {contest.work_us(other) / 1000:.2f} ms of Python"
    bench.report.add(key, contest.ratio(name, other), f"{rates}, {work}" if contest.work_us(other) else rates)


def crowd(bench: Bench) -> None:
    """Five hundred who want one vehicle at one time, and five hundred who want different ones."""
    rushes, calm = [], []
    for turn in range(bench.effort.crowds):
        start_at = renting.first_day() - timedelta(days=100 - turn)
        wish = bench.clerks.wish(turn, start_at)
        rushes.append(_rush(bench, [bench.clerks.reservation(body=wish) for _ in range(CROWD)]))
        calm.append(_rush(bench, [bench.clerks.reservation() for _ in range(CROWD)]))
    seconds = [rush.seconds for rush in rushes]
    bench.report.add("crowd_seconds", max(seconds), f"the slowest of {len(rushes)}; median {statistics.median(seconds):.2f} s")
    worst = min(rushes, key=_as_it_should)
    bench.report.add("crowd_answers", _as_it_should(worst), f"{dict(sorted(worst.statuses.items()))}, {worst.lost} lost")
    ratios = [rush.seconds / free.seconds for rush, free in zip(rushes, calm, strict=True)]
    free = statistics.median(free.seconds for free in calm)
    bench.report.add("crowd_ratio", statistics.median(ratios), f"500 free ones took {free:.2f} s")


def _rush(bench: Bench, requests: list[bytes]) -> Outcome:
    return drive(bench.web, requests, clients=CROWD)


def _as_it_should(rush: Outcome) -> int:
    return min(rush.statuses[201], 1) + min(rush.statuses[409], CROWD - 1)


def memory(bench: Bench) -> None:
    """What each web worker holds after all threads have worked."""
    drive(bench.web, endless(bench.clerks.reservation), clients=32, seconds=bench.effort.seconds)
    drive(bench.web, endless(lambda: bench.clerks.get("/v1/rentals?limit=50")), clients=32, seconds=bench.effort.seconds)
    workers = psutil.Process(bench.arena.pid("web")).children()
    held = [worker.memory_full_info() for worker in workers]
    sizes = [(getattr(info, "pss", info.uss) / 1e6, info.uss / 1e6) for info in held]
    behind = ", ".join(f"{pss:.0f} (its own alone {uss:.0f})" for pss, uss in sizes)
    bench.report.add("memory", max(pss for pss, _ in sizes), f"{len(workers)} of {WORKERS} workers: {behind}")


def lag(bench: Bench) -> None:
    """From commit to effect, at half load: entries in the ledger, and letters."""
    if not lags.can_be_measured():
        bench.report.notes.append("There is no relay yet: the lag was not measured.")
        return
    seconds = 4 * bench.effort.seconds
    found = lags.lag(bench.arena, bench.web, bench.clerks, full_rate=bench.full_rate, seconds=seconds)
    for queue, key in (("accounting", "lag"), ("notifications", "letters")):
        each = found[queue]
        behind = f"{each.promises} promises in {seconds:.0f} s, {each.unconfirmed} not confirmed"
        bench.report.add(f"{key}_median", each.median_ms, behind)
        bench.report.add(f"{key}_p99", each.p99_ms)


def behind_letters(bench: Bench) -> None:
    """New postings while a backlog of letters drains."""
    found = backlog.backlog(bench.arena, letters=backlog.BACKLOG, seconds=8 * bench.effort.seconds)
    letters = f"{found.rate:.0f} letters a second meanwhile"
    postings = f"{found.postings} postings, median {1000 * found.median_s:.0f} ms, {found.unconfirmed} not confirmed"
    bench.report.add("backlog_slowest", 1000 * found.slowest_s, f"{postings}, {letters}")


def layers(bench: Bench) -> None:
    """What each layer costs in one process, and how many statements requests send."""
    output = bench.arena.directory / "layers.json"
    bench.arena.run("layers", python("tests.load.layers", str(output)))
    found = json.loads(output.read_text())
    costs: dict[str, tuple[float, float]] = found["layers_us"]
    bench.report.notes += ["", " elapsed  Python's  (microseconds; the difference is waiting for PostgreSQL or Redis)"]
    bench.report.notes += [f"{elapsed:8.0f}  {own:8.0f}  {name}" for name, (elapsed, own) in costs.items()]
    sent: dict[str, int] = found["statements"]
    counted = "the check of who acts travels with the first; BEGIN and COMMIT are not counted"
    bench.report.add("statements_reservation", sent["reservation"], counted)
    bench.report.add("statements_list", sent["list"], counted)
    bench.report.add("statements_read", max(sent["rental"], sent["vehicle"]), counted)


PARTS: dict[str, Callable[[Bench], None]] = {
    "reservation": reservation,
    "reads": reads,
    "crowd": crowd,
    "memory": memory,
    "lag": lag,
    "backlog": behind_letters,
    "layers": layers,
}
