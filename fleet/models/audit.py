"""Who did what, when and from where, before and after. Rows are only ever added: the database refuses the rest."""

from datetime import datetime, timedelta
from typing import Any

import orjson
import peewee
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from fleet import clock
from fleet.models.base import Condition, Listing, Model


def _dumps(state: Any) -> str:
    """Identifiers and times as they are written over HTTP."""
    return orjson.dumps(state, option=orjson.OPT_UTC_Z).decode()


class AuditEvent(Model):
    """One act, written in the transaction of what it tells."""

    id = peewee.UUIDField(primary_key=True, default=clock.new_id)
    at = DateTimeTZField(default=clock.now)
    actor = peewee.TextField()
    action = peewee.TextField()
    object_type = peewee.TextField()
    object_id = peewee.TextField()
    before = BinaryJSONField(null=True, dumps=_dumps)
    after = BinaryJSONField(null=True, dumps=_dumps)
    request_id = peewee.TextField(null=True)
    address = peewee.TextField(null=True)


AUDIT_EVENTS = Listing(columns={name: f"audit_event.{name}" for name in AuditEvent._meta.fields}, source="audit_event")

# Id and time of an event are taken one right after the other.
_APART = timedelta(seconds=1)


def between(since: datetime | None, until: datetime | None) -> list[Condition]:
    """The events of `[since, until)`. The bounds on the id, which carries its time, let the primary key find them."""
    bounds = []
    if since is not None:
        bounds.append(Condition("audit_event.at >= %s", (since,)))
        bounds.append(Condition("audit_event.id >= %s", (clock.first_id_of(since - _APART),)))
    if until is not None:
        bounds.append(Condition("audit_event.at < %s", (until,)))
        bounds.append(Condition("audit_event.id < %s", (clock.first_id_of(until + _APART),)))
    return bounds
