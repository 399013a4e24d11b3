"""Who did what, when and from where, before and after. Rows are only ever added: the database refuses the rest."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import peewee
from playhouse.postgres_ext import BinaryJSONField, DateTimeTZField

from fleet import clock
from fleet.db import db
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


_EVENT = {name: f"audit_event.{name}" for name in AuditEvent._meta.fields}
_AND_SEAL = "audit_event LEFT JOIN audit_seal ON audit_seal.event_id = audit_event.id"
AUDIT_EVENTS = Listing(columns={**_EVENT, "position": "audit_seal.position"}, source=_AND_SEAL)
EXPORTED = {
    **_EVENT,
    "position": "audit_seal.position",
    "previous": "encode(audit_seal.previous, 'hex')",
    "hash": "encode(audit_seal.hash, 'hex')",
}

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


def exported_after(event_id: UUID | None, conditions: list[Condition], *, limit: int) -> list[dict[str, Any]]:
    """Events with their seals, oldest first, from the one after `event_id` on."""
    if event_id is not None:
        conditions = [*conditions, Condition("audit_event.id > %s", (event_id,))]
    where = " AND ".join(condition.sql for condition in conditions) or "true"
    params = [value for condition in conditions for value in condition.params]
    sql = f"SELECT {', '.join(EXPORTED.values())} FROM {_AND_SEAL} WHERE {where} ORDER BY audit_event.id LIMIT {limit:d}"
    return [dict(zip(EXPORTED, row, strict=True)) for row in db.rows(sql, params)]


# --- the chain --------------------------------------------------------------------------------------------------------

# Everything as text, as the database writes it: what is hashed is what is stored, to the last digit of a number, and no
# value can be set by hand that the driver fails to read.
_TOLD = """e.id::text, to_char(e.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    e.actor, e.action, e.object_type, e.object_id, e.before::text, e.after::text, e.request_id, e.address"""

# Whoever does not get it leaves the work to whoever has it. It is taken by a statement of its own: what the next one sees
# of the chain is then what the sealer before it left.
SEALER = "SELECT pg_try_advisory_xact_lock(%s)"

UNSEALED = f"""
SELECT {_TOLD} FROM audit_unsealed u JOIN audit_event e ON e.id = u.event_id ORDER BY e.id LIMIT %(limit)s
"""

# The newest seal; where retention took that too, the anchor that it left.
HEAD = """
(SELECT position, hash FROM audit_seal ORDER BY position DESC LIMIT 1)
UNION ALL (SELECT position, hash FROM audit_anchor ORDER BY position DESC LIMIT 1)
ORDER BY position DESC LIMIT 1
"""

SEAL = """
INSERT INTO audit_seal (position, event_id, key_id, previous, hash)
SELECT * FROM unnest(%(positions)s::bigint[], %(ids)s::uuid[], %(key_ids)s::bytea[], %(before)s::bytea[], %(hashes)s::bytea[])
"""
SEALED = "DELETE FROM audit_unsealed WHERE event_id = ANY (%(ids)s::uuid[])"

ANCHOR = "SELECT position, key_id, hash, mac FROM audit_anchor ORDER BY position DESC LIMIT 1"
BEFORE_ANCHOR = """
SELECT position, event_id::text FROM audit_seal WHERE position <= %(position)s ORDER BY position LIMIT %(limit)s
"""
CHAIN_AFTER = f"""
SELECT s.position, s.event_id::text, s.key_id, s.previous, s.hash, {_TOLD}
FROM audit_seal s LEFT JOIN audit_event e ON e.id = s.event_id
WHERE s.position > %(position)s ORDER BY s.position LIMIT %(limit)s
"""
WAITING = "SELECT count(*) FROM audit_unsealed"
# The first by its id, which carries its time: as quick with a long backlog as without.
OLDEST_WAITING_S = """
SELECT extract(epoch FROM now() - e.at)::float8 FROM audit_unsealed u JOIN audit_event e ON e.id = u.event_id
ORDER BY u.event_id LIMIT 1
"""
KEPT_OUT = """
SELECT e.id::text FROM audit_event e
WHERE NOT EXISTS (SELECT 1 FROM audit_seal s WHERE s.event_id = e.id)
    AND NOT EXISTS (SELECT 1 FROM audit_unsealed u WHERE u.event_id = e.id)
ORDER BY e.id LIMIT %(limit)s
"""

# --- retention --------------------------------------------------------------------------------------------------------

# The last one of the unbroken beginning that is all old: an old event that was sealed after a younger one stays with it.
LAST_OF_OLD = """
SELECT s.position, s.hash FROM audit_seal s
WHERE s.position < coalesce(
    (SELECT min(y.position) FROM audit_seal y JOIN audit_event e ON e.id = y.event_id WHERE e.at >= %(before)s),
    (SELECT max(position) + 1 FROM audit_seal)
)
ORDER BY s.position DESC LIMIT 1
"""
ADD_ANCHOR = "INSERT INTO audit_anchor (position, key_id, hash, mac) VALUES (%(position)s, %(key_id)s, %(hash)s, %(mac)s)"
EVENTS_AND_SEALS_GO_TOGETHER = "SET CONSTRAINTS audit_seal_event_id_fkey DEFERRED"
FORGET_SEALED = """
DELETE FROM audit_event e USING audit_seal s WHERE s.event_id = e.id AND s.position <= %(position)s
"""
FORGET_SEALS = "DELETE FROM audit_seal WHERE position <= %(position)s"
