"""`python -m tests.supply.audit`: whether a version that we lock is known to be vulnerable.

pip-audit exits 0 also where it found no data on any package. So it is first asked about a package that is known to be
vulnerable: only if it says so does its silence on ours mean anything. Where it does not, that is said, and no claim is made.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.supply.lock import PARTS, ROOT, pins

# CVE-2014-1402, CVE-2016-10745, CVE-2019-10906 and more: no list of vulnerabilities is without it.
KNOWN_VULNERABLE = "jinja2==2.4.1"
# For all look-ups together, so that it ends also where each of them hangs.
TIMEOUT_S = 240
_ASK = ("--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json", "--timeout", "5")

Report = list[dict[str, Any]]


def asked(requirements: list[str]) -> Report:
    """What pip-audit knows of each requirement; nothing at all where it could not ask.

    An entry has `vulns`, or `skip_reason` where there was no data on the package.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "requirements.txt"
        path.write_text("\n".join(requirements) + "\n")
        command = [sys.executable, "-m", "pip_audit", *_ASK, "--requirement", f"{path}"]
        try:
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
            return list(json.loads(ended.stdout)["dependencies"])
        except (subprocess.TimeoutExpired, json.JSONDecodeError, KeyError):
            return []


def audit(ask: Callable[[list[str]], Report]) -> tuple[int, list[str]]:
    """The exit code, and what to say. 1: vulnerable, or the data are there and not on all of our packages."""
    if not any(entry.get("vulns") for entry in ask([KNOWN_VULNERABLE])):
        return 0, [
            "vulnerabilities: NOT AUDITED. The advisories are out of reach from here: nothing is said against "
            f"{KNOWN_VULNERABLE}, which is full of holes. Run `make audit` where they can be reached."
        ]
    locked = {pin for part in PARTS for pin in pins((ROOT / f"{part}.lock").read_text())}
    report = ask([f"{pin.name}=={pin.version}" for pin in sorted(locked)])
    holes = [
        f"vulnerable: {entry['name']} {entry['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or '?'}"
        for entry in report
        for hole in entry.get("vulns", [])
    ]
    unknown = {pin.name for pin in locked} - {entry["name"].lower() for entry in report if "vulns" in entry}
    gaps = [f"no data on {name}" for name in sorted(unknown)]
    return (1, holes + gaps) if holes or gaps else (0, [f"vulnerabilities: none known in {len(locked)} packages"])


def main() -> int:
    """Audit all locks. Returns the exit code."""
    code, said = audit(asked)
    print("\n".join(said))
    return code


if __name__ == "__main__":
    sys.exit(main())
