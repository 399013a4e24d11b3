"""The service's own worker, of which every event takes a moment to be sent: `celery --app tests.tasks.chatty worker`.

When the event that a task has begun is on its way, the file that CHATTY_MARK names is there.
"""

import os
import time
from pathlib import Path
from typing import Any

from celery.events import dispatcher

from tasks import app

__all__ = ["app"]

SENDING_S = 0.7
_publish = dispatcher.EventDispatcher._publish


def _publish_slowly(self: Any, event: Any, *arguments: Any, **named: Any) -> Any:
    self.buffer_limit = 1  # the lock is taken for each event
    if "task-started" in str(event):
        Path(os.environ["CHATTY_MARK"]).touch()
        time.sleep(SENDING_S)
    return _publish(self, event, *arguments, **named)


dispatcher.EventDispatcher._publish = _publish_slowly
