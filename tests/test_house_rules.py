"""The rules of the house that a reader relies on and a reviewer forgets: which way the code depends, what a route says."""

import ast
import re
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from flask import Flask
from werkzeug.routing import Rule

import tasks
from fleet import auth, openapi
from fleet.http import PUBLIC, Operation
from fleet.models.base import Versioned
from tests import source
from tests.source import files, functions, imports, of_room

LONGEST_FILE = 600
CALM_FUNCTION, CALM_FILE = 26, 260

# What may know whom: a room knows those with a lower number, and its own.
FOUNDATION = (
    "auth", "breakers", "bulkheads", "cache", "clock", "config", "db", "deadline", "errors", "idempotency", "limits", "logs",
    "metrics", "parsing", "passwords", "outages", "redis_line", "sealing",
)  # fmt: skip
WEB = ("admission", "answers", "http", "observe", "openapi", "paging", "problems", "rendering", "wiring")
RANKS = {
    "fleet.rules": 0,
    **{f"fleet.{name}": 1 for name in FOUNDATION},
    "fleet.models": 2,
    "fleet.gateways": 2,
    "fleet.services": 3,
    **{f"fleet.{name}": 4 for name in WEB},
    "fleet.blueprints": 5,
    "fleet.demo": 5,
    "fleet.cli": 6,
    "fleet.grants": 2,
    "fleet.cli_dead_letters": 6,
    "fleet.cli_audit": 6,
    "fleet.cli_operator": 6,
    "fleet.cli_secrets": 6,
    "tasks": 7,
    "app": 8,
    "wsgi": 9,
}
APART = ("fleet.embedded", "fleet.migrations")

NO_OPERATION = {
    "operations.docs": "a page for people",
    "operations.docs_file": "the files of that page",
}
NO_IF_MATCH = {
    "DELETE /v1/api-keys/<uuid:key_id>": "a key is never edited, so it has no version",
    "DELETE /v1/auth/sessions": "ends whatever sessions there are",
    "DELETE /v1/auth/sessions/<uuid:session_id>": "a session is never edited, so it has no version",
    "DELETE /v1/users/<uuid:user_id>/sessions": "ends whatever sessions there are",
    "DELETE /v1/users/<uuid:user_id>/second-factor": "a factor is never edited, so it has no version",
    "DELETE /v1/vehicles/<uuid:vehicle_id>/blocks/<uuid:block_id>": "a block is never edited, so it has no version",
}
NO_IDEMPOTENCY = {
    "POST /v1/auth/login": "the answer carries tokens, which are stored nowhere",
    "POST /v1/auth/refresh": "the answer carries tokens, which are stored nowhere",
    "POST /v1/auth/register": "the request carries a password, and a second account of one e-mail is a duplicate",
    "POST /v1/auth/logout": "a second one finds the session ended",
    "POST /v1/auth/password": "a second one finds the password changed",
    "POST /v1/auth/password-reset/confirm": "a token works once",
    "POST /v1/auth/email-verification/confirm": "a token works once",
    "POST /v1/auth/second-factor": "the answer carries the secret, which is stored nowhere in clear",
    "POST /v1/auth/second-factor/confirm": "the answer carries the recovery codes, and a code works once",
    "POST /v1/auth/second-factor/recovery-codes": "the answer carries the recovery codes, and a code works once",
    "POST /v1/auth/second-factor/disable": "a second one finds it disabled",
    "POST /v1/stripe/webhook": "an event carries its own id",
    "POST /v1/api-keys": "the answer carries the key, which is stored nowhere",
    "POST /v1/webhook-endpoints": "the answer carries the secret, which is stored nowhere in clear",
    "POST /v1/webhook-endpoints/<uuid:endpoint_id>/rotate-secret": "the answer carries the secret",
    "POST /v1/unsubscribe": "the link says all, and a second click finds it done",
}

Described = tuple[Rule, str, Operation, Callable[..., Any]]


def rank(module: str) -> int:
    """The rank of the room that a module stands in."""
    rooms = [room for room in RANKS if module == room or module.startswith(f"{room}.")]
    assert rooms, f"{module} stands in no room of RANKS"
    return RANKS[max(rooms, key=len)]


def ours(module: str) -> bool:
    return module.partition(".")[0] in {"fleet", "tasks", "app", "wsgi"} and module != "fleet"


def ranked() -> list[str]:
    return [name for name in files() if ours(name) and not name.startswith(APART)]


@pytest.fixture(scope="module")
def operations(app: Flask) -> list[Described]:
    return list(openapi.operations(app))


