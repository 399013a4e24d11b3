"""gunicorn's master, which ends a worker only when another one can take its place.

gunicorn's own sends TERM to the old workers as soon as it has forked new ones, which then import the application: until they
have, nobody answers. And when the new code does not boot, it ends the whole service. It relies on the inside of the pinned
gunicorn, as `deploy/buffered_worker.py` does.
"""

import mmap
import os
import select
import signal
import time
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer

# The environment variable in which a new master (USR2) finds the pipe on which it says that it serves.
SUCCESSOR = "FLEET_SUCCESSOR_FD"
REST_S = 5.0


def give_mark(worker: Any) -> None:
    """Before the fork: a byte that master and worker share."""
    worker.mark = mmap.mmap(-1, 1)


def set_mark(worker: Any) -> None:
    """In a worker that has loaded the application: it can serve."""
    worker.mark[0] = 1


class PatientArbiter(Arbiter):
    """The master: HUP starts workers with new code, and an old one goes for each of them that has booted."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        announced = os.environ.pop(SUCCESSOR, "")
        self._predecessor = int(announced) if announced else None
        self._successor: int | None = None
        self._failed = False
        self._leaves_by: float | None = None
        self._rests_until = 0.0

    def handle_hup(self) -> None:
        """Read the settings again and start workers beside the old ones, without waiting for anything.

        A configuration that cannot be read changes nothing; gunicorn would end on it and leave its workers behind.
        """
        before = self.app.cfg
        try:
            self.app.reload()
            self.app.cfg.worker_class  # noqa: B018 - imports it, and raises
        except (Exception, SystemExit):
            self.app.cfg = before
            self.log.exception("The configuration cannot be read: nothing is reloaded")
            return
        self._stats["reloads"] += 1
        self.setup(self.app)
        self.log.reopen_files()
        for _ in range(self.cfg.workers):
            self.spawn_worker()

    def manage_workers(self) -> None:
        """Start what is missing, end the oldest of those that are too many: only ones that serve are counted for that."""
        if len(self.WORKERS) < self.num_workers and time.monotonic() >= self._rests_until:
            self.spawn_workers()
        serving = self._serving()
        for worker in serving[: max(0, len(serving) - self.num_workers)]:
            self.kill_worker(worker.pid, signal.SIGTERM)
        if self._predecessor is not None and len(serving) >= self.num_workers:
            self._say_that_we_serve(self._predecessor)
        if self._leaves_by is not None:
            self._make_way(self._leaves_by)

    def reap_workers(self) -> None:
        """Bury workers that ended. One that could not boot ends the service only when nobody else serves."""
        before = dict(self.WORKERS)
        self._look_at_successor()
        try:
            super().reap_workers()
        except HaltServer as halt:
            if not self._serving():
                raise
            for pid in before.keys() - self.WORKERS.keys():
                before[pid].tmp.close()
                self.cfg.child_exit(self, before[pid])
            self._rests_until = time.monotonic() + REST_S
            self.log.error("New workers do not boot, those that serve go on: %s", halt.reason)

    def reexec(self) -> None:
        """USR2: start a new master beside this one, with a pipe on which it says that it serves."""
        if self.reexec_pid or self.master_pid:
            super().reexec()
            return
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        self.cfg.env_orig[SUCCESSOR] = str(writer)
        super().reexec()
        del self.cfg.env_orig[SUCCESSOR]
        os.close(writer)
        if self._successor is not None:
            os.close(self._successor)
        self._successor = reader

    def handle_term(self) -> None:
        """End; after USR2 only when the new master serves, or the time for ending gracefully is over. Asked twice, at once."""
        if self._leaves_by is not None or not self.reexec_pid:
            raise StopIteration
        self._leaves_by = time.monotonic() + self.cfg.graceful_timeout

    def _serving(self) -> list[Any]:
        """The workers that have booted, the oldest first."""
        return sorted((worker for worker in self.WORKERS.values() if worker.mark[0]), key=lambda worker: worker.age)

    def _say_that_we_serve(self, pipe: int) -> None:
        self._predecessor = None
        try:
            os.write(pipe, b"!")
        except BrokenPipeError:
            self.log.info("The master before is gone already")
        os.close(pipe)

    def _look_at_successor(self) -> None:
        """Note how the new master ended, if it did: gunicorn only forgets it."""
        if self.reexec_pid:
            ended = os.waitid(os.P_PID, self.reexec_pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            self._failed = ended is not None and ended.si_status not in {0, signal.SIGTERM}

    def _make_way(self, leaves_by: float) -> None:
        """End if the new master serves, or was told to end as well. One that failed leaves nobody to make way for."""
        if not self.reexec_pid and self._failed:
            self.log.error("The new master ended before it served; this one goes on until the next TERM")
            self._leaves_by = None
        elif not self.reexec_pid or time.monotonic() >= leaves_by or self._successor_serves():
            raise StopIteration

    def _successor_serves(self) -> bool:
        """Whether the new master said so. One that ended without a word closed the pipe, and may not be buried yet."""
        pipe = self._successor
        return pipe is not None and bool(select.select([pipe], [], [], 0)[0]) and os.read(pipe, 1) != b""
