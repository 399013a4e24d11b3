"""What the gateways share of the way out: the look-up of names, which no resolver bounds."""

import threading
import time
from typing import Any

import pytest

from fleet.gateways.wire import Lookups


def test_to_wait_for_a_place_and_for_an_answer_takes_no_longer_than_the_time_for_both() -> None:
    lookups, go_on = Lookups(1), threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        go_on.wait(5)
        return []

    first = threading.Thread(target=lookups.find, args=("a.example", 80), kwargs={"timeout_s": 0.1, "lookup": slow})
    first.start()
    threading.Timer(0.35, go_on.set).start()
    began = time.monotonic()
    assert lookups.find("b.example", 80, timeout_s=0.5, lookup=lambda *_, **__: time.sleep(5)) == []
    assert time.monotonic() - began < 0.75
    first.join()


def test_a_look_up_that_cannot_begin_leaves_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = Lookups(1)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        assert lookups.find("a.example", 80, timeout_s=0.1) == []
    told = [(2, 1, 6, "", ("192.0.2.1", 80))]
    assert lookups.find("a.example", 80, timeout_s=1, lookup=lambda *_, **__: told) == [(2, ("192.0.2.1", 80))]
