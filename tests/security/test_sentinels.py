"""Words that would be known again anywhere are sent through the whole product: none may turn up where it is not needed.

The real web, worker, relay and beat run at their most talkative, and everything that is sent to Redis (messages with their
arguments, cache, counters) is listened to.
"""

import base64
import http.client
import json
import re
import secrets as random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis

from fleet.db import db
from fleet.embedded import Databases
from fleet.embedded.server import usable_port
from tests.cast import Cast, at, iso
from tests.tasks.conftest import broker, processes_environment
from tests.tasks.crew import BEAT, RELAY, TIMEOUT_S, WORKER, await_, lines, running

__all__ = ["broker", "processes_environment"]

WEB = [sys.executable, "-m", "gunicorn", "--config", "deploy/gunicorn.conf.py", "wsgi:app"]
MARK = random.token_hex(4)
GIVEN = {
    "first_name": f"Zebedee{MARK}",
    "last_name": f"Quixote{MARK}",
    "email": f"zebedee.{MARK}@example.com",
    "phone": f"+351 91{int(MARK, 16) % 10**7:07}",
    "driver_license_number": f"LIC{MARK}".upper(),
    "address": f"Rua {MARK} 7",
    "date_of_birth": "1931-07-13",
}
PASSWORD, WRONG, NOTES, CARD = f"pass-{MARK}-phrase", f"wrong-{MARK}-phrase", f"notes {MARK}", f"pm_{MARK}card"
# What the service makes and says only once is added while the story goes on.
SENTINELS = {*GIVEN.values(), PASSWORD, WRONG, NOTES, CARD}
# Where rows of people themselves and their sealed or hashed secrets lie; everything else is looked through.
KEPT_IN = {"customer", "user_account", "rental", "idempotency_record", "payment"}


