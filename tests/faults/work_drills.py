"""Faults of relay, worker and beat, poison, and what the workers depend on."""

import signal
import time

from psutil import Process

from tests.faults.clients import RENTED, id_of
from tests.faults.drills import LEASE_S, LETTER_S, drill
from tests.faults.scene import LETTERS, THESE, Scene
from tests.faults.seizing import CLAIM, POSTING, kill_at
from tests.faults.store_drills import full_queue

NEIGHBOURS = 19
RELAYS = ("relay-1", "relay-2")


def relays(scene: Scene) -> list[Process]:
    """The relays as processes."""
    return [process for name in RELAYS for process in scene.stage.process(name)]


@drill("relay-killed-after-claim", calm=True, settled_s=LEASE_S)
def relay_killed_after_claim(scene: Scene) -> None:
    """A relay dies after it committed a claim and before it published: the promises are due again when the lease ends."""
    for _ in range(2):
        kill_at(scene.stage, CLAIM, lambda: relays(scene), committed=True)
        scene.faults += 1
        scene.stage.revive()
    scene.let_leases_pass()


@drill("relay-killed-after-publish", calm=True, settled_s=LEASE_S)
def relay_killed_after_publish(scene: Scene) -> None:
    """Both relays die when their messages are out: nothing is forgotten, and nothing done twice."""
    with full_queue(scene):
        scene.stage.restart(*RELAYS)
        scene.faults += 2
    scene.let_leases_pass()


@drill("pool-child-killed", calm=True, settled_s=LEASE_S)
def pool_child_killed(scene: Scene) -> None:
    """A child of the pool dies before the COMMIT of a posting: the posting is made once, later."""
    for _ in range(2):
        kill_at(scene.stage, POSTING, lambda: scene.stage.children("worker"), committed=False)
        scene.faults += 1
        scene.pause(0.2, 0.6)
    scene.let_leases_pass()


@drill("killed-before-acknowledgement", calm=True, settled_s=LEASE_S)
def killed_before_acknowledgement(scene: Scene) -> None:
    """A child of the pool dies between the COMMIT of a posting and its acknowledgement: it comes again and changes nothing."""
    for _ in range(2):
        kill_at(scene.stage, POSTING, lambda: scene.stage.children("worker"), committed=True)
        scene.faults += 1
        scene.pause(0.2, 0.6)
    scene.let_leases_pass()


@drill("worker-killed", calm=True, settled_s=LETTER_S)
def worker_killed(scene: Scene) -> None:
    """The worker dies with all its children, again and again."""
    for _ in range(3):
        scene.promise(["effect"] * 10)
        scene.pause(0.1, 0.4)
        scene.stage.restart("worker")
        scene.faults += 1
        scene.pause(1.5, 3)
    scene.let_leases_pass()


@drill("worker-frozen-killed", calm=True, settled_s=LETTER_S)
def worker_frozen_killed(scene: Scene) -> None:
    """A worker stands still with messages in its hands, and is killed before it wakes: they come again."""
    for _ in range(2):
        scene.promise(["effect"] * 10)
        scene.pause(0.02, 0.2)
        scene.stage.signal("worker", signal.SIGSTOP)
        scene.pause(1, 2)
        scene.stage.restart("worker")
        scene.faults += 1
        scene.pause(1.5, 3)
    scene.let_leases_pass()


@drill("same-message-100", calm=True)
def same_message_100(scene: Scene) -> None:
    """One message comes a hundred times over: one effect."""
    ids = scene.promise(["effect"] * 3)
    scene.ring("drills.work", ids, times=100)
    scene.faults += 100


@drill("poison-raises", calm=True)
def poison_raises(scene: Scene) -> None:
    """A message that raises ends as a dead letter, and takes none of those beside it along."""
    _poisoned(scene, "raise", deliveries=0)


@drill("poison-kills", calm=True)
def poison_kills(scene: Scene) -> None:
    """A message that kills its process each time ends as a dead letter, though no handler ever sees it."""
    _poisoned(scene, "kill", deliveries=0)


@drill("task-hangs", calm=True)
def task_hangs(scene: Scene) -> None:
    """A task that hangs is ended by its time limits, whether it listens to the soft one or not, and buried in the end."""
    _poisoned(scene, "hang", deliveries=6)
    _poisoned(scene, "hang_deaf", deliveries=6)


def _poisoned(scene: Scene, does: str, *, deliveries: int) -> None:
    poison = scene.promise([does], deliveries=deliveries)
    scene.poison.update(poison)
    healthy = scene.promise(["effect"] * NEIGHBOURS)
    scene.faults += 1
    with scene.time_lapse(THESE, poison):
        scene.until(lambda: scene.ended(healthy) == NEIGHBOURS, 60, "end of the healthy neighbours")
        scene.until(lambda: _buried(scene, poison), 120, f"death of what does {does}")
    scene.expect(scene.stage.deliveries(poison[0]) <= 9, "poison was delivered more than nine times")


