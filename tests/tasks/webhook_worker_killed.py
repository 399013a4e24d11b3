"""`python -m tests.tasks.webhook_worker_killed TICKET...`: a worker that is killed after the answer and before its note."""

import os
import signal
import sys

from fleet.services import webhook_deliveries
from tasks import webhooks
from tasks.wiring import wire


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    wire()
    vars(webhook_deliveries)["_note_success"] = die
    webhooks.deliver(sys.argv[1:])