class Caller:
    """Calls the real web process; keeps every answer that refuses."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refusals: list[str] = []

    def call(self, method: str, path: str, body: Any = None, token: str | None = None, **headers: str) -> Any:
        sent = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {}), **headers}
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status >= 400:
            self.refusals.append(text)
        return json.loads(text) if answer.headers.get_content_subtype() in {"json", "problem+json"} else text


@contextmanager
def listening(url: str) -> Iterator[list[str]]:
    """Everything that is sent to this Redis meanwhile."""
    heard: list[str] = []
    client = redis.Redis.from_url(url)
    with client.monitor() as monitor:

        def listen() -> None:
            try:
                for command in monitor.listen():
                    heard.append(command["command"])
            except (redis.RedisError, ValueError, OSError, AttributeError):
                return  # closed: the story is over

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield heard
        client.ping()
        await_(lambda: "PING" in heard[-50:])
        monitor.connection.disconnect()
        thread.join(5)


def story(web: Caller, cast: Cast) -> str:
    """Somebody registers, signs in, rents and is refused this and that. Returns their access token."""
    login = {"email": GIVEN["email"], "password": PASSWORD}
    person = {name: GIVEN[name] for name in ("first_name", "last_name", "email", "phone")}
    web.call("POST", "/v1/auth/register", {**person, "password": PASSWORD})
    web.call("POST", "/v1/auth/login", {**login, "password": WRONG})
    tokens = web.call("POST", "/v1/auth/login", login)
    again = web.call("POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    web.call("POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})  # shown twice: a theft
    token = web.call("POST", "/v1/auth/login", login)["access_token"]
    SENTINELS.update([tokens["refresh_token"], tokens["access_token"], again["refresh_token"], again["access_token"], token])
    profile = {**GIVEN, "driver_license_expiry": "2099-12-31"}
    customer = web.call("POST", "/v1/customers", profile, token, **{"Idempotency-Key": "profile"})
    web.call("POST", "/v1/customers", profile, cast.agent.token)
    web.call("POST", "/v1/customers", {**profile, "email": f"@{GIVEN['email']}", "phone": [GIVEN["phone"]]}, cast.agent.token)
    web.call("POST", "/v1/customers", json.dumps(profile)[:-3].encode(), cast.agent.token)
    web.call("GET", f"/v1/customers?q={GIVEN['email']}", token=cast.agent.token)
    key = {"name": NOTES, "permissions": ["rentals.read"], "expires_at": iso(at(30))}
    made = web.call("POST", "/v1/api-keys", key, token)["key"]
    web.call("GET", "/v1/rentals", token=made)
    web.call("GET", f"/v1/rentals?access_token={made}", token=f"{made[:-1]}!")
    hook = web.call("POST", "/v1/webhook-endpoints", {"url": "https://203.0.114.7/hooks"}, cast.admin.token)
    SENTINELS.update([made, hook["secret"], hook["secret"].removeprefix("whsec_")])
    web.call("POST", "/admin/cache/flush", {}, cast.admin.token)
    rent(web, cast, customer["id"], token)
    return str(token)


def rent(web: Caller, cast: Cast, customer_id: str, token: str) -> None:
    """A rental with notes, handed over, brought back and paid: by card without a gateway, then by a transfer."""
    booking = {"vehicle_id": str(cast.corolla), "start_at": iso(at(hours=-1)), "end_at": iso(at(2)), "notes": NOTES}
    rental = web.call(
        "POST", "/v1/rentals", {"customer_id": customer_id, **booking}, cast.agent.token, **{"Idempotency-Key": "rental"}
    )
    out, back = {"start_odometer_km": 10, "fuel_level_percent": 100}, {"end_odometer_km": 99, "fuel_level_percent": 50}
    path = f"/v1/rentals/{rental['id']}"
    web.call("POST", f"{path}/activate", out, cast.agent.token)
    assert web.call("POST", f"{path}/complete", back, cast.agent.token, **{"Idempotency-Key": "back"})["status"] == "completed"
    [invoice] = web.call("GET", f"/v1/invoices?rental_id={rental['id']}", token=token)["data"]
    payment = {"invoice_id": invoice["id"], "amount": 100, "currency": "EUR", "method": "card", "reference": CARD}
    web.call("POST", "/v1/payments", payment, token, **{"Idempotency-Key": "card"})
    paid = {**payment, "method": "bank_transfer", "reference": NOTES}
    assert web.call("POST", "/v1/payments", paid, cast.agent.token, **{"Idempotency-Key": "transfer"})["status"] == "captured"


def found_in(text: str) -> set[str]:
    """Which sentinels stand there, also where JSON, repr or a URL spells them in its own way."""
    plain = text.replace("\\/", "/").replace("%40", "@").replace("%2B", "+").replace("%20", " ")
    return {sentinel for sentinel in SENTINELS if sentinel in plain}


def unpacked(heard: list[str]) -> list[str]:
    """The messages of tasks among what was heard: their arguments lie in base64."""
    packed = {word for command in heard for word in re.findall(r"[A-Za-z0-9+/]{40,}={0,2}", command) if len(word) % 4 == 0}
    return [base64.b64decode(word).decode(errors="replace") for word in packed]


def tables_of(databases: Databases) -> dict[str, str]:
    """All rows of all tables, as text."""
    with closing(psycopg2.connect(databases.superuser_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        texts = {}
        for (name,) in cursor.fetchall():
            cursor.execute(f"SELECT coalesce(string_agg(t::text, ' '), '') FROM {name} t")
            [texts[name]] = cursor.fetchone() or [""]
    return texts


@pytest.mark.slow
def test_no_secret_and_nothing_personal_leaves_its_place(
    cast: Cast, broker: Any, processes_environment: dict[str, str], databases: Databases, tmp_path: Path
) -> None:
    port = usable_port(None)
    environment = {**processes_environment, "PORT": str(port), "WEB_CONCURRENCY": "1", "LOG_LEVEL": "DEBUG"}
    commands = {"web": WEB, "worker": WORKER, "relay": RELAY, "beat": [*BEAT, str(tmp_path / "schedule")]}
    web = Caller(port)
    with listening(databases.redis_url) as heard, ExitStack() as crew:
        running_now = [
            crew.enter_context(running(command, environment, tmp_path / f"{name}.log")) for name, command in commands.items()
        ]
        await_(lambda: answers(web))
        token = story(web, cast)
        await_(lambda: db.one("SELECT count(*) FROM outbox WHERE confirmed_at IS NULL") == (0,))
        SENTINELS.add(environment["SECRET_KEY"])
        metrics = web.call("GET", "/metrics")
        for process in running_now:
            process.send_signal(signal.SIGTERM)
        for process in running_now:
            process.wait(TIMEOUT_S)

    logs = {name: (tmp_path / f"{name}.log").read_text() for name in commands}
    rows = tables_of(databases)
    places = {
        **{f"log of {name}": text for name, text in logs.items()},
        **{f"table {name}": text for name, text in rows.items() if name not in KEPT_IN},
        "Redis": " ".join([*heard, *unpacked(heard)]), "refusals": " ".join(web.refusals), "metrics": metrics,
    }  # fmt: skip
    leaks = {place: found_in(text) for place, text in places.items() if found_in(text)}
    assert leaks.pop("table api_key") == {NOTES}, "a key has the name that its owner gave it"
    assert leaks == {}
    looked_at(web, token, logs, rows, heard, tmp_path)


def looked_at(web: Caller, token: str, logs: dict[str, str], rows: dict[str, str], heard: list[str], directory: Path) -> None:
    """That nothing was found means something: the story reached every place, and what is there would have been seen."""
    assert len(web.refusals) >= 7 and all('"code"' in refusal for refusal in web.refusals)
    assert all(len(lines(directory / f"{name}.log")) > 1 for name in ("web", "worker", "relay"))
    assert logs["beat"] and '"handled"' in logs["worker"] and '"relayed"' in logs["relay"]
    [(invoice_promise,)] = db.rows("SELECT id FROM outbox WHERE topic = 'accounting.post_invoice'")
    assert any(str(invoice_promise) in message for message in unpacked(heard)), "the arguments of tasks are looked at"
    assert all(rows[table] for table in ("outbox", "event", "audit_event", "inbox", "notification", "journal_entry"))
    mails = " ".join(path.read_text() for path in (directory / "mail").rglob("*.eml"))
    assert GIVEN["email"] in mails, "the letters are where the address is needed"
    assert found_in(f"?q={GIVEN['email'].replace('@', '%40')}") == {GIVEN["email"]}
    assert found_in(json.dumps({"token": token})) == {token}


def answers(web: Caller) -> bool:
    """Whether the web process is up."""
    try:
        return "status" in web.call("GET", "/health/live")
    except OSError:
        time.sleep(0.1)
        return False
