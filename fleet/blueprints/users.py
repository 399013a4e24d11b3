"""/v1/users, and what everybody does with their own: /v1/auth/register and /v1/auth/me"""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from flask import Blueprint, g
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from fleet.auth import ROLES
from fleet.http import PUBLIC, Answer, answer, if_match, operation, page_answer, shape
from fleet.limits import AUTH_STRICT
from fleet.models.access import User
from fleet.paging import page
from fleet.parsing import Email, Input, Line, PageQuery, View
from fleet.passwords import NewPassword
from fleet.services import users

bp = Blueprint("users", __name__)


def _role(name: str) -> str:
    if name not in ROLES:
        raise PydanticCustomError("unknown_role", "must be a known role")
    return name


Role = Annotated[str, AfterValidator(_role), Field(json_schema_extra={"enum": list(ROLES)})]
Roles = Annotated[list[Role], Field(min_length=1, max_length=len(ROLES))]


class UserView(View):
    id: UUID
    email: str
    first_name: str
    last_name: str
    phone: str | None
    roles: list[str]
    active: bool
    deactivated_at: datetime | None
    email_verified_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


class MeView(View):
    user: UserView
    roles: list[str]
    permissions: list[str]
    customer_id: UUID | None


class Register(Input):
    email: Email
    password: NewPassword
    first_name: Line
    last_name: Line
    phone: Line


class CreateUser(Input):
    email: Email
    password: NewPassword
    first_name: Line
    last_name: Line
    phone: Line | None = None
    roles: Roles


class ChangeUser(Input):
    first_name: Line = ""
    last_name: Line = ""
    phone: Line | None = None


class SetRoles(Input):
    roles: Roles


class UserQuery(PageQuery):
    role: Role | None = None
    email: Email | None = None


@bp.post("/v1/auth/register")
@operation(
    PUBLIC,
    body=Register,
    answer=UserView,
    status=201,
    idempotent=True,
    tier=AUTH_STRICT,
    problems=("duplicate", "weak_password"),
)
def register(body: Register) -> Answer:
    """Sign up as a customer."""
    return _created(users.register(**body.model_dump()))


@bp.get("/v1/auth/me")
@operation("auth.session", answer=MeView)
def me() -> Answer:
    """Show who you are and what you may do; an API key shows its own permissions."""
    user = users.shown(g.actor, g.actor.user_id)
    return answer(
        {
            "user": shape(UserView, user),
            "roles": list(g.actor.roles),
            "permissions": sorted(g.actor.permissions),
            "customer_id": g.actor.customer_id,
        }
    )


@bp.get("/v1/users")
@operation("users.manage", query=UserQuery, answer=UserView, listed=True)
def index(query: UserQuery) -> Answer:
    """List users."""
    found = page(query, users.listed, lambda row: shape(UserView, row), actor=g.actor, role=query.role, email=query.email)
    return page_answer(found)


@bp.post("/v1/users")
@operation(
    "users.manage",
    body=CreateUser,
    answer=UserView,
    status=201,
    cost=10,
    idempotent=True,
    problems=("duplicate", "weak_password"),
)
def create(body: CreateUser) -> Answer:
    """Add a user with any roles."""
    return _created(users.create(g.actor, **body.model_dump()))


@bp.get("/v1/users/<uuid:user_id>")
@operation("users.manage", answer=UserView)
def show(user_id: UUID) -> Answer:
    """Show a user."""
    user = users.shown(g.actor, user_id)
    return answer(shape(UserView, user), version=user["version"])


@bp.patch("/v1/users/<uuid:user_id>")
@operation("users.manage", body=ChangeUser, answer=UserView, if_match=True, idempotent=True)
def change(user_id: UUID, body: ChangeUser) -> Answer:
    """Change a user's name or phone."""
    user = users.change(g.actor, user_id, expected_version=if_match(), changes=body.changes())
    return answer(shape(UserView, user), version=user.version)


@bp.put("/v1/users/<uuid:user_id>/roles")
@operation("users.manage", body=SetRoles, answer=UserView, if_match=True, idempotent=True, problems=("last_admin",))
def set_roles(user_id: UUID, body: SetRoles) -> Answer:
    """Replace a user's roles, from their next request on; the last active admin keeps theirs."""
    user = users.set_roles(g.actor, user_id, roles=body.roles, expected_version=if_match())
    return answer(shape(UserView, user), version=user.version)


@bp.post("/v1/users/<uuid:user_id>/deactivate")
@operation("users.manage", answer=UserView, if_match=True, idempotent=True, problems=("invalid_state", "last_admin"))
def deactivate(user_id: UUID) -> Answer:
    """Close an account: its sessions and API keys are refused from the next request on. The last active admin stays."""
    user = users.deactivate(g.actor, user_id, expected_version=if_match(required=False))
    return answer(shape(UserView, user), version=user.version)


def _created(user: User) -> Answer:
    return answer(shape(UserView, user), 201, version=user.version, location=f"/v1/users/{user.id}")
