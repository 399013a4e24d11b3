"""The audit log: an event in the transaction of what it tells, so that neither is ever there without the other.

Where nobody says otherwise, the request's id and its client's address come from the log context.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from fleet import clock, logs
from fleet.auth import Actor
from fleet.db import db
from fleet.models.audit import AUDIT_EVENTS, AuditEvent, between, exported_after
from fleet.models.base import Condition
from fleet.rules.masking import masked

State = Mapping[str, Any]

MAX_ADDRESS = 200
EXPORTED_AT_ONCE = 1000


class Act(NamedTuple):
    """What happened to one object. `before` and `after` say only what changed; None where there was or is nothing."""

    object_id: object
    before: State | None = None
    after: State | None = None


def record(
    actor: Actor | str,
    action: str,
    object_type: str,
    object_id: object,
    *,
    before: State | None = None,
    after: State | None = None,
    address: str | None = None,
) -> None:
    """Note one act, such as `dead_letters.replay`. `actor` is a name (`cli:root`, `system:beat`) where it is no user.

    What is personal or secret in the states is masked. Raises RuntimeError outside of a transaction.
    """
    record_each(actor, action, object_type, [Act(object_id, before, after)], address=address)


def record_change(actor: Actor, action: str, object_type: str, thing: Any, changes: State) -> None:
    """Note what is about to be changed of a thing, before it is; nothing where it is all so already.

    Raises RuntimeError outside of a transaction.
    """
    before = {name: getattr(thing, name) for name, value in changes.items() if getattr(thing, name) != value}
    if before:
        record(actor, action, object_type, thing.id, before=before, after={name: changes[name] for name in before})


def record_each(
    actor: Actor | str, action: str, object_type: str, acts: Iterable[Act], *, address: str | None = None
) -> None:
    """Note one act on each of many objects. Raises RuntimeError outside of a transaction."""
    if not db.in_transaction():
        raise RuntimeError("an audit event belongs to the transaction of what it tells")
    # With TRUSTED_PROXIES too high the address is what the client says, of any length: no reason to refuse the act.
    came_from = (address or logs.current(logs.CLIENT_ADDRESS) or "")[:MAX_ADDRESS]
    origin = {
        "actor": name_of(actor),
        "action": action,
        "object_type": object_type,
        "request_id": logs.current("request_id"),
        "address": came_from or None,
    }
    rows = [
        {
            **origin,
            "id": clock.new_id(),
            "at": clock.now(),
            "object_id": f"{act.object_id}",
            "before": None if act.before is None else masked(act.before),
            "after": None if act.after is None else masked(act.after),
        }
        for act in acts
    ]
    if rows:
        AuditEvent.insert_many(rows).execute()


def name_of(actor: Actor | str) -> str:
    """Who acts, in one word: `user:<id>`, `key:<id>`, `cli:<name>`, `system:<name>`."""
    return actor if isinstance(actor, str) else actor.name


def listed(
    actor: Actor,
    *,
    who: str | None,
    action: str | None,
    object_type: str | None,
    object_id: str | None,
    since: datetime | None,
    until: datetime | None,
    after: UUID | None,
    limit: int,
) -> list[dict[str, Any]]:
    """A page of events, newest first."""
    asked = {
        "audit_event.actor = %s": who,
        "audit_event.action = %s": action,
        "audit_event.object_type = %s": object_type,
        "audit_event.object_id = %s": object_id,
    }
    conditions = [Condition(sql, (value,)) for sql, value in asked.items() if value is not None]
    return AUDIT_EVENTS.page([*conditions, *between(since, until)], after=after, limit=limit)


def exported(*, since: datetime | None, until: datetime | None) -> Iterator[dict[str, Any]]:
    """The events of `[since, until)` with their seals, oldest first, read as they are asked for."""
    after = None
    while rows := exported_after(after, between(since, until), limit=EXPORTED_AT_ONCE):
        yield from rows
        after = rows[-1]["id"]
