"""Input is refused unless it is exactly what was asked for: strict JSON, known fields, aware times, bounded everything."""

import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, NoReturn, TypeVar
from uuid import UUID

import orjson
from email_validator import validate_email
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from fleet.errors import BadRequest, FieldError, Invalid
from fleet.rules import text
from fleet.rules.money import MAX_AMOUNT, is_currency

T = TypeVar("T", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_DIGITS = 64
MAX_FIELD_NAME = 100
MAX_INT = 2**63 - 1
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class Input(BaseModel):
    """A request body. Types are strict and a field that is not listed is refused, read-only ones included."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def changes(self) -> dict[str, Any]:
        """Only what the client sent: what a PATCH means to change."""
        return self.model_dump(exclude_unset=True)

    @classmethod
    def may_be_left_out(cls) -> bool:
        """Whether no field is required, so that no body at all says the same as an empty one."""
        return not any(field.is_required() for field in cls.model_fields.values())


class Query(BaseModel):
    """A query string. Everything arrives as text; each field says how it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    recurs: ClassVar[bool] = False
    """Clients ask the same again and again, and it holds neither a name nor a secret: what was read may be kept in memory."""


class View(BaseModel):
    """What an answer looks like: documents it in OpenAPI and names the fields that are rendered."""


# --- the types of fields ----------------------------------------------------------------------------------------------

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(\.\d{1,6}\d*)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)?", re.ASCII
)


def _instant(raw: Any) -> datetime:
    """RFC 3339 with an offset, as UTC. Bounded before the offset is applied, so that no year overflows."""
    match = _INSTANT.fullmatch(raw) if isinstance(raw, str) else None
    if match is None:
        raise PydanticCustomError("invalid_timestamp", "must be an RFC 3339 date and time")
    if match[8] is None:
        raise PydanticCustomError("offset_required", "must carry an offset, such as Z or +02:00")
    try:
        local = datetime.fromisoformat(raw.upper())
    except ValueError:
        raise PydanticCustomError("invalid_timestamp", "must be an RFC 3339 date and time") from None
    if not EARLIEST.year <= local.year < LATEST.year:
        raise PydanticCustomError("out_of_range", "must be between the years 2000 and 2100")
    return local.astimezone(UTC)


def _day(raw: Any) -> date:
    if not (isinstance(raw, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", raw, re.ASCII)):
        raise PydanticCustomError("invalid_date", "must be a date such as 2026-01-31")
    try:
        day = date.fromisoformat(raw)
    except ValueError:
        raise PydanticCustomError("invalid_date", "must be a date such as 2026-01-31") from None
    if not 1900 <= day.year < LATEST.year:
        raise PydanticCustomError("out_of_range", "must be between the years 1900 and 2100")
    return day


def digits(raw: Any) -> Any:
    """Plain ASCII digits: int() itself also takes signs, spaces, underscores and the digits of other scripts."""
    if isinstance(raw, str):
        if not (raw.isascii() and raw.isdigit() and len(raw) <= 19):
            raise PydanticCustomError("int_parsing", "must be a whole number")
        return int(raw)
    return raw


def _uuid(raw: Any) -> Any:
    if isinstance(raw, str):
        if not _UUID.fullmatch(raw):
            raise PydanticCustomError("uuid_parsing", "must be a UUID")
        return UUID(raw)
    return raw


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)


def _currency(code: str) -> str:
    if not is_currency(code):
        raise PydanticCustomError("unknown_currency", "must be an ISO 4217 currency code")
    return code


def _email(raw: str) -> str:
    try:
        return text.email(validate_email(raw, check_deliverability=False).normalized)
    except ValueError:  # EmailNotValidError is one
        raise PydanticCustomError("invalid_email", "must be an e-mail address") from None


def _single_line(raw: str) -> str:
    if not raw.isprintable():
        raise PydanticCustomError("unprintable", "must not hold control characters")
    return raw


Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"}, mode="validation")]
Id = Annotated[
    UUID, BeforeValidator(_uuid), WithJsonSchema({"type": "string", "format": "uuid"}, mode="validation")
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), AfterValidator(_currency)]
Amount = Annotated[int, Field(ge=1, le=MAX_AMOUNT, description="Minor units of the currency")]
AmountOrZero = Annotated[int, Field(ge=0, le=MAX_AMOUNT, description="Minor units of the currency")]
OdometerKm = Annotated[int, Field(ge=0, le=10_000_000)]
Percent = Annotated[int, Field(ge=0, le=100)]
Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), AfterValidator(_single_line)
]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9][A-Z0-9_-]{0,31}$")]
DocumentNumber = Annotated[str, StringConstraints(max_length=32, pattern=r"^[A-Z0-9-]+$")]
Notes = Annotated[str, StringConstraints(strip_whitespace=True, max_length=4000)]
Email = Annotated[
    str,
    StringConstraints(min_length=3, max_length=254),
    AfterValidator(_email),
    Field(json_schema_extra={"format": "email"}),
]


