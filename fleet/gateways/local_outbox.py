"""The folder where mails and text messages of development and tests land, with a page to read them: index.html.

Never in production: without SMTP_URL and SMS_URL it has no way for them at all.
"""

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from fleet import clock

INDEX = "index.html"
# Written once, at the beginning. Every message is then added at the end, and shown before those that came earlier.
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Local outbox</title>
<style>
body { font: 15px/1.4 sans-serif; margin: 2em; display: flex; flex-direction: column-reverse; justify-content: flex-end }
details { border-top: 1px solid #bbb; padding: .5em 0 } summary { cursor: pointer }
iframe { width: 100%; height: 26em; border: 1px solid #ddd } pre { white-space: pre-wrap; background: #f4f4f4; padding: 1em }
</style></head>
<body>
"""


class LocalOutbox:
    """Several processes may fill it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all: it gets its name when it is complete. Raises OSError."""
        self._draft(content).replace(self._directory / name)

    def show(self, *, to: str, subject: str, text: str, html: str | None, files: Sequence[str]) -> None:
        """Add a message to the page. What it says is shown in a frame that may run nothing. Raises OSError."""
        links = " ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in files)
        frame = f'<iframe sandbox srcdoc="{escape(html)}"></iframe>' if html else ""
        heading = f"{clock.now():%Y-%m-%d %H:%M:%S} UTC &nbsp; {escape(to)} &nbsp; <b>{escape(subject)}</b>"
        entry = (
            f"<details><summary>{heading}</summary>"
            f"<p>{links}</p>{frame}<pre>{escape(text)}</pre></details>\n"
        )
        index = self._directory / INDEX
        if not index.exists():
            self._begin(index)
        # One write at the end of the file: entries of two processes do not run into each other.
        with index.open("ab", buffering=0) as page:
            page.write(entry.encode())

    def _begin(self, index: Path) -> None:
        """Make the page, unless another process is quicker: a link does not replace what that one has begun."""
        draft = self._draft(_HEAD.encode())
        with suppress(FileExistsError):
            index.hardlink_to(draft)
        draft.unlink()

    def _draft(self, content: bytes) -> Path:
        self._directory.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=self._directory, suffix=".draft")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        return Path(draft)