def _buried(scene: Scene, poison: list[str]) -> bool:
    if scene.ended(poison):
        return True
    if not scene.full:
        scene.ring("maintenance.bury_exhausted")
    time.sleep(0.5)
    return False


@drill("two-replays", calm=True)
def two_replays(scene: Scene) -> None:
    """Two people replay the same dead letter by the API at once, and it is rung for twice: one effect."""
    [letter] = scene.promise(["raise"], deliveries=7)
    scene.until(lambda: scene.ended([letter]) == 1, 30, "dead letter")
    scene.stage.sql("""UPDATE outbox SET payload = '{"does": "effect"}' WHERE id = %s""", (letter,))
    scene.replay_twice(letter)
    scene.faults += 2


@drill("worker-term-long-task", calm=True, settled_s=120)
def worker_term_long_task(scene: Scene) -> None:
    """A worker that is asked to end finishes the long task in its hands first: it is not done again."""
    [task] = scene.promise([f"sleep {scene.chosen(8, 3)}"], topic="drills.long_work")
    scene.until(lambda: scene.stage.deliveries(task) == 1, 20, "start of the long task")
    seconds = scene.stage.stop("worker")
    scene.faults += 1
    scene.stage.start("worker")
    scene.remarks.append(f"ended in {seconds:.1f} s")
    scene.let_leases_pass()
    scene.expect(scene.ended([task]) == 1, "the long task was cut off")
    scene.expect(seconds < 25, f"the worker took {seconds:.0f} s to end")


@drill("backlog", calm=True, settled_s=600)
def backlog(scene: Scene) -> None:
    """After an outage there is a backlog: the queue in Redis stays short, the backlog melts, and clients are served."""
    count = int(scene.chosen(50_000, 2_000))
    scene.stage.sql(
        """INSERT INTO outbox (id, topic, queue, aggregate_type, aggregate_id)
        SELECT gen_random_uuid(), 'drills.work', 'default', 'drill', drill_id(10, n) FROM generate_series(1, %s) n""",
        (count,),
    )
    scene.faults += 1
    deepest, started = 0, time.monotonic()
    while scene.stage.waiting("default") > count / 20 and time.monotonic() < started + 240:
        deepest = max(deepest, scene.stage.depth())
        time.sleep(0.3)
    scene.remarks.append(f"{count} in {time.monotonic() - started:.0f} s, depth at most {deepest}")
    scene.expect(deepest < 600, f"{deepest} messages piled up in Redis")


@drill("mail-fails-80", calm=True, settled_s=LETTER_S)
def mail_fails(scene: Scene) -> None:
    """The mail server refuses four letters in five for a while: all arrive in the end, and the books do not wait for them."""
    scene.stage.post.refuses = 0.8
    before = scene.stage.post.refused
    time.sleep(scene.chosen(10, 2))
    scene.books_do_not_wait()
    scene.stage.post.refuses = 0
    scene.faults += scene.stage.post.refused - before
    scene.hurry = LETTERS


@drill("mail-hangs", calm=True, settled_s=LETTER_S)
def mail_hangs(scene: Scene) -> None:
    """The mail server takes connections and says nothing: letters wait, and the books do not wait for them."""
    scene.stage.post.hangs = True
    scene.faults += 1
    time.sleep(scene.chosen(12, 3))
    scene.books_do_not_wait()
    scene.stage.post.hangs = False
    scene.hurry = LETTERS
    scene.let_leases_pass()


@drill("two-beats", calm=True)
def two_beats(scene: Scene) -> None:
    """Two beats ring for every sweep: each hold expires once, and its vehicle is free."""
    client = scene.client(80)
    for nth in range(5):
        vehicle, start_at = scene.wishes.own()
        body = {"vehicle_id": id_of(3, vehicle), "customer_id": id_of(4, nth), "hold_minutes": 1}
        period = {"start_at": start_at.isoformat(), "end_at": (start_at + RENTED).isoformat()}
        client.insist("hold", "/v1/rentals", {**body, **period})
    client.hang_up()
    scene.stage.start("beat-2")
    scene.faults += 1
    scene.stage.sql("UPDATE rental SET hold_expires_at = now() - interval '1 second' WHERE status = 'held'")
    scene.until(lambda: scene.stage.sql("SELECT count(*) FROM rental WHERE status = 'held'")[0][0] == 0, 40, "end of the holds")
    time.sleep(scene.chosen(12, 0))
    left = "SELECT count(*) FROM vehicle_block b JOIN rental r ON r.id = b.rental_id WHERE r.status = 'expired' AND b.live"
    scene.expect(scene.stage.sql(left)[0][0] == 0, "an expired hold still takes its vehicle's time")
    scene.stage.signal("beat-2", signal.SIGKILL)
    scene.stage.processes.pop("beat-2").wait()
