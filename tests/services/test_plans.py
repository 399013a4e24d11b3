"""In a big fleet a hot statement reads what it answers by and little more, whichever plan PostgreSQL makes of it.

A plan is held by what it reads, not by the names of its indexes. A prepared statement is planned for any parameters or for
these, as PostgreSQL likes: both are tried. And what it knows of the tables may be of a time when nothing was open: then it may
read all that is open, but never what is over.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import psycopg2
import pytest
from flask import Flask

from fleet import clock, idempotency
from fleet.blueprints.rentals import RentalQuery
from fleet.db import Statement, db
from fleet.db.statements import prepared_form
from fleet.db.wire import each_within
from fleet.embedded import Databases
from fleet.models import access, calendar, rentals, vehicles
from fleet.models.availability import AVAILABLE, NEAREST_FREE, rentable
from fleet.models.base import A_FEW, Condition, Listing, in_state
from fleet.models.promises import PROMISE
from fleet.models.rentals import PICK_TO_RESERVE, READ_TO_RESERVE, RENTAL_STAMPS
from fleet.rules.periods import Period
from fleet.services import no_shows, occupancy
from tests import source
from tests.conftest import Sweeper

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
FILLED = (
    "branch, vehicle_class, vehicle, user_account, customer, user_session, api_key, idempotency_record, rental, vehicle_block"
)
SMALL = {"branch", "vehicle_class", "tax_code"}
"""Tables of some tens of rows, which nobody minds to be read whole."""
OPEN = 5300
PLANNED = ("force_generic_plan", "force_custom_plan")
THEN, NOW = "of a time when nothing was open", "of now"


def the(kind: int, n: int) -> UUID:
    """As `pg_temp.id` in big_fleet.sql."""
    return UUID(f"00000000-0000-7000-80{kind:02}-{n:012}")


BRANCH, CLASS, VEHICLE = the(1, 0), the(2, 0), the(3, 1000)
USER, SESSION, CUSTOMER = the(5, 919), the(6, 919), the(4, 919)
IDLE = the(3, 4000)
"""Has nothing open."""
OUT = the(7, 94_700 + 1000)
"""The rental that has the vehicle at the moment."""

AT = clock.now()
LATER = (AT + timedelta(days=300), AT + timedelta(days=303))
BUSY = (AT + timedelta(days=11), AT + timedelta(days=12))
SOON = (AT, AT + timedelta(days=3))
CLAIM = (1, f"user:{the(5, 1)}", "POST", "/v1/rentals", "key-1")
RENTER = (*CLAIM[:4], "a new key", CUSTOMER)


class Case(NamedTuple):
    """What a statement may read at most. A text is sent with its parameters every time, and planned for them."""

    statement: Statement | str
    params: Any
    rows: int = 5
    """Of the tables that are not small; those that it then passes over count too."""
    pages: int = 100
    """Of tables and indexes; one that is looked at again counts again."""


def listed(listing: Listing, *conditions: Condition, after: UUID | None = None, limit: int = 50) -> tuple[Statement, list[Any]]:
    sql, params = listing.statement([*conditions], after=after, limit=limit)
    return prepared_form(sql, len(params)), params


def asked(rows: int = 160, *, after: UUID | None = None, **query: Any) -> Case:
    """A page of rentals: each has a vehicle and a customer."""
    return Case(*listed(RENTAL_STAMPS, *RentalQuery.model_validate(query).conditions(), after=after), rows=rows, pages=800)


def due(vehicle_id: UUID | None = None, class_id: UUID | None = None) -> dict[str, Any]:
    return {"now": AT, "vehicle_id": vehicle_id, "class_id": class_id, "limit": 200}


_PAGE = "{" + ",".join(f"{the(7, n)}" for n in range(94_650, 94_750, 2)) + "}"
_NO_SHOWS = {"now": AT, "given_up": AT - timedelta(hours=24), "after": AT - timedelta(days=9), "after_id": OUT, "limit": 1000}

CASES = {
    # Twenty holds are over and not met by the sweep yet.
    "reserve": Case(READ_TO_RESERVE, (*RENTER, VEHICLE, None, AT, *LATER), rows=30),
    "reserve when others are out": Case(READ_TO_RESERVE, (*RENTER, IDLE, None, AT, *BUSY), rows=30),
    "reserve once more": Case(READ_TO_RESERVE, (*CLAIM, CUSTOMER, VEHICLE, None, AT, *LATER), rows=30),
    # Of a class of 500 each is looked at, for the best fit. Most pages are of the constraint's index, which is in the order of
    # times: to find one vehicle's last block there takes twenty of them.
    "reserve by class here": Case(PICK_TO_RESERVE, (*RENTER, CLASS, BRANCH, AT, *LATER), rows=600, pages=500),
    "reserve by class": Case(PICK_TO_RESERVE, (*RENTER, CLASS, None, AT, *LATER), rows=1200, pages=20_000),
    "reserve by class soon": Case(PICK_TO_RESERVE, (*RENTER, CLASS, None, AT, *SOON), rows=1200, pages=20_000),
    "any of the class": Case(rentals.ANY_FREE_OF_CLASS, (*RENTER, CLASS, None, AT, *SOON), rows=1200, pages=3000),
    "offer": Case(rentals.OFFER_OF_VEHICLE, (VEHICLE, None)),
    "customer to book": Case(rentals.CUSTOMER_TO_BOOK_FOR_UPDATE, (CUSTOMER,)),
    "count open": Case(rentals.COUNT_OPEN, (CUSTOMER, AT), rows=20),
    # Each hold that is over is found, written, and its block with it.
    "expire holds": Case(rentals.EXPIRE_HOLDS, due(), rows=80, pages=2000),
    "expire holds of a vehicle": Case(rentals.EXPIRE_HOLDS, due(vehicle_id=VEHICLE), rows=30),
    "expire holds of a class": Case(rentals.EXPIRE_HOLDS, due(class_id=CLASS), rows=80, pages=2000),
    "claim a key": Case(idempotency._TAKE, CLAIM),
    "rentals": asked(),
    "rentals, deep": asked(after=the(7, 1000)),
    "rentals of a customer": asked(customer_id=f"{CUSTOMER}"),
    "rentals of a vehicle": asked(vehicle_id=f"{VEHICLE}"),
    "rentals of a branch": asked(branch_id=f"{BRANCH}"),
    "rental by number": asked(number="RNT-5"),
    **{f"rentals that are {status}": asked(status=status) for status in ("held", "reserved", "active", "no_show")},
    # The newest are open.
    "rentals that are completed": asked(rows=OPEN + 160, status="completed"),
    # All that are out are looked at, because of the order.
    "rentals that are late": asked(rows=2200, overdue="true"),
    "rentals that are not late": asked(overdue="false"),
    "one rental": Case(*listed(rentals.RENTALS, Condition("rental.id = %s", (OUT,)), limit=0)),
    # For fifty of them PostgreSQL may think it cheaper to read all vehicles.
    "rentals with ids": Case(
        *listed(rentals.STAMPED_RENTALS, Condition("rental.id = ANY(%s)", (_PAGE,)), limit=200), rows=5200, pages=600
    ),
    "vehicle": Case(vehicles.VEHICLE_BY_ID, (VEHICLE,)),
    "actor of a session": Case(access.ACTOR_OF_SESSION, (SESSION, USER)),
    "actor stands": Case(access.ACTOR_STANDS, (SESSION, USER, ["customer"], CUSTOMER)),
    "actor of a key": Case(access.ACTOR_OF_API_KEY, (b"\0\0\0\7",)),
    "nearest free": Case(prepared_form(NEAREST_FREE, 7), (AT, SOON[1] - AT, OUT, AT, AT, AT, VEHICLE), rows=10),
    # Each of the class at the branch may have to be looked at, if few are free.
    "others instead": Case(
        *listed(
            AVAILABLE,
            *rentable(Period(*LATER), now=AT, late_until=AT),
            Condition("vehicle.class_id = %s AND vehicle.id <> %s", (CLASS, VEHICLE)),
            Condition("vehicle.branch_id = %s", (BRANCH,)),
            limit=A_FEW,
        ),
        rows=600,
        pages=1000,
    ),
    "calendar": Case(calendar.CALENDAR, (VEHICLE, LATER[0], AT - timedelta(days=300), None, None, 51), rows=30),
    "live calendar": Case(calendar.LIVE_CALENDAR, (VEHICLE, LATER[0], AT - timedelta(days=300))),
    "block by hand": Case(calendar.VEHICLE_TO_BLOCK_FOR_SHARE, (AT, VEHICLE)),
    "standing blocks": Case(calendar._STANDING, (VEHICLE, AT)),
    "clash": Case(occupancy._CLASH, (VEHICLE, OUT, *SOON)),
    "out late": Case(occupancy._OUT_LATE, (VEHICLE, OUT, AT)),
    "no-shows": Case(no_shows.DUE, _NO_SHOWS),
    # Thirty are late; to lock their vehicles PostgreSQL may read all of them.
    "overdue": Case(calendar.OVERDUE_VEHICLES_FOR_UPDATE, (AT,), rows=5200, pages=600),
    "extend overdue": Case(
        calendar.EXTEND_OVERDUE, (AT + timedelta(minutes=15), AT, [the(3, n) for n in range(15)]), rows=200, pages=2000
    ),
}  # fmt: skip

NO_PLAN = {
    PROMISE.name: "one row by its values",
    rentals.WRITE_RESERVATION.name: "rows by their values; the constraint looks for itself",
}


@pytest.fixture(scope="module")
def big_fleet(app: Flask, databases: Databases, sweeper: Sweeper) -> Iterator[None]:
    """The fleet as it is now, and what PostgreSQL knew of it before anything was open."""
    sweeper.empty()
    with each_within(60), closing(psycopg2.connect(databases.superuser_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        # The rows fit together; to look that up for each would take as long again.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute((HERE / "big_fleet.sql").read_text())
        cursor.execute(f"VACUUM ANALYZE {FILLED}")
        cursor.execute((HERE / "big_fleet_open.sql").read_text())
    yield
    sweeper.empty()


@pytest.fixture(scope="module", params=[THEN, NOW])
def knowledge(big_fleet: None, databases: Databases, request: pytest.FixtureRequest) -> str:
    """Of which time PostgreSQL knows how many rows there are of what."""
    if request.param == NOW:
        with each_within(60), closing(psycopg2.connect(databases.superuser_url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(f"VACUUM ANALYZE {FILLED}")
    return str(request.param)


def explained(case: Case, planned: str) -> dict[str, Any]:
    """The plan as it was run, and what it read; what it wrote is undone."""
    with db.atomic() as undone:
        sql = case.statement
        if isinstance(sql, Statement):
            statement = dataclasses.replace(sql, name="explained")
            db.execute_sql(f"SET LOCAL plan_cache_mode = {planned}")
            db.execute_sql(statement.prepare)
            sql = statement.execute
        [([plan],)] = db.rows(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", case.params)
        undone.rollback()
    db.execute_sql("DEALLOCATE ALL")
    db.connection().prepared.clear()
    root: dict[str, Any] = plan["Plan"]
    return root


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def rows_read(plan: dict[str, Any]) -> int:
    passed_over = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    return round(
        sum(
            node["Actual Loops"] * (node["Actual Rows"] + sum(node.get(name, 0) for name in passed_over))
            for node in nodes(plan)
            if node["Node Type"].endswith("Scan") and node.get("Relation Name", "tax_code") not in SMALL
        )
    )


def pages_read(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def outline(plan: dict[str, Any]) -> list[str]:
    read = [node for node in nodes(plan) if "Relation Name" in node]
    return [f"{node['Node Type']} {node.get('Index Name', node['Relation Name'])}" for node in read]


@pytest.mark.parametrize("name", CASES)
def test_a_statement_reads_no_more_than_it_needs(knowledge: str, name: str) -> None:
    case = CASES[name]
    # What is open, with its vehicles and customers.
    rows, pages = (case.rows, case.pages) if knowledge == NOW else (case.rows + 3 * OPEN, 10 * OPEN)
    for mode in PLANNED if isinstance(case.statement, Statement) else PLANNED[:1]:
        plan = explained(case, mode)
        assert rows_read(plan) <= rows, (mode, outline(plan))
        assert pages_read(plan) <= pages, (mode, outline(plan))


def test_every_statement_of_the_models_is_held_to_a_plan() -> None:
    modules = [vars(import_module(name)) for name in source.of_room("fleet.models")]
    named = {item.name for module in modules for item in module.values() if isinstance(item, Statement)}
    held = {case.statement.name for case in CASES.values() if isinstance(case.statement, Statement)}
    assert named - held == set(NO_PLAN)


@pytest.mark.parametrize("state", ["", "held'", "held' OR true --", "a b"])
def test_nothing_but_a_word_becomes_part_of_a_statement(state: str) -> None:
    with pytest.raises(ValueError, match="no state"):
        in_state("rental.status", state)
