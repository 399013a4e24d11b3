"""The Procfile's processes as children: started together, kept running, ended together."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import IO

STOP_TIMEOUT_S = 30  # as a platform waits before it kills
TOO_SHORT_A_LIFE_S = 10
POLL_S = 0.2


class Crashed(Exception):
    """A process ended so soon after its start that starting it again would not help."""


@dataclass
class Member:
    """One process type of the Procfile."""

    name: str
    command: str
    process: subprocess.Popen[str]
    printer: Thread
    started_at: float = field(default_factory=time.monotonic)

    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self.started_at


class Crew:
    """Runs commands, each in a session of its own, and prints their lines behind their names.

    Ctrl-C in the terminal therefore reaches only us, and we tell them, before the databases go. `stopping` is the flag that
    ends it all; it is raised here too, when nobody can read what we print any more.
    """

    def __init__(self, environment: Mapping[str, str], stopping: Event) -> None:
        self._environment = environment
        self._stopping = stopping
        self._members: dict[str, Member] = {}
        self._width = 0

    def start(self, commands: Mapping[str, str]) -> None:
        """Start every command."""
        self._width = max(map(len, commands))
        for name, command in commands.items():
            self._members[name] = self._launch(name, command)

    def watch(self) -> None:
        """Start again what ended, until it is time to stop or the terminal is gone. Raises Crashed."""
        had_terminal = sys.stdin.isatty()
        while not self._stopping.wait(POLL_S) and sys.stdin.isatty() == had_terminal:
            self.check()

    def check(self) -> None:
        """Start again what ended, as a platform would. Raises Crashed for what did not live long enough for that."""
        for name, member in self._members.items():
            if member.process.poll() is None:
                continue
            if member.age_s() < TOO_SHORT_A_LIFE_S:
                raise Crashed(f"{name} ended with code {member.process.returncode} right after its start")
            self._print(name, f"ended with code {member.process.returncode}, starting it again")
            _signal_group(member, signal.SIGKILL)
            self._members[name] = self._launch(name, member.command)

    def stop(self) -> None:
        """Ask every process to end its work, wait, and kill those that take longer than STOP_TIMEOUT_S."""
        for member in self._members.values():
            _signal_group(member, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for member in self._members.values():
            with suppress(subprocess.TimeoutExpired):
                member.process.wait(max(0, deadline - time.monotonic()))
        for member in self._members.values():
            _signal_group(member, signal.SIGKILL)
            member.process.wait()
            member.printer.join(1)

    def _launch(self, name: str, command: str) -> Member:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        printer = Thread(target=self._print_lines, args=(name, process.stdout), daemon=True)
        printer.start()
        return Member(name, command, process, printer)

    def _print_lines(self, name: str, output: IO[str]) -> None:
        with output:
            for line in output:
                self._print(name, line.rstrip())

    def _print(self, name: str, line: str) -> None:
        try:
            print(f"{name:{self._width}} | {line}", flush=True)
        except OSError:
            # The terminal is gone. We go on reading: a process that ends its work must not stand still on a full pipe.
            self._stopping.set()


def _signal_group(member: Member, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # macOS says the second for a group of the dead
        os.killpg(member.process.pid, number)
