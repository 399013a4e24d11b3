"""Every drill: importing the lists fills DRILLS."""

from tests.faults import outside_drills, store_drills, web_drills, work_drills
from tests.faults.drills import DRILLS

__all__ = ["DRILLS", "outside_drills", "store_drills", "web_drills", "work_drills"]
