"""Who owns a directory of databases, and the end of processes whose owner was killed."""

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

# Every process that is started for a directory carries the directory's path under this name in its environment.
MARK = "FLEET_EMBEDDED_DIRECTORY"
LOCK_FILE = "lock"
GRACE_S = 10
POLL_S = 0.02

_claimed_here: set[Path] = set()


class InUse(Exception):
    """Another process runs its databases in this directory."""


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Own `directory` for as long as the block runs, after ending what a killed earlier owner left running there.

    Raises InUse when it has an owner already, in this process or another.
    """
    # The system's lock is the process's: closing a second handle on the file would drop it. So look here first.
    if directory in _claimed_here:
        raise InUse(f"{directory} is in use by this very process.")
    with (directory / LOCK_FILE).open("a+") as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise InUse(f"{directory} is in use by process {lock.read()}. Stop that one first.") from None
        _claimed_here.add(directory)
        try:
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            _reap(directory)
            yield
        finally:
            _claimed_here.discard(directory)


@contextmanager
def queued(path: Path) -> Iterator[None]:
    """Wait until no other process is in a block with the same lock file."""
    with path.open("a") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        yield


def marked(directory: Path) -> list[psutil.Process]:
    """The living processes that were started for `directory`, without this one and those above it."""
    ourselves = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [found for found in psutil.process_iter() if found.pid not in ourselves and _belongs(found, directory)]


def _belongs(process: psutil.Process, directory: Path) -> bool:
    try:
        # PostgreSQL's own children write their titles over the environment, but all of them work in its data directory.
        if process.name() == "postgres":
            return directory in Path(process.cwd()).parents
        return bool(process.environ().get(MARK) == str(directory))
    except (psutil.Error, OSError):
        return False  # another user's, or gone


def _reap(directory: Path) -> None:
    stale = marked(directory)
    for process in stale:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGCONT)  # a frozen process hears nothing until it is woken
            # On TERM PostgreSQL would wait for its clients to leave.
            process.send_signal(signal.SIGINT if process.name() == "postgres" else signal.SIGTERM)
    for process in _await_end(stale):
        with suppress(psutil.Error):
            process.kill()
    _await_end(stale)


def _await_end(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for these to end, GRACE_S at most; returns those that did not."""
    deadline = time.monotonic() + GRACE_S
    while (living := [process for process in processes if is_living(process)]) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return living


def is_living(process: psutil.Process) -> bool:
    """Whether it still runs. One that ended but that nobody collected, as happens in containers, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
