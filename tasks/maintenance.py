"""Sweeps: beat rings for them by the clock, they find their own work, and two at once share it or find nothing left."""

import logging

from fleet import metrics
from fleet.services import audit_chain, calendar, no_shows, outbox, reminders, reservations, retention
from tasks import sweep

log = logging.getLogger("tasks.maintenance")


@sweep("maintenance.expire_holds")
def expire_holds() -> None:
    """Free the vehicles of holds that nobody confirmed in time."""
    log.info("holds expired", extra={"count": reservations.expire_holds()})


@sweep("maintenance.extend_overdue")
def extend_overdue() -> None:
    """Let vehicles that are late keep blocking their calendar."""
    log.info("late vehicles kept blocked", extra={"count": calendar.extend_overdue()})


@sweep("maintenance.give_up_no_shows")
def give_up_no_shows() -> None:
    """Free the vehicles of customers who did not come, and bill what was agreed for that."""
    log.info("no-shows given up on", extra={"count": no_shows.give_up()})


@sweep("maintenance.promise_notices")
def promise_notices() -> None:
    """Promise reminders, notices of late vehicles and of holds that ended. Not in the queue of the letters: behind a backlog
    of them the sweep would expire each time."""
    log.info("notices promised", extra={"count": reminders.promise_due()})


@sweep("maintenance.bury_exhausted")
def bury_exhausted() -> None:
    """End promises whose every delivery ended without a word, such as those that kill their worker."""
    topics = outbox.bury_exhausted()
    for topic in topics:
        metrics.DELIVERIES.labels(topic, "dead").inc()
    if topics:
        log.error("dead letters", extra={"count": len(topics), "topics": sorted(set(topics))})


@sweep("maintenance.forget_old")
def forget_old() -> None:
    """Delete confirmed promises, inbox rows and stored answers past their time."""
    log.info("forgotten", extra=retention.forget_old())


@sweep("maintenance.seal_audit_log")
def seal_audit_log() -> None:
    """Seal what is new in the audit log. The head goes into the log of the process, where who could cut the chain's end
    cannot reach it."""
    sealed = audit_chain.seal()
    position, head = audit_chain.head()
    log.info("audit log sealed", extra={"count": sealed, "position": position, "head": head.hex()})
