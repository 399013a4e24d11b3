"""Who there is, what they may do, and closing their account."""

from typing import Any
from uuid import UUID

from fleet import clock, passwords
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Conflict, InvalidState, NotFound, VersionConflict
from fleet.models.access import USERS, User, active_admins_for_update, end_sessions, user_for_update
from fleet.models.base import Condition
from fleet.services import audit, outbox


def register(*, email: str, password: str, **person: Any) -> User:
    """Sign a new customer up, and ask them to show that the address is theirs.

    Raises Invalid `weak_password`, Conflict `duplicate`, Unavailable.
    """
    return _add(email=email, password=password, roles=["customer"], to_verify=True, **person)


def create(actor: Actor, *, email: str, password: str, roles: list[str], **person: Any) -> User:
    """Add a user with any roles. Raises Invalid `weak_password`, Conflict `duplicate`, Unavailable."""
    return _add(email=email, password=password, roles=roles, by=actor, **person)


def create_admin(operator: str, *, email: str, password: str, **person: Any) -> User:
    """Add an admin from the command line, where whoever runs it owns the machine. Raises as `create` does.

    `operator` is a name for the audit log, such as `cli:root`.
    """
    return _add(email=email, password=password, roles=["admin"], by=operator, **person)


def _add(
    *, email: str, password: str, roles: list[str], by: Actor | str | None = None, **person: Any
) -> User:
    passwords.check(password, email=email)
    return _insert(by, email=email, password_hash=passwords.hashed(password), roles=sorted(set(roles)), **person)


@atomic
def _insert(by: Actor | str | None, *, to_verify: bool = False, **values: Any) -> User:
    user: User = User.create(**values)
    if by is not None:
        audit.record(by, "users.create", "user", user.id, after={"roles": values["roles"]})
    if to_verify:
        outbox.promise("notifications.email_verification", "user", user.id)
    return user


def listed(actor: Actor, *, role: str | None, email: str | None, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of users, newest first."""
    conditions = []
    if role is not None:
        conditions.append(Condition("%s = ANY (user_account.roles)", (role,)))
    if email is not None:
        conditions.append(Condition("user_account.email = %s", (email,)))
    return USERS.page(conditions, after=after, limit=limit)


def shown(actor: Actor, user_id: UUID) -> dict[str, Any]:
    """One user. Raises NotFound."""
    found = USERS.first([Condition("user_account.id = %s", (user_id,))])
    if found is None:
        raise NotFound()
    return found


@atomic
def change(actor: Actor, user_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> User:
    """Change a user's name or phone. Raises NotFound, VersionConflict."""
    user = user_for_update(user_id)
    audit.record_change(actor, "users.change", "user", user, changes)
    user.change(expected_version=expected_version, **changes)
    return user


@atomic
def set_roles(actor: Actor, user_id: UUID, *, roles: list[str], expected_version: int | None) -> User:
    """Replace a user's roles, from their next request on. Raises NotFound, VersionConflict, Conflict `last_admin`."""
    admins = active_admins_for_update()
    user = user_for_update(user_id)
    if "admin" not in roles:
        _keep_an_admin(admins, without=user_id)
    audit.record_change(actor, "users.set_roles", "user", user, {"roles": sorted(set(roles))})
    user.change(expected_version=expected_version, roles=sorted(set(roles)))
    return user


@atomic
def deactivate(actor: Actor, user_id: UUID, *, expected_version: int | None) -> User:
    """Close an account: its sessions end and its API keys are refused, from the next request on.

    Raises NotFound, VersionConflict, InvalidState, Conflict `last_admin`.
    """
    admins = active_admins_for_update()
    user = user_for_update(user_id)
    if expected_version not in {None, user.version}:
        raise VersionConflict()
    if not user.active:
        raise InvalidState("The user is deactivated already")
    _keep_an_admin(admins, without=user_id)
    user.change(deactivated_at=clock.now())
    end_sessions(user_id, "deactivated")
    audit.record(actor, "users.deactivate", "user", user_id, after={"deactivated_at": user.deactivated_at})
    return user


def _keep_an_admin(admins: set[UUID], *, without: UUID) -> None:
    """Raises Conflict `last_admin` when nobody would be left who can give the role back."""
    if admins == {without}:
        raise Conflict("The last active admin has to stay", code="last_admin")
