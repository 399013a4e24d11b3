"""The locks: what requirements*.txt pin, with the hashes of every file of each version, so that nothing else installs.

`make lock` writes them. Each holds what its requirements add to the lock that it begins with.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
# Each adds to the one before it.
PARTS = ("requirements", "requirements-dev", "requirements-bench")
_HEAD = "# Written by `make lock` from {name}.txt: every file of each version, for every platform. Do not edit.\n"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z,]+\])?==([^\s;\\#]+)\s*(?:;\s*([^#\\]+))?")
# Extras are kept, because the pip that comes with Python 3.11 takes coverage[toml] for another package than coverage.
_COMPILE = ("pip", "compile", "--universal", "--python-version", "3.11", "--generate-hashes", "--no-strip-extras")


class Pin(NamedTuple):
    """One package at one version; `marker` says on which machines."""

    name: str
    version: str
    marker: str


def pins(text: str) -> dict[Pin, frozenset[str]]:
    """What a requirements file or a lock pins, each with its hashes."""
    found: dict[Pin, frozenset[str]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        pinned = _REQUIREMENT.match(line)
        if pinned:
            name, version, marker = pinned.groups()
            spelled = re.sub(r"[-_.]+", "-", name).lower()
            conditions = (marker or "").partition("--hash")[0].replace('"', "'").strip()
            found[Pin(spelled, version, conditions)] = frozenset(re.findall(r"--hash=(sha256:[0-9a-f]{64})", line))
    return found


def write(uv: str) -> None:
    """Write all locks, with the uv at this path. Raises CalledProcessError."""
    known: dict[Pin, frozenset[str]] = {}
    before = ""
    for part in PARTS:
        command = [uv, *_COMPILE, "--no-header", "--no-annotate", "--quiet", f"{part}.txt"]
        text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        entries = re.split(r"\n(?=[A-Za-z0-9])", text.strip())
        added = [entry for entry in entries if not pins(entry).keys() & known.keys()]
        known |= pins(text)
        (ROOT / f"{part}.lock").write_text(_HEAD.format(name=part) + before + "\n".join(added) + "\n")
        before = f"-r {part}.lock\n"


if __name__ == "__main__":
    write(sys.argv[1])
