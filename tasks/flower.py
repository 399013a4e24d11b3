"""`python -m tasks.flower`: Flower over these workers, for operators alone.

Flower can end workers, and shows to everybody who reaches it what it shows to anybody. So it starts on other addresses than
this machine's own only with a password. Its /metrics and /healthcheck answer without one all the same.
"""

import os
import sys
from ipaddress import ip_address

from fleet.config import ConfigError
from tasks import app
from tasks.wiring import settings


def main() -> int:
    """Run Flower until SIGTERM or SIGINT. Returns the exit code."""
    try:
        chosen = settings()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if not chosen.flower_basic_auth and not is_loopback(chosen.flower_address):
        sys.stderr.write("refusing to start: FLOWER_BASIC_AUTH is missing, and FLOWER_ADDRESS is not this machine's own\n")
        return 1
    # Flower reads its variables itself, and would take an empty one for an empty password.
    for name in [name for name, value in os.environ.items() if name.startswith("FLOWER_") and not value]:
        del os.environ[name]
    app.start(["--quiet", "flower", f"--address={chosen.flower_address}", f"--port={chosen.flower_port}"])
    return 0


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


if __name__ == "__main__":
    sys.exit(main())
