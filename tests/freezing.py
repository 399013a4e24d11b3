"""A server that stands still: it keeps its sockets open and answers nothing. New connections the kernel accepts for it."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from fleet.embedded import Server


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The server and all its processes stand still for as long as the block runs."""
    main = psutil.Process(server.pid)
    main.suspend()  # first, so that it starts no others meanwhile
    processes = [main, *main.children(recursive=True)]
    try:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.resume()
