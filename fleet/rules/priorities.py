"""Who goes first when more requests come than can be served."""

from enum import IntEnum


class Priority(IntEnum):
    """VITAL asks whether we live; URGENT is somebody at the counter with a vehicle or money; DEFERRABLE can come again."""

    VITAL = 0
    URGENT = 1
    NORMAL = 2
    DEFERRABLE = 3
