"""A RabbitMQ of the tests' own, where the machine has it installed."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import kombu
import psutil

from fleet.embedded.server import HOST, usable_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_TIMEOUT_S = 60


def why_not() -> str:
    """Why there is none here; empty when there is."""
    return "" if SERVER.exists() and shutil.which("epmd") else "rabbitmq-server is not installed (Debian: rabbitmq-server)"


@contextmanager
def rabbitmq(directory: Path) -> Iterator[str]:
    """Run one in `directory`, with ports, a cookie and a port mapper that nobody else uses; gives its URL."""
    port = usable_port(None)
    environment = {
        **os.environ,
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(usable_port(None)),
        "ERL_EPMD_ADDRESS": HOST,
        "RABBITMQ_NODENAME": "fleet-test@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": HOST,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(usable_port(None)),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
    }
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            [SERVER], env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
        )
    url = f"amqp://guest:guest@{HOST}:{port}//"
    try:
        _await_ready(url, process, directory / "output")
        yield url
    finally:
        process.kill()
        process.wait()
        _end_all_of(directory)


def _end_all_of(directory: Path) -> None:
    """Its port mapper and helpers leave the family and live on; they carry the directory as their home."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("HOME") == str(directory):
                process.kill()


def _await_ready(url: str, process: subprocess.Popen, output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            with kombu.Connection(url, connect_timeout=2) as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
            return
        except (OSError, kombu.exceptions.KombuError):
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
