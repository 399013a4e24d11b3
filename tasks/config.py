"""Celery's settings, found by trial with real kills of workers and of Redis. Read when Celery is first used."""

from kombu import Queue

from fleet.services import outbox
from tasks.wiring import settings

broker_url = settings().broker_url
ON_RABBITMQ = broker_url.startswith("amqp")
include = ["tasks.accounting", "tasks.maintenance", "tasks.notifications", "tasks.payments", "tasks.webhooks"]

# --- what is sent: ids, as JSON, to the queue that the name says ------------------------------------------------------
accept_content = ["json"]
task_serializer = "json"
task_ignore_result = True
# RabbitMQ keeps them on several nodes, and gives up on a message that kills its workers: the promise's own count goes on.
_arguments = {"x-queue-type": "quorum", "x-delivery-limit": 10} if ON_RABBITMQ else None
task_queues = [Queue(name, routing_key=name, queue_arguments=_arguments) for name in outbox.QUEUES]
task_default_queue = outbox.DEFAULT_QUEUE


def task_routes(name: str, *_: object, **__: object) -> dict[str, str]:
    """The route of a task by its name."""
    return {"queue": outbox.queue_of(name)}


# --- a message is acknowledged when its work is done, and comes back when its worker dies -----------------------------
task_acks_late = True
task_reject_on_worker_lost = True
worker_prefetch_multiplier = 1
task_soft_time_limit = 60
task_time_limit = 75
worker_cancel_long_running_tasks_on_connection_loss = False

# --- a broker that is away is noticed soon, waited for, and never hangs a publisher ------------------------------------
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_connection_timeout = 1
task_publish_retry = True
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1}
broker_heartbeat = 10  # RabbitMQ's; Redis has health_check_interval
_rabbitmq_options = {"confirm_publish": True, "read_timeout": 5, "write_timeout": 5}
_redis_options = {
    "visibility_timeout": 90,  # above the hard time limit, or a running task would be given to a second worker
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 10,
    "socket_timeout": 3,
    "socket_connect_timeout": 1,
    "socket_keepalive": True,
    "health_check_interval": 5,
    "global_keyprefix": "fleet:",
}
broker_transport_options = _rabbitmq_options if ON_RABBITMQ else _redis_options

# --- what Flower shows: ids and counts, no more than that is in a message ----------------------------------------------
worker_send_task_events = True
task_send_sent_event = True

# --- the worker logs through fleet.logs -------------------------------------------------------------------------------
worker_hijack_root_logger = False
worker_redirect_stdouts = False

# --- the clock: sweeps that find their own work. One that nobody fetched in time is dropped, the next one does it all -
beat_schedule = {
    name: {"task": name, "schedule": every_s, "options": {"expires": every_s}}
    for name, every_s in {
        "maintenance.expire_holds": 5.0,
        "maintenance.extend_overdue": 60.0,
        "maintenance.give_up_no_shows": 60.0,
        "maintenance.bury_exhausted": 30.0,
        "maintenance.forget_old": 60.0,
        "maintenance.promise_notices": 60.0,
        "maintenance.seal_audit_log": 10.0,
        "payments.settle_pending": 15.0,
    }.items()
}
