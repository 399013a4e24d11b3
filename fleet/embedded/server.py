"""What both database servers have in common: a child process that is started, waited for and stopped."""

import os
import secrets
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from fleet.embedded.ownership import MARK

HOST = "127.0.0.1"
START_TIMEOUT_S = 60  # long enough to recover from the crash of a busy server
STOP_TIMEOUT_S = 30
START_ATTEMPTS = 3
POLL_S = 0.02
LOG_TAIL_LINES = 15


class StartFailed(Exception):
    """A database server did not start; the message shows the end of its log."""


class Server(ABC):
    """A database server of ours, in `directory`. It keeps its port over restarts, so its URL stays good.

    It runs in a session of its own: Ctrl-C in the terminal is for the process that owns it, which stops it last.
    """

    stop_signal = signal.SIGTERM

    def __init__(self, directory: Path, *, owner: Path, port: int | None, durable: bool) -> None:
        self.directory = directory
        self.durable = durable
        self.port = usable_port(port)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self.environment[MARK] = str(owner)
        self.log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self.password = kept(directory / "password", secrets.token_hex(16))

    @property
    def pid(self) -> int:
        """The server's process. Raises RuntimeError while it is stopped."""
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when it answers. Raises StartFailed."""
        for _ in range(START_ATTEMPTS):
            self._process = process = self._launch()
            if self._answers_in_time(process):
                return
            ended = process.poll() is not None
            self.stop()
            if not ended:
                break
            # It may have ended because somebody took the port since it was found free.
            self.port = usable_port(self.port)
        raise StartFailed(f"{type(self).__name__} did not start. The end of {self.log}:\n{self._log_tail()}")

    def stop(self) -> None:
        """Stop the server and return when it is gone; does nothing if it is stopped."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)  # a frozen process hears nothing until it is woken
        process.send_signal(self.stop_signal)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    def _answers(self) -> bool: ...

    def _answers_in_time(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return True
            time.sleep(POLL_S)
        return False

    def _log_tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def usable_port(usual: int | None) -> int:
    """`usual` if nobody listens there, else one that the system says is free."""
    with socket.socket() as probe:
        if usual is not None and probe.connect_ex((HOST, usual)) != 0:
            return usual
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def kept(path: Path, value: str) -> str:
    """What `path` holds. The first time `value` is put there, for the owner's eyes only."""
    if not path.exists():
        draft = path.with_suffix(".draft")
        draft.touch(mode=0o600)
        draft.write_text(value)
        draft.rename(path)
    return path.read_text()