class PageQuery(Query):
    """How lists are paged."""

    limit: Annotated[int, Field(ge=1, le=200), BeforeValidator(digits)] = 50
    cursor: Annotated[str, StringConstraints(max_length=1024)] | None = None


# --- reading ----------------------------------------------------------------------------------------------------------


def _malformed(detail: str) -> BadRequest:
    return BadRequest(detail, code="malformed_json")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _malformed("A key stands twice in one object")
    return fields


def _not_json(constant: str) -> NoReturn:
    raise _malformed(f"{constant} is not JSON")


def _finite(literal: str) -> float:
    if len(literal) > MAX_DIGITS or not math.isfinite(number := float(literal)):
        raise _malformed("A number is too large")
    return number


def _bounded_int(literal: str) -> int:
    if len(literal) > 20 or abs(number := int(literal)) > MAX_INT:
        raise _malformed("A number is too large")
    return number


_decoder = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_not_json, parse_float=_finite, parse_int=_bounded_int
)
# A backslash that is itself escaped begins no escape.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def strict_json(raw: bytes) -> Any:
    """Decode JSON and refuse what decoders differ on or choke on. Raises BadRequest `malformed_json`."""
    try:
        decoded = _decoder.decode(raw.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise _malformed("The body is not valid JSON in UTF-8") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH or raw.count(b",") >= MAX_VALUES:
        _check_size(decoded)
    if b"\\u" in raw:
        _check_escapes(raw, decoded)
    return decoded


def _check_size(decoded: Any) -> None:
    level, values, depth = [decoded], 0, 0
    while level:
        level = [inner for node in level for inner in _inside(node)]
        values, depth = values + len(level), depth + 1
        if depth > MAX_DEPTH + 1 or values > MAX_VALUES:
            raise _malformed("The body is nested too deeply or holds too many values")


def _inside(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def _check_escapes(raw: bytes, decoded: Any) -> None:
    """Refuse what PostgreSQL, argon2 or UTF-8 cannot hold, and only escapes can say: NUL and half a surrogate pair."""
    if _NUL.search(raw):
        raise _malformed("A text holds NUL")
    try:
        orjson.dumps(decoded)
    except TypeError:
        raise _malformed("A text holds half a surrogate pair") from None


def read_body(model: type[T], raw: bytes) -> T:
    """The body as `model`. Raises BadRequest `malformed_json`, Invalid."""
    if not isinstance(strict_json(raw), dict):
        raise Invalid("The body must be a JSON object")
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid(error) from None


def read_query(model: type[T], arguments: list[tuple[str, str]]) -> T:
    """The query string as `model`. Raises Invalid; a parameter that stands twice is refused rather than guessed at."""
    values: dict[str, str] = {}
    for name, value in arguments:
        if name in values:
            raise Invalid.field(name, "repeated", "stands more than once")
        if "\x00" in value or not (value.isascii() or _is_encodable(value)):
            raise Invalid.field(name, "invalid_text", "holds a character that cannot be stored")
        values[name] = value
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise invalid(error) from None


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_email(raw: str) -> str:
    """An e-mail address that came in by another door than HTTP, spelled as it is stored. Raises Invalid."""
    try:
        return TypeAdapter(Email).validate_python(raw)
    except ValidationError:
        raise Invalid.field("email", "invalid_email", "must be an e-mail address") from None


_FIELD_CODES = {"extra_forbidden": "unknown_field", "missing": "required"}


def invalid(error: ValidationError) -> Invalid:
    """The problem that a failed validation is, field by field, without echoing what was sent."""
    found = [
        FieldError(
            field=".".join(str(part) for part in item["loc"])[:MAX_FIELD_NAME],
            code=_FIELD_CODES.get(item["type"], item["type"]),
            message=item["msg"],
        )
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    unknown = any(item.code == "unknown_field" for item in found)
    return Invalid(code="unknown_field" if unknown else None, errors=found[:50])
