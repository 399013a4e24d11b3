"""`python -m tests.supply.history`: looks through every line that was ever committed for what looks like a secret.

A secret that was committed once is known for ever: take it out of use, then write here why the line may stay.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

from tests.supply.lock import ROOT

# The forms of secrets that tell by themselves what they are.
FORMS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:$|\\n)",
    "a cloud's access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a token of a code host": r"\bgh[pousr]_[A-Za-z0-9]{36}|\bgithub_pat_\w{22}|\bglpat-[\w-]{20}",
    "a token of a package index": r"\bpypi-[A-Za-z0-9_-]{40}|\bnpm_[A-Za-z0-9]{36}",
    "a live key of the card gateway": r"\b[sr]k_live_[A-Za-z0-9]{10}",
    "a signing secret of webhooks": r"\bwhsec_[A-Za-z0-9+/=]{24}",
    "a token of a chat": r"\bxox[abposr]-[A-Za-z0-9-]{10}",
    "a signed token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20}",
    "an API key of ours": r"\bflt_[A-Za-z0-9_-]{43}",
    "a password in an address": r"\b(?:postgres(?:ql)?|rediss?|amqps?|smtps?|https?)://[^\s:/@'\"{}]*:[^\s:/@'\"{}$<]{12,}@",
    "a value given to a name of a secret": r"\b(?:SECRET_KEY|[A-Z]+_TOKEN|API_KEY|PASSWORD)=['\"]?[A-Za-z0-9+/_-]{24}",
}
# Lines that look like it and are not: what each holds, and why it opens nothing.
HARMLESS = {
    "k3Jx9Qz7Lm2Vb8Nw4Rt6Yp1Hs5Dg0Fc2Aa": "made up, for a test that starts nothing",
    "pw-of-the-database@db.example": "made up, and a host that does not exist",
    "replace-me-replace-me-replace-me": "says itself what to do with it",
}


class Finding(NamedTuple):
    """A line of the history that looks like a secret."""

    commit: str
    path: str
    form: str
    line: str

    def __str__(self) -> str:
        """Where it is, and never what it is: this is printed into the logs of builds."""
        return f"{self.commit[:12]} {self.path}: looks like {self.form}"


def added_lines(text: str) -> Iterator[tuple[str, str, str]]:
    """The commit, the path and the text of every line that `git log -p` shows as added."""
    commit = path = ""
    for line in text.splitlines():
        if line.startswith("commit "):
            commit = line.split()[1]
        elif line.startswith("+++ "):
            path = line.removeprefix("+++ ").removeprefix("b/")
        elif line.startswith("+"):
            yield commit, path, line


def findings(text: str) -> list[Finding]:
    """What looks like a secret in the output of `git log -p` and is not among HARMLESS."""
    return [
        Finding(commit, path, form, line)
        for commit, path, line in added_lines(text)
        for form, pattern in _PATTERNS.items()
        if pattern.search(line) and not any(harmless in line for harmless in HARMLESS)
    ]


def history() -> str:
    """Every change of every commit that leads to the present one. Raises CalledProcessError.

    By itself git shows nothing of a merge, and nothing of a file that it takes for binary.
    """
    shown = ("-p", "--cc", "--text", "-U0", "--no-color", "--no-ext-diff", "--no-textconv", "--format=commit %H")
    command = ["git", "log", *shown, "HEAD"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode(errors="replace")


def is_whole() -> bool:
    """Whether all commits are here: an archive has none, a shallow clone the last ones."""
    command = ["git", "rev-parse", "--is-shallow-repository"]
    return (ROOT / ".git").exists() and subprocess.run(command, cwd=ROOT, capture_output=True).stdout == b"false\n"


def main() -> int:
    """Look through the history. Returns the exit code."""
    if not is_whole():
        print("secrets: NOT LOOKED FOR. The commits are not all here; run `make audit` in a whole clone.")
        return 0
    found = findings(history())
    for finding in found:
        print(finding)
    print("secrets: " + (f"{len(found)} lines look like one" if found else "none in any commit"))
    return 1 if found else 0


_PATTERNS = {form: re.compile(pattern) for form, pattern in FORMS.items()}

if __name__ == "__main__":
    sys.exit(main())
