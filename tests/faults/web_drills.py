"""Faults of the web processes, and clients who all want the same."""

import signal
import time
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg2

from tests.faults.clients import FOUGHT_FOR, SLOT, all_at_once
from tests.faults.drills import LETTER_S, drill
from tests.faults.scene import Scene
from tests.faults.seizing import RESERVATION, kill_at

CROWD = 50


@drill("web-killed-mid-request", boots=3)
def web_killed_mid_request(scene: Scene) -> None:
    """A web worker dies before the COMMIT of a reservation: nothing of it exists, and the same key then makes one."""
    for _ in range(3):
        kill_at(scene.stage, RESERVATION, lambda: scene.stage.children("web"), committed=False)
        scene.faults += 1
        scene.pause(0.1, 0.5)


@drill("web-killed-before-answer", boots=3)
def web_killed_before_answer(scene: Scene) -> None:
    """A web worker dies after the COMMIT and before the answer: the same key gets the answer that nobody heard."""
    for _ in range(3):
        kill_at(scene.stage, RESERVATION, lambda: scene.stage.children("web"), committed=True)
        scene.faults += 1
        scene.pause(0.1, 0.5)


@drill("answers-lost", calm=True, drops=0.3)
def answers_lost(scene: Scene) -> None:
    """Three answers in ten never reach their client, who asks again: everything exists once."""
    time.sleep(scene.chosen(6, 2))
    scene.faults += sum(seen.thrown_away for seen in scene.stage.history.of_drill(scene.drill))


@drill("one-key-50", calm=True)
def one_key_50(scene: Scene) -> None:
    """Fifty requests with one key at once: one reservation, and one answer for all."""
    vehicle, start_at = scene.wishes.own()
    clients = [scene.client(99) for _ in range(CROWD)]
    key = clients[0].new_key()
    seen = all_at_once([partial(client.reserve, vehicle, start_at, key=key, customer=1) for client in clients])
    scene.faults += 1
    scene.expect({(one.status, one.answer) for one in seen} == {(201, seen[0].answer)}, "fifty requests, several answers")
    for client in clients:
        client.hang_up()


@drill("one-slot-50", calm=True)
def one_slot_50(scene: Scene) -> None:
    """Fifty clients want one vehicle at one time: one gets it, and forty-nine hear that it is taken."""
    start_at = scene.wishes.first_day + timedelta(days=20) - SLOT
    clients = [scene.client(number) for number in range(CROWD)]
    seen = all_at_once([partial(client.reserve, FOUGHT_FOR[0], start_at) for client in clients])
    scene.faults += 1
    statuses = sorted(one.status or 0 for one in seen)
    scene.expect(statuses == [201, *[409] * (CROWD - 1)], f"fifty clients, one slot: {statuses}")
    for client in clients:
        client.hang_up()


@drill("hup-under-load", calm=True, boots=3)
def hup_under_load(scene: Scene) -> None:
    """New code comes in by HUP while clients are at work: none of them notices."""
    for _ in range(2):
        before = {child.pid for child in scene.stage.children("web")}
        scene.stage.processes["web"].send_signal(signal.SIGHUP)
        scene.faults += 1
        scene.until(partial(_replaced, scene, before), 40, "new web workers")
        scene.stage.await_ready()
        scene.pause(0.3, 0.8)


def _replaced(scene: Scene, before: set[int]) -> bool:
    return before.isdisjoint(child.pid for child in scene.stage.children("web"))


@drill("row-locked", slowest_s=6)
def row_locked(scene: Scene) -> None:
    """Somebody keeps a vehicle's row locked: who wants that one hears 503 soon, everybody else is served."""
    vehicle, start_at = scene.wishes.own()
    client = scene.client(90)
    client.give_up_at = 0
    with scene.stage.connection() as connection, connection.cursor() as cursor:
        connection.autocommit = False
        cursor.execute("SELECT 1 FROM vehicle WHERE id = drill_id(3, %s) FOR UPDATE", (vehicle,))
        scene.faults += 1
        until = time.monotonic() + scene.chosen(10, 2)
        key = client.new_key()
        seen = [client.reserve(vehicle, start_at, key=key)]
        while time.monotonic() < until:
            seen.append(client.send("reserve", "/v1/rentals", seen[0].sent, key))
        connection.rollback()
    scene.expect(all(one.unavailable for one in seen), f"behind a locked row: {[one.status for one in seen]}")
    scene.expect(max(one.seconds for one in seen) < 3, "behind a locked row a client waited for more than 3 s")
    scene.expect(client.send("reserve", "/v1/rentals", seen[0].sent, key).status == 201, "the freed vehicle is not to be had")
    client.hang_up()


@drill("slow-query", slowest_s=6)
def slow_query(scene: Scene) -> None:
    """Writing takes the database longer than anybody should wait: 503 at the timeout, and nothing half-done."""
    scene.stage.sql("UPDATE drill_switch SET slow_s = 5")
    scene.faults += 1
    time.sleep(scene.chosen(6, 3))
    scene.stage.sql("UPDATE drill_switch SET slow_s = 0")


def _all_connections(scene: Scene) -> list[Any]:
    """Take every connection. The service's own are ended when there is no other, again and again: ended before, it would
    have them back before so many strangers have come."""
    taken: list[Any] = []
    until, in_vain = time.monotonic() + 30, 0
    while in_vain < 10 and time.monotonic() < until:
        try:
            taken.append(psycopg2.connect(scene.stage.running.database_url))
            in_vain = 0
        except psycopg2.OperationalError:
            ended = scene.stage.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'fleet_runtime'")
            in_vain = 0 if ended else in_vain + 1
            time.sleep(0 if ended else 0.02)
    return taken


@drill("connections-exhausted", settled_s=LETTER_S)
def connections_exhausted(scene: Scene) -> None:
    """Strangers hold every connection of the database and the service has lost its own: 503 until they let go."""
    strangers = _all_connections(scene)
    time.sleep(scene.chosen(6, 3))
    scene.faults += 1
    [(kept,)] = scene.stage.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'fleet_runtime'")
    scene.expect(kept == 0, f"the service kept {kept} connections")
    scene.remarks.append(f"{len(strangers)} strangers")
    for stranger in strangers:
        stranger.close()
    scene.let_leases_pass()
