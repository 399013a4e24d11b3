"""The published document as a machine reads it: generated calls get documented answers, and never one of 5xx."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.cast import Cast, Person

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 12
# It ends the sessions that the other calls are made in.
LEFT_OUT = {"/v1/auth/logout"}


@pytest.fixture(scope="module")
def operations(crew: Cast) -> list[APIOperation]:
    """Every operation of the document, served by the application in this process."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", crew.app)
    return [found.ok() for found in schema.get_all_operations() if found.ok().path not in LEFT_OUT]


def known_ids(crew: Cast) -> dict[str, list[str]]:
    """Things that exist, by the parameter that names them: generated ids alone would only ever be unknown."""
    return {
        "vehicle_id": [f"{crew.corolla}", f"{crew.vehicle()}"],
        "branch_id": [f"{crew.lisbon}"],
        "class_id": [f"{crew.compact}"],
        "customer_id": [f"{crew.ana.customer_id}", f"{crew.ben.customer_id}"],
        "user_id": [f"{crew.driver.user_id}"],
    }


def explore(person: Person, operation: APIOperation, ids: dict[str, list[str]]) -> int:
    """Call the operation with generated input as this person, and hold each answer to the document."""
    chooser, calls = random.Random(2026), 0

    @seed(2026)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy())
    def call(case: Case) -> None:
        nonlocal calls
        calls += 1
        for name in case.path_parameters:
            if name in ids and chooser.random() < 0.7:
                case.path_parameters[name] = chooser.choice(ids[name])
        case.call_and_validate(headers=person.headers, checks=CHECKS)

    call()
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("role", ["admin", "customer"])
def test_generated_calls_get_documented_answers(crew: Cast, operations: list[APIOperation], role: str) -> None:
    ids, failures, calls = known_ids(crew), [], 0
    for operation in operations:
        try:
            calls += explore(crew.staff[role], operation, ids)
        except BaseExceptionGroup as group:
            failures += [f"{operation.label}: {failure}" for failure in group.exceptions]
        except AssertionError as failure:
            failures.append(f"{operation.label}: {failure}")
    assert not failures, "\n\n".join(failures)
    assert calls > 5 * len(operations)
