"""Faults of others: receivers of webhooks, the card gateway; and what readers of the event stream see meanwhile."""

import time

from tests.faults.drills import LETTER_S, drill
from tests.faults.scene import HOOKS, REFUNDS, Scene
from tests.faults.seizing import CAPTURE, DELIVERY, REFUND, kill_at

# The gateway gives up on a call after ten seconds, and has fifteen for all of a request's.
CARD_S = 18
LATE_S, NEVER_S = 12, 60
CHARGES, GIVEN_BACK = "/v1/payment_intents", "/v1/refunds"
STREAM_READERS = 3


@drill("hooks-fail-80", calm=True, settled_s=LETTER_S)
def hooks_fail(scene: Scene) -> None:
    """A receiver refuses four webhooks in five for a while: every event reaches it in the end, under its own id."""
    scene.listen()
    scene.stage.hooks.refuses = 0.8
    with scene.time_lapse(HOOKS):
        time.sleep(scene.chosen(12, 4))
    scene.stage.hooks.refuses = 0
    _counted(scene)


@drill("hooks-hang", calm=True, settled_s=LETTER_S)
def hooks_hang(scene: Scene) -> None:
    """A receiver takes connections and says nothing: its events wait, and nobody else does."""
    scene.listen()
    scene.stage.hooks.hangs = True
    time.sleep(scene.chosen(12, 3))
    scene.books_do_not_wait()
    scene.stage.hooks.hangs = False
    _counted(scene)


@drill("hooks-gone", calm=True, settled_s=LETTER_S)
def hooks_gone(scene: Scene) -> None:
    """A receiver dies in the middle of its requests and comes back: it gets what happened meanwhile."""
    scene.listen()
    scene.stage.hooks.gone = True
    time.sleep(scene.chosen(12, 3))
    scene.stage.hooks.gone = False
    _counted(scene)


def _counted(scene: Scene) -> None:
    scene.faults += scene.stage.hooks.spoilt
    scene.stage.hooks.spoilt = 0
    scene.hurry = HOOKS


@drill("hooks-worker-killed", calm=True, settled_s=LETTER_S)
def hooks_worker_killed(scene: Scene) -> None:
    """Workers die after a receiver's yes and before the COMMIT of their note, and after it: nothing stays untold."""
    heard = scene.listen()
    for committed in (False, True, False):
        kill_at(scene.stage, DELIVERY, lambda: scene.stage.children("worker"), committed=committed)
        scene.faults += 1
        scene.pause(0.2, 0.6)
    scene.stage.restart("worker")
    scene.faults += 1
    scene.hurry = HOOKS
    scene.let_leases_pass()
    scene.remarks.append(f"{heard.asked.total()} requests so far")


@drill("stream-read-along", settled_s=LETTER_S, boots=3)
def stream_read_along(scene: Scene) -> None:
    """Readers follow the event stream while web workers and relays are killed: no gap, nothing twice, in commit order."""
    scene.read_along(STREAM_READERS)
    for turn in range(int(scene.chosen(4, 2))):
        scene.pause(0.5, 1.5)
        scene.rng.choice(scene.stage.children("web")).kill()
        scene.stage.restart(f"relay-{turn % 2 + 1}")
        scene.faults += 2
    scene.pause(0.5, 1)
    scene.let_leases_pass()


@drill("cards-late", pays=True, settled_s=LETTER_S, slowest_s=CARD_S, web_s=CARD_S)
def cards_late(scene: Scene) -> None:
    """The card gateway charges, and answers when nobody listens any more: the charge is found, and no card is charged twice."""
    _spoilt(scene, delay_s=LATE_S, times=int(scene.chosen(6, 2)))


@drill("cards-fail", pays=True, settled_s=LETTER_S, slowest_s=CARD_S, web_s=CARD_S)
def cards_fail(scene: Scene) -> None:
    """The card gateway answers 500, before it charges and after it: each payment is charged once in the end."""
    times = int(scene.chosen(6, 2))
    scene.stage.cards.goes_wrong(path=CHARGES, status=500, takes_effect=True, times=times)
    scene.faults += times
    _spoilt(scene, status=500, times=times)


@drill("cards-hang", pays=True, settled_s=LETTER_S, slowest_s=CARD_S, web_s=CARD_S)
def cards_hang(scene: Scene) -> None:
    """The card gateway takes the call and says nothing: 503 in time, other clients are served, and the same key pays once."""
    _spoilt(scene, status=500, delay_s=NEVER_S, times=int(scene.chosen(6, 2)))


@drill("cards-gone", pays=True, settled_s=LETTER_S, slowest_s=CARD_S, web_s=CARD_S)
def cards_gone(scene: Scene) -> None:
    """The card gateway is gone for a while: payments hear 503 soon, everything else goes on, and each is charged once later."""
    scene.stage.cards.gone = True
    scene.faults += 1
    time.sleep(scene.chosen(15, 4))
    scene.stage.cards.gone = False


@drill("cards-web-killed", pays=True, settled_s=LETTER_S, slowest_s=CARD_S, web_s=CARD_S, boots=4)
def cards_web_killed(scene: Scene) -> None:
    """Web workers die in the middle of a charge, before the COMMIT of its note and after it: charged once, and never lost."""
    calls = len(scene.stage.cards.calls)
    scene.stage.cards.goes_wrong(path=CHARGES, delay_s=2)
    scene.until(lambda: len(scene.stage.cards.calls) > calls, 30, "charge")
    for child in scene.stage.children("web"):
        child.kill()
        scene.faults += 1
    scene.stage.await_ready()
    for committed in (False, True):
        kill_at(scene.stage, CAPTURE, lambda: scene.stage.children("web"), committed=committed)
        scene.faults += 1
        scene.pause(0.2, 0.6)
    scene.let_leases_pass()


@drill("refunds-fail", pays=True, calm=True, settled_s=LETTER_S)
def refunds_fail(scene: Scene) -> None:
    """The gateway fails refunds before and after giving back, and workers die before their note: each goes back once."""
    times = int(scene.chosen(3, 1))
    scene.stage.cards.goes_wrong(path=GIVEN_BACK, status=500, times=times)
    scene.stage.cards.goes_wrong(path=GIVEN_BACK, status=500, takes_effect=True, times=times)
    scene.until(lambda: not any(fault.times for fault in scene.stage.cards.faults), 60, "failing refund")
    scene.faults += 2 * times
    kill_at(scene.stage, REFUND, lambda: scene.stage.children("worker"), committed=False)
    scene.faults += 1
    scene.hurry = REFUNDS
    scene.let_leases_pass()


def _spoilt(scene: Scene, *, times: int, **fault: float) -> None:
    """Let so many charges go wrong, and return when they have."""
    scene.stage.cards.goes_wrong(path=CHARGES, times=times, **fault)
    scene.until(lambda: not any(one.times for one in scene.stage.cards.faults), 120, "charge that goes wrong")
    scene.faults += times
    scene.let_leases_pass()
