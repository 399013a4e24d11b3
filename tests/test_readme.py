"""The README's promises, kept by running them: `make run`, the first requests, Ctrl-C, and a second start with its data."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.embedded import marked
from tests.source import ROOT

START_TIMEOUT_S = 180
SHIPPED = ("app.py", "wsgi.py", "Procfile", "fleet", "tasks", "deploy")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The service alone in a directory of its own, with no data yet."""
    directory = tmp_path_factory.mktemp("checkout")
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, directory / name)
    return directory


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(checkout: Path) -> Iterator[str]:
    """What `make run` runs, until Ctrl-C; gives the address that it prints."""
    environment = {**os.environ, "PORT": str(free_port()), "RATELIMIT_PUBLIC": "1000 per minute"}
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEY", "FLEET_ENV", "PROMETHEUS_MULTIPROC_DIR"):
        environment.pop(name, None)
    log = checkout / "run.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet.embedded"], cwd=checkout, env=environment, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while "The fleet is running." not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        (address,) = re.findall(r"API\s+(http://\S+)/v1", log.read_text())[-1:]
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0, log.read_text()[-3000:]
    assert marked(checkout / "var") == [], "Ctrl-C left processes behind"


def first_requests() -> str:
    section = (ROOT / "README.md").read_text().split("## First requests")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.S))


@pytest.mark.slow
def test_the_first_requests_of_the_readme_lead_from_login_to_ledger(checkout: Path) -> None:
    with running(checkout) as address:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", first_requests()],
            env={**os.environ, "BASE": address},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        out, back, number, total, memo, balanced = done.stdout.split("\n")[:6]
        assert (out, back, balanced) == ("active", "completed", "True")
        assert int(total) > 0
        assert number.startswith("INV-") and number in memo
        assert list((checkout / "var" / "mail").rglob("*.eml")), "the receipt is no file in var/mail"
        with urllib.request.urlopen(f"{address}/docs") as page:
            assert page.status == 200


@pytest.mark.slow
def test_a_second_start_finds_its_data(checkout: Path) -> None:
    with running(checkout) as address:
        assert "the demo's data is there already" in (checkout / "run.log").read_text()
        assert {"web", "worker", "relay"} <= kinds_of_processes(address)


def kinds_of_processes(address: str) -> set[str]:
    """Which processes tell of their circuit breakers; all do within some seconds of their start."""
    headers = {"Content-Type": "application/json"}
    login = b'{"email": "admin@example.com", "password": "fleet-demo-admin-2026"}'
    with urllib.request.urlopen(urllib.request.Request(f"{address}/v1/auth/login", login, headers)) as answer:
        headers["Authorization"] = f"Bearer {json.load(answer)['access_token']}"
    kinds: set[str] = set()
    deadline = time.monotonic() + 20
    while len(kinds) < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
        with urllib.request.urlopen(urllib.request.Request(f"{address}/admin/circuit-breakers", headers=headers)) as answer:
            kinds = {one["kind"] for breaker in json.load(answer)["data"] for one in breaker["processes"]}
    return kinds


def test_every_command_of_the_readme_is_in_the_makefile() -> None:
    promised = set(re.findall(r"`?make ([a-z]+)", (ROOT / "README.md").read_text()))
    offered = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    assert promised <= offered | {"alone"}


def test_every_link_of_the_readme_and_the_docs_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"
