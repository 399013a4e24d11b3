"""The people, places and vehicles of the tests. Rows go in by SQL: the cast depends on no service that it helps to test."""

import itertools
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from flask import Flask
from werkzeug.test import TestResponse

from fleet import auth, clock
from fleet.db import db

PASSWORD = "correct horse battery staple"
_PASSWORD_HASH = auth.hash_password(PASSWORD)
_numbers = itertools.count(1)


def insert(table: str, **values: Any) -> UUID:
    """A row with a fresh id; dicts become JSON."""
    values = {"id": clock.new_id(), **values}
    columns, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    db.execute_sql(f"INSERT INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))
    return values["id"]


class Answer(TestResponse):
    """A response whose JSON the test knows the shape of."""

    json: Any


def request(app: Flask, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """One request with these headers and no others; `body` goes as JSON, bytes as they are."""
    data = body if body is None or isinstance(body, bytes) else orjson.dumps(body)
    content_type = None if body is None else "application/json"
    client = app.test_client()
    return typing.cast(Answer, client.open(path, method=method, data=data, content_type=content_type, headers=headers))


@dataclass
class Person:
    """Somebody with a session, who calls the API."""

    app: Flask
    user_id: UUID
    roles: list[str]
    email: str
    customer_id: UUID | None = None
    session_id: UUID = field(init=False)

    def __post_init__(self) -> None:
        self.session_id = insert("user_session", user_id=self.user_id, expires_at=clock.now() + timedelta(days=30))

    @property
    def token(self) -> str:
        """A fresh access token: tests travel in time, further than a token lives."""
        tokens = self.app.extensions["fleet"].tokens
        return tokens.issue(user_id=self.user_id, session_id=self.session_id, at=clock.now())

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def actor(self) -> auth.Actor:
        """The person as the services see them."""
        return auth.Actor(
            user_id=self.user_id,
            roles=tuple(self.roles),
            permissions=auth.permissions_of(self.roles),
            customer_id=self.customer_id,
            session_id=self.session_id,
        )

    def known(self) -> "Person":
        """Somebody whose session the service remembers from an earlier request."""
        assert self.get("/v1/auth/me").status_code == 200
        return self

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, None, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("POST", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("PUT", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: str) -> Answer:
        return self.call("PATCH", path, body, **headers)

    def delete(self, path: str, **headers: str) -> Answer:
        return self.call("DELETE", path, None, **headers)

    def call(self, method: str, path: str, body: Any, **headers: str) -> Answer:
        """One request. `key=` sends Idempotency-Key, `version=` sends If-Match; other keywords are headers."""
        sent = dict(self.headers)
        if "key" in headers:
            sent["Idempotency-Key"] = headers.pop("key")
        if "version" in headers:
            sent["If-Match"] = f'"{headers.pop("version")}"'
        sent.update({name.replace("_", "-"): value for name, value in headers.items()})
        return request(self.app, method, path, body, sent)


class Cast:
    """One of each, and makers of more."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.tax = insert_tax("PT-23", 2300)
        self.lisbon = insert(
            "branch", code="LIS", name="Lisbon Airport", timezone="Europe/Lisbon", currency="EUR", tax_code="PT-23"
        )
        self.compact = insert(
            "vehicle_class",
            code="COMPACT",
            name="Compact",
            daily_rate=4500,
            currency="EUR",
            late_fee_per_hour=1200,
            fuel_fee_per_percent=100,
            cancellation_fee=2000,
            free_cancellation_hours=24,
            no_show_fee=4500,
            turnaround_after_minutes=60,
        )
        self.corolla = self.vehicle(plate_number="AA-11-BB", make="Toyota", model="Corolla")
        self.admin = self.person("admin")
        self.manager = self.person("fleet_manager")
        self.agent = self.person("rental_agent")
        self.mechanic = self.person("maintenance_staff")
        self.accountant = self.person("accountant")
        self.driver = self.person("driver")
        self.ana = self.renter("Ana", "Silva")
        self.ben = self.renter("Ben", "Costa")

    @property
    def staff(self) -> dict[str, Person]:
        return {
            "admin": self.admin,
            "fleet_manager": self.manager,
            "rental_agent": self.agent,
            "maintenance_staff": self.mechanic,
            "accountant": self.accountant,
            "driver": self.driver,
            "customer": self.ana,
        }

    def person(self, *roles: str) -> Person:
        email = f"{roles[0]}-{next(_numbers)}@example.com"
        user_id = insert(
            "user_account",
            email=email,
            password_hash=_PASSWORD_HASH,
            first_name=roles[0].title(),
            last_name="Tester",
            roles=list(roles),
        )
        return Person(self.app, user_id, list(roles), email)

    def renter(self, first_name: str, last_name: str) -> Person:
        """A user with the role customer and a renter's profile."""
        person = self.person("customer")
        person.customer_id = self.customer(
            first_name=first_name, last_name=last_name, email=person.email, user_id=person.user_id
        )
        return person

    def customer(self, **values: Any) -> UUID:
        """A renter's profile; without a user unless `user_id` is given."""
        number = next(_numbers)
        defaults = {
            "first_name": "Carla",
            "last_name": f"Renter {number}",
            "email": f"renter-{number}@example.com",
            "phone": "+351210000000",
            "driver_license_number": f"L{number:08d}",
            "driver_license_expiry": "2099-12-31",
        }
        return insert("customer", **{**defaults, **values})

    def vehicle(self, **values: Any) -> UUID:
        """A compact at Lisbon, in service."""
        defaults = {
            "plate_number": f"ZZ-{next(_numbers):04d}",
            "make": "Renault",
            "model": "Clio",
            "year": 2024,
            "class_id": self.compact,
            "branch_id": self.lisbon,
            "currency": "EUR",
        }
        return insert("vehicle", **{**defaults, **values})


def insert_tax(code: str, rate_bps: int) -> str:
    db.execute_sql("INSERT INTO tax_code (code, name, rate_bps) VALUES (%s, %s, %s)", (code, code, rate_bps))
    return code


def at(days: float = 0, hours: float = 0) -> datetime:
    """An instant so far from the coming full hour."""
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return hour + timedelta(days=days, hours=hours)


def iso(instant: datetime) -> str:
    return instant.isoformat().replace("+00:00", "Z")
