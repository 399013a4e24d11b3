"""What the processes of the asynchronous side say of themselves."""

import peewee
from playhouse.postgres_ext import ArrayField, BinaryJSONField, DateTimeTZField

from fleet import clock
from fleet.models.base import Model


class ProcessReport(Model):
    """The last word of one relay or worker: that it runs, what it serves, and how much it has handled since its start."""

    name = peewee.TextField(primary_key=True)
    kind = peewee.TextField()
    reported_at = DateTimeTZField(default=clock.now)
    queues = ArrayField(peewee.TextField)
    paused = ArrayField(peewee.TextField, default=list)
    handled = BinaryJSONField(default=dict)

    class Meta:
        table_name = "process_report"


REPORT = """
INSERT INTO process_report (name, kind, reported_at, queues, paused, handled)
VALUES (%(name)s, %(kind)s, now(), %(queues)s::text[], %(paused)s::text[], %(handled)s)
ON CONFLICT ON CONSTRAINT process_report_pkey DO UPDATE
SET reported_at = excluded.reported_at, queues = excluded.queues, paused = excluded.paused, handled = excluded.handled
"""

FORGET_PROCESSES = """
DELETE FROM process_report WHERE name = ANY (ARRAY(
    SELECT name FROM process_report WHERE reported_at < %(before)s ORDER BY name LIMIT %(limit)s FOR UPDATE SKIP LOCKED
))
"""
