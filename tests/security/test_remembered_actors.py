"""The service remembers who a session is; what changed meanwhile counts at the very next request all the same."""

from uuid import uuid4

import peewee
import pytest

from fleet.db import AssumptionFailed, Statement, db, transaction
from fleet.models.access import Session, User
from fleet.models.branches import Branch
from fleet.services import actors
from tests.cast import Cast

BRANCH = {"code": "OPO", "name": "Porto", "timezone": "Europe/Lisbon", "currency": "EUR"}


def lose_all_but(cast: Cast, role: str) -> None:
    User.update(roles=[role]).where(User.id == cast.manager.user_id).execute()


def test_a_role_that_was_lost_is_lost_at_the_next_request_and_nothing_is_written(cast: Cast) -> None:
    cast.manager.known()
    lose_all_but(cast, "driver")
    before = Branch.select().count()
    assert cast.manager.post("/v1/branches", BRANCH).status_code == 403
    assert cast.manager.post("/v1/branches", BRANCH, key=str(uuid4())).status_code == 403
    assert Branch.select().count() == before


def test_a_role_that_was_gained_counts_at_the_next_request(cast: Cast) -> None:
    cast.driver.known()
    assert cast.driver.post("/v1/branches", BRANCH).status_code == 403
    User.update(roles=["fleet_manager"]).where(User.id == cast.driver.user_id).execute()
    assert cast.driver.post("/v1/branches", BRANCH, key=str(uuid4())).status_code == 201
    assert Branch.select().where(Branch.code == "OPO").count() == 1


NOBODYS = "/v1/rentals/0193e0a0-0000-7000-8000-000000000000"


@pytest.mark.parametrize("path", ["/v1/rentals", "/v1/rentals?limit=0", "/v1/rentals?nothing=1", NOBODYS])
def test_a_session_that_ended_is_refused_whatever_is_asked(cast: Cast, path: str) -> None:
    cast.agent.known()
    Session.update(ended_at=Session.created_at, end_reason="logout").where(Session.id == cast.agent.session_id).execute()
    for _ in range(2):
        assert cast.agent.get(path).status_code == 401
        assert cast.agent.post("/v1/rentals", {"nonsense": 1}, key="a-key").status_code == 401


def test_a_user_who_became_a_customer_is_one_at_the_next_request(cast: Cast) -> None:
    cast.driver.known()
    remembered = actors._remembered[cast.driver.session_id]
    assert remembered.customer_id is None
    User.update(roles=["customer"]).where(User.id == cast.driver.user_id).execute()
    body = {
        "first_name": "Dan", "last_name": "Driver", "email": "dan@example.com", "phone": "+351912345678",
        "driver_license_number": "D-1", "driver_license_expiry": "2039-01-01",
    }  # fmt: skip
    created = cast.driver.post("/v1/customers", body)
    assert created.status_code == 201, created.json
    assert cast.driver.get(created.headers["Location"]).status_code == 200


def test_a_request_that_is_served_over_counts_once_against_the_limit(cast: Cast) -> None:
    left = int(cast.manager.known().get("/v1/branches").headers["RateLimit-Remaining"])
    lose_all_but(cast, "rental_agent")
    assert int(cast.manager.get("/v1/branches").headers["RateLimit-Remaining"]) == left - 1


def test_a_check_that_died_with_a_statement_is_made_again(cast: Cast) -> None:
    cast.agent.known()
    actor = actors._remembered[cast.agent.session_id]
    Session.update(ended_at=Session.created_at, end_reason="logout").where(Session.id == cast.agent.session_id).execute()
    with pytest.raises(AssumptionFailed), actors.assumed(actor), pytest.raises(peewee.ProgrammingError):
        db.execute_sql("SELEC nonsense")  # the whole message is refused, the check in it too


def test_nothing_is_committed_that_nobody_checked(cast: Cast) -> None:
    cast.agent.known()
    with actors.assumed(actors._remembered[cast.agent.session_id]), transaction(), pytest.raises(RuntimeError):
        db.run_and_commit(Statement("unchecked", (), "SELECT 1"), ())


def test_an_assumption_ends_with_its_request_however_that_ends(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    cast.agent.known()
    actor = actors._remembered[cast.agent.session_id]
    Session.update(ended_at=Session.created_at, end_reason="logout").where(Session.id == cast.agent.session_id).execute()

    def refuse() -> None:
        raise peewee.OperationalError("no connections left")

    with monkeypatch.context() as away, pytest.raises(peewee.OperationalError), actors.assumed(actor):
        db.connection().close()
        away.setattr(db, "_connect", refuse)
    assert db.one("SELECT 1") == (1,), "the thread's next request has nothing to do with it"
