"""The OpenAPI 3.1 document, made from the declarations that the routes are enforced by."""

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from flask import Flask
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from werkzeug.routing import Rule

from fleet import errors
from fleet.http import PUBLIC, Operation
from fleet.parsing import PageQuery

_TEMPLATE = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; see docs/api.md"},
        "request_id": {"type": ["string", "null"]},
        "hint": {"type": "string", "description": "With 429: words for whoever has to wait"},
        "retry_after_s": {"type": "integer", "description": "With 429: in how many seconds the same call goes through"},
        "tier": {"type": "string", "description": "With 429: which limit is reached"},
        "limit": {"type": "integer", "description": "With 429: how many calls the window holds"},
        "cost": {"type": "integer", "description": "With 429: as how many calls this one counts"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {name: {"type": "string"} for name in ("field", "code", "message")},
            },
        },
    },
}


def operations(app: Flask) -> Iterator[tuple[Rule, str, Operation, Callable[..., Any]]]:
    """Every (rule, method, declaration, view) of the URL map that is an operation of ours."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        declared = getattr(view, "operation", None)
        if declared is not None:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method, declared, view


def document(app: Flask) -> dict[str, Any]:
    """The whole API as one OpenAPI document."""
    found = sorted(operations(app), key=lambda item: (item[0].rule, item[1]))
    schemas = _schemas([declared for _, _, declared, _ in found])
    costs = app.extensions["fleet"].limits.costs
    paths: dict[str, Any] = {}
    for rule, method, declared, view in found:
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        paths.setdefault(path, {})[method.lower()] = _operation(rule, method, declared, view, costs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Fleet",
            "version": "1.0.0",
            "description": "Vehicle rental: vehicles, customers, rentals, invoices and a double-entry ledger.",
        },
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _schemas(declared: list[Operation]) -> dict[str, Any]:
    bodies = {item.body for item in declared if item.body}
    answers = {item.answer for item in declared if item.answer}
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in bodies]
    wanted += [(model, "serialization") for model in answers]
    _, schema = models_json_schema(sorted(wanted, key=lambda pair: pair[0].__name__), ref_template=_TEMPLATE)
    return dict(schema.get("$defs", {}))


def _operation(rule: Rule, method: str, declared: Operation, view: Callable[..., Any], costs: dict[str, int]) -> dict[str, Any]:
    doc = (view.__doc__ or "").strip()
    described: dict[str, Any] = {
        "operationId": rule.endpoint.replace(".", "_"),
        "tags": [rule.endpoint.split(".")[0]],
        "summary": doc.split("\n")[0],
        "parameters": list(_parameters(rule, declared, method)),
        "responses": _responses(rule, declared, method),
    }
    if "\n" in doc:
        described["description"] = re.sub(r"\s+", " ", doc.split("\n", 1)[1]).strip()
    if declared.permission == PUBLIC:
        described["security"] = []
    else:
        described["x-permission"] = declared.permission
    if not declared.unlimited:
        cost = costs.get(rule.endpoint, declared.cost)
        described["x-rate-limit"] = {"operation": rule.endpoint, "tier": declared.counted_in, "cost": cost}
    if declared.body is not None:
        described["requestBody"] = {
            "required": method != "POST" or not declared.body.may_be_left_out(),
            "content": {"application/json": {"schema": {"$ref": _TEMPLATE.format(model=declared.body.__name__)}}},
        }
    return described


def _parameters(rule: Rule, declared: Operation, method: str) -> Iterator[dict[str, Any]]:
    for name, converter in rule._converters.items():
        schema = {"type": "string", "format": "uuid"} if "UUID" in type(converter).__name__ else {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    if declared.query is not None:
        schema_of_query = declared.query.model_json_schema(ref_template=_TEMPLATE)
        required = schema_of_query.get("required", [])
        for name, schema in schema_of_query["properties"].items():
            yield {"name": name, "in": "query", "required": name in required, "schema": schema}
    if declared.if_match:
        tag = {"type": "string", "pattern": '^"[0-9]{1,9}"$'}
        yield {"name": "If-Match", "in": "header", "required": method != "POST", "schema": tag}
    if declared.idempotent:
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
        yield {"name": "Idempotency-Key", "in": "header", "required": declared.key_required, "schema": key}


def _responses(rule: Rule, declared: Operation, method: str) -> dict[str, Any]:
    responses: dict[str, Any] = {str(declared.status): _success(declared)}
    if method == "GET" and declared.if_match is False and rule.arguments and not declared.listed:
        responses["304"] = {"description": "What you have is current"}
    for status, codes in _problem_codes(rule, declared, method).items():
        responses[str(status)] = {
            "description": ", ".join(codes),
            "content": {"application/problem+json": {"schema": {"$ref": _TEMPLATE.format(model="Problem")}}},
        }
    return responses


def _success(declared: Operation) -> dict[str, Any]:
    if declared.answer is None:
        if declared.media == ("application/json",):
            return {"description": "Done"}
        return {"description": "Done", "content": {media: {"schema": {"type": "string"}} for media in declared.media}}
    schema: dict[str, Any] = {"$ref": _TEMPLATE.format(model=declared.answer.__name__)}
    if declared.listed:
        schema = {
            "type": "object",
            "required": ["data", "next_cursor"],
            "properties": {"data": {"type": "array", "items": schema}, "next_cursor": {"type": ["string", "null"]}},
        }
    return {"description": "Done", "content": {"application/json": {"schema": schema}}}


def _problem_codes(rule: Rule, declared: Operation, method: str) -> dict[int, list[str]]:
    codes = ["bad_request", "validation_error", "unknown_field", "rate_limited", "dependency_unavailable", "overloaded"]
    codes += declared.problems
    if declared.permission != PUBLIC:
        codes += ["unauthenticated", "token_expired", "forbidden"]
    if rule.arguments:
        codes.append("not_found")
    if declared.query is not None and issubclass(declared.query, PageQuery):
        codes.append("invalid_cursor")
    if method in {"POST", "PUT", "PATCH"}:
        codes += ["malformed_json", "length_required", "body_too_large", "unsupported_media_type"]
    if declared.if_match:
        codes += ["version_conflict", "precondition_required"]
    if declared.idempotent:
        codes += ["idempotency_in_progress", "idempotency_key_reused"]
    if declared.key_required:
        codes.append("idempotency_key_required")
    by_status: dict[int, list[str]] = {}
    for code in dict.fromkeys(codes):
        by_status.setdefault(status_of(code), []).append(code)
    return by_status


@cache
def _statuses() -> dict[str, int]:
    known: dict[str, int] = {
        "idempotency_key_required": 400, "malformed_json": 400, "invalid_cursor": 400, "untrusted_host": 400,
        "invalid_signature": 401, "invalid_token": 400, "totp_required": 401,
        "invalid_credentials": 401, "token_expired": 401, "duplicate": 409, "in_use": 409,
        "journal_period_closed": 409, "last_admin": 409, "overpayment": 409, "refund_exceeds_payment": 409,
        "second_person_required": 403, "card_payments_disabled": 422, "unknown_field": 422,
        "idempotency_key_reused": 422, "entry_unbalanced": 422, "amount_too_large": 422, "weak_password": 422,
    }  # fmt: skip
    for kind in _family(errors.FleetError):
        known.setdefault(kind.code, kind.status)
    return known


def _family(kind: type[errors.FleetError]) -> Iterator[type[errors.FleetError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def status_of(code: str) -> int:
    """The HTTP status that goes with a problem code."""
    return _statuses()[code]


def codes() -> dict[str, int]:
    """Every problem code with its status, for the documentation and its test."""
    return dict(_statuses())

