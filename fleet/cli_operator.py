"""Who is at the keyboard."""

import getpass
import os


def operator() -> str:
    """The name of whoever runs a command, as far as the system knows: for the audit log, also as where the act came from."""
    try:
        return f"cli:{getpass.getuser()}"
    except (OSError, KeyError):  # a container's user without a name
        return f"cli:{os.getuid()}"
