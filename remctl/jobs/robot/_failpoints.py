"""Named moments at which a test can have the agent die; off otherwise.

`REMCTL_ROBOT_FAILPOINT=NAME:kill` in the environment ends the process there, as by kill -9.
"""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "REMCTL_ROBOT_FAILPOINT"


def reached(name: str) -> None:
    """Say that a moment has come."""
    if os.environ.get(VARIABLE) == f"{name}:kill":
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))  # which ends at once on Windows, too