def named(rule: Rule, method: str) -> str:
    return f"{method} {rule.rule}"


class TestImports:
    def test_the_arrow_never_turns_round(self) -> None:
        turned = [
            f"{name} imports {module}"
            for name in ranked()
            for module in imports(name)
            if ours(module) and not module.startswith(APART) and rank(module) > rank(name)
        ]
        assert not turned

    def test_the_service_knows_neither_its_workers_nor_its_app(self) -> None:
        doors = {"tasks", "app", "wsgi"}
        assert not {name for name in of_room("fleet") if {module.partition(".")[0] for module in imports(name)} & doors}

    def test_rules_know_nothing_but_rules_and_what_comes_with_python(self) -> None:
        foreign = [
            f"{name} imports {module}"
            for name in of_room("fleet.rules")
            for module in imports(name)
            if not (module.startswith("fleet.rules") or source.is_standard(module))
        ]
        assert not foreign

    def test_only_the_app_imports_blueprints(self) -> None:
        elsewhere = [name for name in files() if name != "app" and not name.startswith("fleet.blueprints")]
        assert not [name for name in elsewhere if any(module.startswith("fleet.blueprints.") for module in imports(name))]

    @pytest.mark.parametrize("room", ["fleet.rules", "fleet.models", "fleet.services", "fleet.gateways", "tasks", "fleet.auth"])
    def test_flask_stays_at_the_web_door(self, room: str) -> None:
        assert not [name for name in of_room(room) if any(module.startswith("flask") for module in imports(name))]

    def test_blueprints_leave_the_database_to_services(self) -> None:
        probes = "fleet.blueprints.operations"
        assert not [name for name in of_room("fleet.blueprints") if "fleet.db" in imports(name) and name != probes]

    def test_nothing_that_is_deployed_needs_the_embedded_databases(self) -> None:
        deployed = [name for name in files() if not name.startswith("fleet.embedded")]
        assert not [name for name in deployed if any(module.startswith("fleet.embedded") for module in imports(name))]

    def test_nothing_imports_inside_a_function(self) -> None:
        inside = [
            f"{name}:{node.lineno}"
            for name in files()
            for function in functions(name)
            for node in ast.walk(function)
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not inside


class TestSizes:
    def test_no_file_is_longer_than_600_lines(self) -> None:
        rooms = ("fleet", "tasks", "tests")
        paths = [*source.ROOT.glob("*.py"), *(path for room in rooms for path in (source.ROOT / room).rglob("*.py"))]
        assert not [f"{path}" for path in paths if len(path.read_text().splitlines()) > LONGEST_FILE]

    def test_nine_functions_in_ten_are_short(self) -> None:
        lengths = [source.length(function) for name in files() for function in functions(name)]
        assert sum(length < CALM_FUNCTION for length in lengths) >= 0.9 * len(lengths)

    def test_nine_files_in_ten_are_short(self) -> None:
        lengths = [max((getattr(node, "end_lineno", 0) for node in tree.body), default=0) for tree in files().values()]
        assert sum(length < CALM_FILE for length in lengths) >= 0.9 * len(lengths)


class TestOperations:
    def test_every_route_says_who_may_call_it(self, app: Flask) -> None:
        silent = {name for name, view in app.view_functions.items() if not hasattr(view, "operation")}
        assert silent == set(NO_OPERATION)

    def test_every_operation_says_what_it_does(self, operations: list[Described]) -> None:
        assert not [named(rule, method) for rule, method, _, view in operations if not (view.__doc__ or "").strip()]

    def test_every_edit_needs_the_version_that_was_read(self, operations: list[Described]) -> None:
        edits = {"PATCH", "PUT", "DELETE"}
        blind = {named(rule, method) for rule, method, declared, _ in operations if method in edits and not declared.if_match}
        assert blind == set(NO_IF_MATCH)

    def test_every_write_may_be_repeated_under_a_key(self, operations: list[Described]) -> None:
        writes = {"POST", "PUT", "PATCH"}
        once = {named(rule, method) for rule, method, declared, _ in operations if method in writes and not declared.idempotent}
        assert once <= set(NO_IDEMPOTENCY)

    def test_a_required_key_is_one_that_is_honoured(self, operations: list[Described]) -> None:
        assert not [named(rule, method) for rule, method, item, _ in operations if item.key_required and not item.idempotent]

    def test_every_permission_that_is_asked_for_is_in_some_role(self, operations: list[Described]) -> None:
        asked = {declared.permission for _, _, declared, _ in operations} - {PUBLIC}
        assert asked - auth.PERMISSIONS == set()

    def test_every_permission_of_a_role_is_asked_for_somewhere(self, operations: list[Described]) -> None:
        asked = {declared.permission for _, _, declared, _ in operations}
        said = {text for name in files() if name != "fleet.auth" for text in source.strings(name)}
        assert auth.PERMISSIONS - asked - said == set()

    def test_the_published_api_is_the_url_map(self, app: Flask, operations: list[Described]) -> None:
        published = {
            (path, method.upper()) for path, item in openapi.document(app)["paths"].items() for method in item
        }
        routed = {(re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule), method) for rule, method, _, _ in operations}
        assert published == routed

    def test_every_body_and_answer_is_described(self, app: Flask) -> None:
        document = openapi.document(app)
        references = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
        assert references <= set(document["components"]["schemas"])

    def test_two_models_of_one_name_do_not_hide_each_other(self, operations: list[Described]) -> None:
        models = {model for _, _, item, _ in operations for model in (item.body, item.answer) if model}
        names = [model.__name__ for model in models]
        assert not {name for name in names if names.count(name) > 1}


