"""A thread's own connection to Redis, for what every request asks.

To check a connection out of redis-py's pool, to look whether it lives and to put it back costs as much as the call, and its
client's dispatch half as much again; this is the library's connection without them.
"""

import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from typing import Any

import redis


class Script:
    """A Lua script, called by its digest once Redis knows it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class Line(threading.local):
    """Each thread that uses it has a connection of its own, made at its first use and anew after a failure."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._connection: Any = pool.make_connection()
        self._open = False

    def run(self, script: Script, keys: Sequence[str], *args: Any) -> Any:
        """What the script answers. Raises as `ask` does."""
        try:
            return self.ask("EVALSHA", script.digest, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:  # it was restarted, or flushed
            return self.ask("EVAL", script.text, len(keys), *keys, *args)

    def ask(self, *command: Any) -> Any:
        """What Redis answers. Raises RedisError, OSError. A connection that was closed while it was idle is made anew."""
        was_open = self._open
        try:
            return self._exchange(command)
        except redis.ConnectionError:
            if not was_open:
                raise
        return self._exchange(command)

    def _exchange(self, command: Sequence[Any]) -> Any:
        try:
            if not self._open:
                self._connection.connect()
                _let_kernel_keep_the_time(self._connection._sock)
            self._connection.send_command(*command, check_health=False)
            answer = self._connection.read_response(disable_decoding=True)
            self._open = True
            return answer
        except redis.ResponseError:
            raise
        except BaseException as error:
            # Whatever broke it off, a time limit too: the next answer on this connection would be to another question.
            self._open = False
            self._connection.disconnect()
            if isinstance(error.__context__, BlockingIOError):
                raise redis.TimeoutError("Redis did not answer in time") from None
            raise


def _let_kernel_keep_the_time(sock: socket.socket) -> None:
    """Python keeps a socket's time limit by one more system call before each, in which another thread takes over.

    The limit of what was waited for in vain then comes as a BlockingIOError. TLS has waits of its own and is left alone.
    """
    limit_s = sock.gettimeout()
    if not limit_s or isinstance(sock, ssl.SSLSocket):
        return
    sock.settimeout(None)
    limit = struct.pack("@ll", int(limit_s), int(limit_s % 1 * 1_000_000))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, limit)
