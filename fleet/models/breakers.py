"""What operators have said of circuit breakers: the record that Redis only passes on."""

import peewee
from playhouse.postgres_ext import DateTimeTZField

from fleet import clock
from fleet.breakers import Control
from fleet.db import db
from fleet.models.base import Model


class BreakerControl(Model):
    """The last word on one breaker. Of two words the one with the higher epoch is the later."""

    name = peewee.TextField(primary_key=True)
    state = peewee.TextField()
    epoch = peewee.BigIntegerField()
    controlled_by = peewee.TextField()
    reason = peewee.TextField(null=True)
    controlled_at = DateTimeTZField(default=clock.now)

    class Meta:
        table_name = "breaker_control"


# The clock, so that the words after a restored backup are later than those that processes remember; one more, so that the
# second of two in one millisecond is the later one. Whoever comes second waits for the row, and counts on from the first.
_SAY = """
INSERT INTO breaker_control (name, state, epoch, controlled_by, reason, controlled_at)
VALUES (%(name)s, %(state)s, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, %(by)s, %(reason)s, clock_timestamp())
ON CONFLICT ON CONSTRAINT breaker_control_pkey DO UPDATE
SET state = excluded.state, controlled_by = excluded.controlled_by, reason = excluded.reason,
    controlled_at = excluded.controlled_at, epoch = greatest(breaker_control.epoch + 1, excluded.epoch)
RETURNING epoch, controlled_at
"""


def say(name: str, state: str, *, by: str, reason: str | None) -> Control:
    """Write an operator's word on a breaker down."""
    epoch, at = db.rows(_SAY, {"name": name, "state": state, "by": by, "reason": reason})[0]
    return Control(state, epoch, by, at, reason)


def controls() -> dict[str, Control]:
    """The last word on each breaker that anybody has spoken of."""
    rows = db.rows("SELECT name, state, epoch, controlled_by, controlled_at, reason FROM breaker_control")
    return {name: Control(*word) for name, *word in rows}
