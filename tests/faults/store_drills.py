"""Faults of PostgreSQL and of Redis."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from tests.faults.drills import LETTER_S, drill
from tests.faults.scene import Scene

FULL_QUEUE = 20


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """These processes stand still for as long as the block runs."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@contextmanager
def full_queue(scene: Scene) -> Iterator[None]:
    """The worker stands still until there are many messages in the broker, and then as long as the block runs."""
    pids = [scene.stage.processes["worker"].pid, *(child.pid for child in scene.stage.children("worker"))]
    with frozen(*pids):
        scene.promise(["effect"] * FULL_QUEUE)
        scene.until(lambda: scene.stage.depth() >= 2, 20, "full queue")
        scene.remarks.append(f"{scene.stage.depth()} messages")
        yield


@drill("redis-killed-full-queue", calm=True, settled_s=LETTER_S)
def redis_killed(scene: Scene) -> None:
    """Redis dies with a full queue and comes back empty: every promise is rung for again, and no client notices."""
    with full_queue(scene):
        os.kill(scene.stage.running.redis.pid, signal.SIGKILL)
        scene.faults += 1
        scene.pause(0.5, 1.5)
        scene.stage.running.redis.stop()
        scene.stage.running.redis.start()
    scene.let_leases_pass()


@drill("redis-flushed", calm=True, settled_s=LETTER_S)
def redis_flushed(scene: Scene) -> None:
    """Somebody empties Redis, queues and all: every promise is rung for again."""
    with full_queue(scene), scene.stage.redis() as client:
        client.flushall()
        scene.faults += 1
    scene.let_leases_pass()


@drill("redis-full", calm=True, settled_s=LETTER_S, slowest_s=2)
def redis_full(scene: Scene) -> None:
    """Redis has no memory left and takes nothing: clients are served all the same, and the promises wait."""
    with scene.stage.redis() as client:
        client.config_set("maxmemory", "1")
        scene.faults += 1
        time.sleep(scene.chosen(15, 3))
        client.config_set("maxmemory", "0")
    scene.let_leases_pass()


@drill("redis-frozen", calm=True, settled_s=LETTER_S, slowest_s=2)
def redis_frozen(scene: Scene) -> None:
    """Redis stands still: clients are served all the same and quickly, and the promises wait."""
    with frozen(scene.stage.running.redis.pid):
        scene.faults += 1
        time.sleep(scene.chosen(30, 3))
    scene.let_leases_pass()


@drill("postgres-stopped-at-once", web_s=5, settled_s=LETTER_S)
def postgres_stopped(scene: Scene) -> None:
    """PostgreSQL is stopped at once and started again: 503 meanwhile, and what was acknowledged is there."""
    os.kill(scene.stage.running.postgres.pid, signal.SIGQUIT)
    scene.faults += 1
    scene.pause(1, 2)
    scene.stage.running.postgres.stop()
    scene.stage.running.postgres.start()
    scene.let_leases_pass()


@drill("postgres-frozen", web_s=5, settled_s=LETTER_S, slowest_s=4)
def postgres_frozen(scene: Scene) -> None:
    """PostgreSQL stands still: every answer is a 503 soon, none hangs, and the first success follows its return at once."""
    server = psutil.Process(scene.stage.running.postgres.pid)
    with frozen(server.pid, *(child.pid for child in server.children(recursive=True))):
        scene.faults += 1
        time.sleep(scene.chosen(10, 3))
    scene.let_leases_pass()