class TestCache:
    """What is cached is invalidated by `Versioned`; whoever writes past it says so by `changed()`."""

    WRITES_PAST: ClassVar = {"fleet.services.branches": "Branch.delete"}

    def test_nobody_writes_past_the_invalidation(self) -> None:
        models = [model for model in Versioned.__subclasses__() if model.cached_in]
        assert len(models) == 3
        calls = {f"{model.__name__}.{how}" for model in models for how in ("update", "delete", "insert_many", "bulk_update")}
        past = {name: ast.unparse(node.func) for name in files() for node in ast.walk(files()[name])
                if isinstance(node, ast.Call) and ast.unparse(node.func) in calls}  # fmt: skip
        assert past == self.WRITES_PAST
        assert all(".changed()" in ast.unparse(files()[name]) for name in past)

    def test_no_statement_writes_to_what_is_cached(self) -> None:
        tables = "|".join(model._meta.table_name for model in Versioned.__subclasses__() if model.cached_in)
        writes = re.compile(rf"\b(UPDATE|DELETE FROM) ({tables})\b")
        assert not [name for name in ranked() for text in source.strings(name) if writes.search(text)]


class TestErrorCodes:
    def test_every_code_that_is_raised_has_a_status(self) -> None:
        assert codes_raised() - set(openapi.codes()) == set()

    def test_every_code_that_an_operation_declares_has_a_status(self, operations: list[Described]) -> None:
        declared = {code for _, _, item, _ in operations for code in item.problems}
        assert declared - set(openapi.codes()) == set()

    def test_every_code_with_a_status_is_drawn_in_the_tree_of_failures(self) -> None:
        drawn = set(re.findall(r"\b[a-z_]+\b", ast.get_docstring(files()["fleet.errors"]) or ""))
        assert set(openapi.codes()) - drawn == {"internal_error"}


def codes_raised() -> set[str]:
    """Every literal `code=` of a failure that the code raises."""
    failures = {"BadRequest", "Unauthenticated", "Forbidden", "NotFound", "Conflict", "Invalid", "FleetError", "Unavailable"}
    found = set()
    for name in files():
        for node in ast.walk(files()[name]):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in failures:
                values = (item.value for item in node.keywords if item.arg == "code")
                found |= {text.value for value in values for text in ast.walk(value) if isinstance(text, ast.Constant)}
    return {code for code in found if isinstance(code, str)}


class TestTasks:
    """A task that nobody rings for is dead code that looks alive."""

    def test_every_sweep_is_on_the_clock(self, app: Flask) -> None:
        consumers = tasks.topics()
        sweeps = {name for name in tasks.app.tasks if not name.startswith("celery.")} - consumers
        assert sweeps == {entry["task"] for entry in tasks.app.conf.beat_schedule.values()}

    def test_every_consumer_is_promised_by_a_service(self, app: Flask) -> None:
        said = {text for room in ("fleet.services", "fleet.models") for name in of_room(room) for text in source.strings(name)}
        openings = tuple(text for text in said if text.endswith("_") and "." in text)
        assert not {topic for topic in tasks.topics() if topic not in said and not topic.startswith(openings)}

    def test_every_promise_has_a_consumer(self, app: Flask) -> None:
        promised = {
            topic.value
            for name in of_room("fleet.services")
            for node in ast.walk(files()[name])
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("promise") and node.args
            for topic in ast.walk(node.args[0])
            if isinstance(topic, ast.Constant)
        }
        assert promised and promised <= tasks.topics()
