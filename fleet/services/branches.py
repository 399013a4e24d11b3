"""Opening, changing and closing branches."""

from typing import Any
from uuid import UUID

from fleet import cache
from fleet.auth import Actor
from fleet.db import atomic
from fleet.errors import Invalid, NotFound, VersionConflict
from fleet.models.base import Condition
from fleet.models.branches import BRANCHES, Branch, TaxCode
from fleet.services import audit


def listed(actor: Actor, *, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """A page of branches, newest first."""
    return BRANCHES.page([], after=after, limit=limit)


def shown(actor: Actor, branch_id: UUID) -> dict[str, Any]:
    """One branch. Raises NotFound."""

    def read() -> dict[str, Any]:
        found = BRANCHES.first([Condition("branch.id = %s", (branch_id,))])
        if found is None:
            raise NotFound()
        return found

    return cache.get(cache.BRANCHES, f"{branch_id}", read, shape=BRANCHES.shape)


@atomic
def open_branch(actor: Actor, **values: Any) -> Branch:
    """Open a branch. Raises Invalid for an unknown tax code, Conflict `duplicate` for a code that is taken."""
    _check_tax_code(values.get("tax_code"))
    branch: Branch = Branch.create(**values)
    audit.record(actor, "branches.open", "branch", branch.id, after=values)
    return branch


@atomic
def change(actor: Actor, branch_id: UUID, *, expected_version: int | None, changes: dict[str, Any]) -> Branch:
    """Change a branch. Raises NotFound, VersionConflict, Invalid, Conflict `duplicate`."""
    branch = Branch.get_or_none(Branch.id == branch_id)
    if branch is None:
        raise NotFound()
    _check_tax_code(changes.get("tax_code"))
    audit.record_change(actor, "branches.change", "branch", branch, changes)
    branch.change(expected_version=expected_version, **changes)
    return branch


@atomic
def remove(actor: Actor, branch_id: UUID, *, expected_version: int | None) -> None:
    """Remove a branch that nothing refers to. Raises NotFound, VersionConflict, Conflict `in_use`."""
    branch = Branch.get_or_none(Branch.id == branch_id)
    if branch is None:
        raise NotFound()
    expected = branch.version if expected_version is None else expected_version
    if not Branch.delete().where((Branch.id == branch_id) & (Branch.version == expected)).execute():
        raise VersionConflict()
    branch.changed()
    audit.record(actor, "branches.remove", "branch", branch_id, before={"code": branch.code})


def _check_tax_code(code: str | None) -> None:
    if code is not None and TaxCode.get_or_none(TaxCode.code == code) is None:
        raise Invalid.field("tax_code", "not_found", "is not a known tax code")
