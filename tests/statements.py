"""Counting what is sent to the database."""

from typing import Any

import pytest

from fleet.db import db


def counted(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """A list that grows by one with every statement from now on; empty it to count anew."""
    sent: list[None] = []
    send = db._send

    def counting(call: Any, **kwargs: Any) -> Any:
        sent.append(None)
        return send(call, **kwargs)

    monkeypatch.setattr(db, "_send", counting)
    return sent
