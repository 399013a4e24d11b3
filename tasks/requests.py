"""What the main process of a worker knows of the work of its children: how much of each topic was handled."""

from collections import Counter
from typing import Any

from celery.worker.request import Request

handled: Counter[str] = Counter()
"""Promises by topic, and runs by sweep, since the start of this worker. Kept in its main process alone."""


class CountedRequest(Request):
    """A message in the worker. A task answers how many promises it handled, and here the answer arrives.

    Celery derives a class of its own for each task, with an `on_success` that knows nothing of this one; so we wrap that.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        celerys = cls.on_success

        def on_success(self: Any, failed__retval__runtime: tuple[Any, Any, Any], **how: Any) -> Any:
            failed, answer, _ = failed__retval__runtime
            if not failed and str(answer).isdigit():
                handled[self.name] += int(answer)
            return celerys(self, failed__retval__runtime, **how)

        cls.on_success = on_success
