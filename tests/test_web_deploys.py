"""New code comes in under load: no request fails, none waits for the new code to boot.

Code that does not boot changes nothing.
"""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from deploy.arbiter import PatientArbiter
from fleet.embedded.server import usable_port

ROOT = Path(__file__).parents[1]
BOOT_S = 2.0
WAIT_S = 20

SITE = """
import time
time.sleep({boot_s})
{more}


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{version}"]
"""


@dataclass
class Seen:
    """What a client saw: the answers, what failed, and the longest wait, in seconds."""

    answers: list[bytes] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0

    def ask(self, client: http.client.HTTPConnection) -> None:
        started = time.monotonic()
        try:
            client.request("GET", "/")
            self.answers.append(client.getresponse().read())
        except (OSError, http.client.HTTPException) as failure:
            self.failures.append(repr(failure))
            client.close()
        self.longest_s = max(self.longest_s, time.monotonic() - started)


class Site:
    """gunicorn as it is deployed, in front of an application that takes BOOT_S to import."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = usable_port(None)
        self.log = directory / "log"
        self.config = directory / "gunicorn.conf.py"
        shutil.copy(ROOT / "deploy" / "gunicorn.conf.py", self.config)

    def write(self, version: str, *, boot_s: float = BOOT_S, more: str = "") -> None:
        """The code of a release."""
        (self.directory / "site_of_test.py").write_text(SITE.format(boot_s=boot_s, version=version, more=more))

    def start(self) -> None:
        environment = {
            **os.environ,
            "PORT": str(self.port),
            "FLEET_ENV": "test",
            "WEB_CONCURRENCY": "2",
            "WEB_THREADS": "4",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONPATH": str(self.directory),
        }
        command = [str(Path(sys.executable).with_name("gunicorn")), "--config", str(self.config), "site_of_test:app"]
        with self.log.open("ab") as log:
            self.master = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log, start_new_session=True)

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def version(self) -> bytes:
        """Who answers; empty when nobody does."""
        seen = Seen()
        client = self.client()
        seen.ask(client)
        client.close()
        return seen.answers[0] if seen.answers else b""

    @contextmanager
    def load(self) -> Iterator[list[Seen]]:
        """Clients that keep their connection and clients that take a new one for each request, until the block ends."""
        over = threading.Event()
        seen = [Seen() for _ in range(4)]

        def work(mine: Seen, *, keeps: bool) -> None:
            client = self.client()
            while not over.is_set():
                mine.ask(client)
                if not keeps:
                    client.close()
                time.sleep(0.005)
            client.close()

        workers = [threading.Thread(target=work, args=(mine,), kwargs={"keeps": n % 2}) for n, mine in enumerate(seen)]
        for worker in workers:
            worker.start()
        try:
            yield seen
        finally:
            over.set()
            for worker in workers:
                worker.join()


def await_(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site whose first release serves; every process of it ends with the test."""
    site = Site(tmp_path)
    site.write("first", boot_s=0)
    site.start()
    try:
        await_(lambda: site.version() == b"first")
        yield site
    finally:
        with suppress(ProcessLookupError):
            os.killpg(site.master.pid, signal.SIGTERM)
        site.master.wait(WAIT_S)
        with suppress(ProcessLookupError):
            os.killpg(site.master.pid, signal.SIGKILL)


def nobody_noticed(seen: list[Seen]) -> bool:
    assert [failure for one in seen for failure in one.failures] == []
    assert all(one.answers[0] == b"first" and one.answers[-1] == b"second" for one in seen)
    assert max(one.longest_s for one in seen) < BOOT_S / 2
    return True


@pytest.mark.slow
def test_old_workers_answer_until_new_ones_have_booted(site: Site) -> None:
    workers = [child.pid for child in psutil.Process(site.master.pid).children()]
    site.write("second")
    with site.load() as seen:
        site.master.send_signal(signal.SIGHUP)
        await_(lambda: not any(psutil.pid_exists(pid) for pid in workers))
        await_(lambda: all(one.answers[-1] == b"second" for one in seen))
    assert nobody_noticed(seen)


@pytest.mark.slow
def test_an_old_master_that_is_told_to_end_waits_for_the_new_one(site: Site) -> None:
    site.write("second")
    with site.load() as seen:
        site.master.send_signal(signal.SIGUSR2)
        time.sleep(0.2)
        site.master.send_signal(signal.SIGTERM)
        assert site.master.wait(WAIT_S) == 0
        await_(lambda: all(one.answers[-1] == b"second" for one in seen))
    assert nobody_noticed(seen)


@pytest.mark.slow
def test_a_new_master_that_fails_leaves_the_old_one_serving(site: Site) -> None:
    config = site.config.read_text()
    site.config.write_text("this is no Python")
    with site.load() as seen:
        site.master.send_signal(signal.SIGUSR2)
        site.master.send_signal(signal.SIGTERM)
        await_(lambda: "The new master ended before it served" in site.log.read_text())
        site.config.write_text(config)
        site.write("second", boot_s=0)
        site.master.send_signal(signal.SIGHUP)
        await_(lambda: all(one.answers[-1] == b"second" for one in seen))
    assert nobody_noticed(seen)
    site.master.terminate()
    assert site.master.wait(WAIT_S) == 0


def test_a_new_master_that_ended_without_a_word_is_not_taken_for_one_that_serves() -> None:
    """Its end of the pipe closes a moment before its parent hears that it ended."""
    master = PatientArbiter.__new__(PatientArbiter)
    master.reexec_pid, master._failed = os.getpid(), False
    master._successor, writer = os.pipe()
    leaves_by = time.monotonic() + WAIT_S
    try:
        master._make_way(leaves_by)  # nothing said yet
        os.write(writer, b"!")
        with pytest.raises(StopIteration):
            master._make_way(leaves_by)
        os.close(writer)
        master._make_way(leaves_by)
    finally:
        os.close(master._successor)


@pytest.mark.slow
def test_code_that_does_not_boot_leaves_the_old_workers_serving(site: Site) -> None:
    site.write("broken", boot_s=0, more="import no_such_module")
    with site.load() as seen:
        site.master.send_signal(signal.SIGHUP)
        await_(lambda: site.log.read_text().count("New workers do not boot") == 2)
        config = site.config.read_text()
        site.config.write_text("this is no Python")
        site.master.send_signal(signal.SIGHUP)
        await_(lambda: "The configuration cannot be read" in site.log.read_text())
        site.config.write_text(config)
        site.write("second", boot_s=0)
        site.master.send_signal(signal.SIGHUP)
        await_(lambda: all(one.answers[-1] == b"second" for one in seen))
    assert nobody_noticed(seen)


def test_a_shutdown_does_not_wait_for_workers_that_boot(site: Site) -> None:
    site.write("second", boot_s=15)
    before = len(psutil.Process(site.master.pid).children())
    site.master.send_signal(signal.SIGHUP)
    await_(lambda: len(psutil.Process(site.master.pid).children()) > before)
    time.sleep(0.5)
    started = time.monotonic()
    site.master.terminate()
    assert site.master.wait(WAIT_S) == 0
    assert time.monotonic() - started < 8
