"""/v1/branches"""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID
from zoneinfo import available_timezones

from flask import Blueprint, g
from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from fleet.http import Answer, answer, if_match, operation, page_answer, shape
from fleet.paging import page
from fleet.parsing import Code, Currency, Email, Input, Line, PageQuery, View
from fleet.services import branches

bp = Blueprint("branches", __name__, url_prefix="/v1/branches")

_TIMEZONES = available_timezones()


def _timezone(name: str) -> str:
    if name not in _TIMEZONES:
        raise PydanticCustomError("unknown_timezone", "must be an IANA time zone such as Europe/Lisbon")
    return name


Timezone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_timezone)]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Hours = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]


class BranchView(View):
    id: UUID
    code: str
    name: str
    timezone: str
    currency: str
    tax_code: str
    address: str | None
    phone: str | None
    email: str | None
    opening_hours: dict[str, list[str]]
    version: int
    created_at: datetime
    updated_at: datetime


class OpenBranch(Input):
    code: Code
    name: Line
    timezone: Timezone
    currency: Currency
    tax_code: Code = "NONE"
    address: Line | None = None
    phone: Line | None = None
    email: Email | None = None
    opening_hours: Annotated[dict[Weekday, Annotated[list[Hours], Field(max_length=4)]], Field(default_factory=dict)]


class ChangeBranch(Input):
    code: Code = ""
    name: Line = ""
    timezone: Timezone = ""
    currency: Currency = ""
    tax_code: Code = ""
    address: Line | None = None
    phone: Line | None = None
    email: Email | None = None
    opening_hours: dict[Weekday, Annotated[list[Hours], Field(max_length=4)]] = Field(default_factory=dict)


@bp.get("")
@operation("branches.read", query=PageQuery, answer=BranchView, listed=True)
def index(query: PageQuery) -> Answer:
    """List branches."""
    return page_answer(page(query, branches.listed, lambda row: shape(BranchView, row), actor=g.actor))


@bp.post("")
@operation("branches.manage", body=OpenBranch, answer=BranchView, status=201, idempotent=True, problems=("duplicate",))
def create(body: OpenBranch) -> Answer:
    """Open a branch."""
    branch = branches.open_branch(g.actor, **body.model_dump())
    return answer(shape(BranchView, branch), 201, version=branch.version, location=f"{bp.url_prefix}/{branch.id}")


@bp.get("/<uuid:branch_id>")
@operation("branches.read", answer=BranchView)
def show(branch_id: UUID) -> Answer:
    """Show a branch."""
    branch = branches.shown(g.actor, branch_id)
    return answer(shape(BranchView, branch), version=branch["version"])


@bp.patch("/<uuid:branch_id>")
@operation(
    "branches.manage", body=ChangeBranch, answer=BranchView, if_match=True, idempotent=True, problems=("duplicate",)
)
def change(branch_id: UUID, body: ChangeBranch) -> Answer:
    """Change a branch."""
    branch = branches.change(g.actor, branch_id, expected_version=if_match(), changes=body.changes())
    return answer(shape(BranchView, branch), version=branch.version)


@bp.delete("/<uuid:branch_id>")
@operation("branches.manage", status=204, if_match=True, problems=("in_use",))
def remove(branch_id: UUID) -> Answer:
    """Remove a branch that nothing refers to."""
    branches.remove(g.actor, branch_id, expected_version=if_match())
    return answer()
